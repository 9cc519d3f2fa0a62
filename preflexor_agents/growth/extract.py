"""Reads the facts out of the passages of a store with a model, several at a time; goes on where it was broken off."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from preflexor_agents.backends.base import Backend, Completion, Request, complete
from preflexor_agents.budget import Budget
from preflexor_agents.config import GREEDY
from preflexor_agents.errors import BackendError, PreflexorError
from preflexor_agents.events import Passage, Usage
from preflexor_agents.graph.values import Added, Run, RunKind
from preflexor_agents.growth import reading
from preflexor_agents.packs import Pack
from preflexor_agents.store import Store

SIDE_BY_SIDE = 4
"""Passages read at the same time."""
REPLY_TOK = 1500
"""Most tokens of a reply."""
FAILURES = 5
"""Calls that fail one after the other end the extraction: the model is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A passage was read."""

    passage: Passage
    added: Added
    """What the store took; `refused` also has what the passage does not bear out."""
    error: str = ""
    """Why it could not be read, if so; it is tried again next time."""
    usage: Usage
    seconds: float


def planned(backend: Backend, pack: Pack, *, kind: RunKind = "extract", note: str = "", seed: int = 0) -> Run:
    """The run in which this model reads facts by this pack."""
    sha256 = reading.prompt_sha256(pack)
    return Run(kind=kind, model=backend.spec, prompt_sha256=sha256, seed=seed, note=note or pack.name)


async def extract(
    store: Store, backend: Backend, passages: Sequence[Passage], *, pack: Pack, run: Run, budget: Budget
) -> AsyncGenerator[Examined, None]:
    """Read the passages, in any order of ending; what was yielded is in the store.

    Args:
        store: takes the facts.
        backend: the model; it must be able to follow a JSON schema.
        passages: chunks of the store.
        pack: says what to look for.
        run: begun in the store.
        budget: generated tokens and seconds for all; when it is spent, the rest is left for next time.

    Raises:
        BackendError: FAILURES calls failed one after the other.
        StoreError: the store could not be written.
    """
    began = time.monotonic()
    left = list(reversed(passages))
    tok, failures = budget.tok, 0
    running: set[asyncio.Task[Examined]] = set()
    try:
        while left or running:
            spent = Budget(tok, budget.s - (time.monotonic() - began)).spent()
            while left and not spent and len(running) < SIDE_BY_SIDE:
                running.add(asyncio.create_task(_examine(store, backend, left.pop(), pack, run)))
            if not running:
                return
            timeout = max(0.0, budget.s - (time.monotonic() - began))
            done, running = await asyncio.wait(running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return
            for task in done:
                examined = task.result()
                tok -= examined.usage.generated
                failures = failures + 1 if examined.error else 0
                yield examined
                if failures == FAILURES:
                    raise BackendError(f"{FAILURES} calls failed one after the other, the last: {examined.error}")
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _examine(store: Store, backend: Backend, passage: Passage, pack: Pack, run: Run) -> Examined:
    began = time.monotonic()
    try:
        reply = await ask(backend, passage, pack, seed=run.seed)
    except PreflexorError as error:
        seconds = time.monotonic() - began
        return Examined(passage=passage, added=Added(), error=str(error), usage=Usage(), seconds=seconds)
    found = reading.read(reply.answer, passage)
    added = await asyncio.to_thread(store.graph.add, found.facts, run=run, examined=(passage.chunk_id,))
    return Examined(
        passage=passage,
        added=replace(added, refused=(*found.refused, *added.refused)),
        usage=reply.usage,
        seconds=time.monotonic() - began,
    )


async def ask(backend: Backend, passage: Passage, pack: Pack, *, seed: int) -> Completion:
    """The model's reply about a passage. Raises BackendError as `Backend.generate`."""
    request = Request(
        messages=reading.messages(pack, passage),
        sampling=replace(GREEDY, max_tok=REPLY_TOK),
        seed=seed,
        json_schema=reading.schema(pack),
    )
    return await complete(backend, request)
