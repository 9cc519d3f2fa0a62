"""Asks every question of every system with every seed, several at a time, and yields each result as it is there."""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from preflexor_agents import prompts
from preflexor_agents.backends.base import Request, complete
from preflexor_agents.config import GREEDY
from preflexor_agents.errors import PreflexorError
from preflexor_agents.evaluation.results import Result, folded
from preflexor_agents.evaluation.scoring import right
from preflexor_agents.evaluation.slots import as_they_end
from preflexor_agents.evaluation.systems import System
from preflexor_agents.evaluation.tasks import Task
from preflexor_agents.events import Cited, Event, Passage, RoundFinished
from preflexor_agents.prompts import Grounds
from preflexor_agents.reflection.engine import run
from preflexor_agents.reflection.perform import Cast, Library
from preflexor_agents.session import close_cast, open_cast

BARE_TOK = 512
"""Most tokens of a bare answer."""
_SOME = "library"
"""A run searches only if it is told the name of a store."""


@dataclass(frozen=True, slots=True)
class Given:
    """The texts that come with a question, in the place of a store."""

    passages: tuple[Passage, ...]

    def search(self, query: str, *, k: int = 5) -> Sequence[Passage]:
        """All of them, up to k."""
        return self.passages[:k]

    def cite(self, answer: str, passages: Sequence[Passage]) -> Cited:
        """Nothing: there is no document to check against."""
        return Cited(citations=())


async def evaluate(
    tasks: Sequence[Task],
    systems: Sequence[System],
    *,
    seeds: Sequence[int] = (0,),
    library: Library | None = None,
    slots: int = 4,
    done: Collection[tuple[str, str, int]] = (),
) -> AsyncGenerator[Result, None]:
    """Every task with every system and seed that is not `done`, in any order; one model is open at a time.

    Args:
        tasks: what is asked.
        systems: who is asked.
        seeds: of the runs; the same for all systems.
        library: searched for tasks that bring no passages of their own.
        slots: questions that are worked on at the same time.
        done: keys of results that are there already.

    Raises:
        ModelError, BackendError: a model cannot be opened. A question that fails is a result with an error.
    """
    for model in dict.fromkeys(system.model for system in systems):
        mine = [system for system in systems if system.model == model]
        left = [
            (task, system, seed)
            for task in tasks
            for system in mine
            for seed in seeds
            if (system.name, task.id, seed) not in done
        ]
        if not left:
            continue
        cast = await open_cast(model)
        try:
            works = [partial(_ask, *item, cast=cast, library=library) for item in left]
            async with aclosing(as_they_end(works, slots=slots)) as results:
                async for result in results:
                    yield result
        finally:
            await close_cast(cast)


async def _ask(task: Task, system: System, seed: int, *, cast: Cast, library: Library | None) -> Result:
    library = Given(given_passages(task)) if task.passages else library
    try:
        if system.config is None:
            return await _bare(task, system, seed, cast=cast, library=library)
        events: list[Event] = []
        closed_s: list[float] = []
        began = time.monotonic()
        config = replace(system.config, seed=seed)
        async with aclosing(run(task.prompt(), cast=cast, config=config, library=library, store=_SOME)) as told:
            async for event in told:
                events.append(event)
                if isinstance(event, RoundFinished):
                    closed_s.append(time.monotonic() - began)
        return folded(task, events, system=system.name, seed=seed, closed_s=closed_s)
    except PreflexorError as error:
        return Result(task=task.id, system=system.name, seed=seed, column=task.column, error=str(error))


async def _bare(task: Task, system: System, seed: int, *, cast: Cast, library: Library | None) -> Result:
    """The baseline: the drafter's prompt, with its thinking closed before it has begun."""
    began = time.monotonic()
    passages = tuple(await asyncio.to_thread(library.search, task.question)) if library is not None else ()
    request = Request(
        messages=prompts.draft(Grounds(question=task.prompt(), passages=passages)),
        sampling=replace(GREEDY, max_tok=BARE_TOK),
        seed=seed,
        thinking="",
    )
    reply = await complete(cast["thinker"], request)
    return Result(
        task=task.id,
        system=system.name,
        seed=seed,
        column=task.column,
        answer=reply.answer,
        right=right(task, reply.answer),
        tokens_prompt=reply.usage.prompt,
        tokens_cached=reply.usage.cached,
        tokens_generated=reply.usage.generated,
        calls=1,
        seconds=time.monotonic() - began,
        stop_reason="rounds",
    )


def given_passages(task: Task) -> tuple[Passage, ...]:
    """The texts that come with a question, as passages."""
    return tuple(
        Passage(chunk_id=-n, source=task.id, title=f"text {n}", start=0, end=len(text), text=text)
        for n, text in enumerate(task.passages, 1)
    )
