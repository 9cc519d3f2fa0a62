"""A crowd of mixed requests in a small cache, for benchmarks/engine.py: is each reply right, and who waits longest?"""

import asyncio
import json
import random
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from engine_cases import LIBRARY, timed

from preflexor_agents.backends.base import Completion, Request
from preflexor_agents.backends.llamacpp import LlamaCppBackend
from preflexor_agents.backends.prefixes import Prefixes
from preflexor_agents.config import GREEDY, Sampling
from preflexor_agents.prompts import Grounds, Message, draft

SCHEMA = {"type": "object", "properties": {"better": {"enum": ["A", "B"]}}, "required": ["better"]}
LENGTHS_TOK = (10, 100, 400, 1000, 2700)
"""Of the questions; what the prompt says besides comes on top."""
CONTEXT_TOK = 4096
"""More than nano was trained with: what it writes behind 2,048 tokens makes no sense, but is to be the same again."""


class Crowd(NamedTuple):
    """How mixed requests fared."""

    requests: int
    cancelled: int
    longest_prompt_tok: int
    cells: int
    """The cap: tokens that the cache may hold."""
    most_cells: int
    most_memory_mb: float
    """Of the process, its highest so far."""
    seconds: float
    longest_wait_s: float
    """From asking to the first text."""
    bad_json: int
    greedy: int
    greedy_as_alone: int
    sampled: int
    sampled_as_alone: int
    sampled_alone_twice_alike: int
    left_live: int
    """Cells that are still taken by somebody at the end."""


async def crowd(path: Path, *, threads: int, requests: int, cells: int) -> Crowd:
    """Requests of up to 3,000 tokens with grammars, seeds and readers who leave, eight at a time in a small cache."""
    backend = await LlamaCppBackend.open(path, threads=threads, context_tok=CONTEXT_TOK)
    backend._model.context_tok, backend._model._context.cells = CONTEXT_TOK, cells
    prefixes = backend._model.scheduler._prefixes
    text = " ".join(note.read_text(encoding="utf-8") for note in sorted(LIBRARY.glob("*.md")))
    letters = len(text) / await backend.count_tok((Message("user", text),))
    rng = random.Random(7)
    asked = [_mixed(rng, n, text, letters) for n in range(requests)]
    gate, waits, longest = asyncio.Semaphore(8), [0.0], 0

    async def one(request: Request, leaves: bool) -> Completion | None:
        nonlocal longest
        async with gate:
            began = time.perf_counter()
            first = True
            async with aclosing(backend.generate(request)) as items:
                async for item in items:
                    if first:
                        waits.append(time.perf_counter() - began)
                    first = False
                    if isinstance(item, Completion):
                        longest = max(longest, item.usage.prompt)
                        return item
                    if leaves:
                        return None
        raise AssertionError

    counts = dict.fromkeys(
        ("bad_json", "greedy", "greedy_as_alone", "sampled", "sampled_as_alone", "sampled_alone_twice_alike"), 0
    )
    try:
        with _most_used() as most:
            began = time.perf_counter()
            replies = await asyncio.gather(*(one(*request) for request in asked))
            seconds = time.perf_counter() - began
        left = prefixes.live_cells()
        for (request, _), reply in zip(asked, replies, strict=True):
            if reply is None:
                continue
            if request.json_schema is not None:
                counts["bad_json"] += json.loads(reply.answer or "null") not in ({"better": "A"}, {"better": "B"})
                continue
            kind = "greedy" if request.sampling.temperature == 0 else "sampled"
            alone = (await timed(backend, request))[1]
            counts[kind] += 1
            counts[f"{kind}_as_alone"] += _text(alone) == _text(reply)
            if kind == "sampled":
                again = (await timed(backend, request))[1]
                counts["sampled_alone_twice_alike"] += _text(alone) == _text(again)
    finally:
        await backend.aclose()
    return Crowd(
        requests=requests,
        cancelled=sum(reply is None for reply in replies),
        longest_prompt_tok=longest,
        cells=cells,
        most_cells=max(most),
        most_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / (1 << (20 if sys.platform == "darwin" else 10)),
        seconds=seconds,
        longest_wait_s=max(waits),
        left_live=left,
        **counts,
    )


@contextmanager
def _most_used() -> Iterator[list[int]]:
    """Notes the cells in use whenever some were taken."""
    most, add = [0], Prefixes.add

    def noted(self: Prefixes, *arguments: object) -> None:
        add(self, *arguments)  # type: ignore[arg-type]
        most[0] = max(most[0], self.used)

    Prefixes.add = noted  # type: ignore[assignment, method-assign]
    try:
        yield most
    finally:
        Prefixes.add = add  # type: ignore[method-assign]


def _mixed(rng: random.Random, n: int, text: str, letters: float) -> tuple[Request, bool]:
    """A request, and whether its reader leaves after the first text; `letters` are those of a token."""
    sampling = Sampling(temperature=0.8) if rng.random() < 0.5 else GREEDY
    question = text[rng.randrange(2000) :][: int(letters * rng.choice(LENGTHS_TOK))]
    request = Request(
        messages=draft(Grounds(question=f"{n} {question}")),
        sampling=replace(sampling, max_tok=rng.choice((5, 30, 80))),
        seed=rng.randrange(1 << 20),
    )
    if rng.random() < 0.2:
        return replace(request, json_schema=SCHEMA, sampling=replace(GREEDY, max_tok=250)), False
    return request, rng.random() < 0.2


def _text(reply: Completion) -> tuple[str, str, str]:
    return reply.thinking, reply.reflection, reply.answer
