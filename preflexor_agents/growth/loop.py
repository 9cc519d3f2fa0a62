"""The graph asks questions of its own, one after the other, and keeps what the answers add."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Literal

from preflexor_agents.backends.base import Backend
from preflexor_agents.budget import Budget
from preflexor_agents.errors import InputError, PreflexorError
from preflexor_agents.events import Event, Usage
from preflexor_agents.growth.answers import Kept, keep, outcome
from preflexor_agents.growth.extract import planned
from preflexor_agents.growth.questions import Proposal, proposals
from preflexor_agents.packs import Pack
from preflexor_agents.store import Store

Asker = Callable[[str], AsyncIterator[Event]]
"""Runs one question to its end; the loop does not know how."""
Stop = Literal["questions", "budget_tokens", "budget_seconds", "novelty", "asked_all"]
LOOKED_AT = 2000
"""Best connected entities among which questions are looked for."""
PATIENCE = 3
"""Questions in a row that may add nothing before the loop ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """A question was asked and its answer kept."""

    proposal: Proposal
    answer: str
    kept: Kept
    error: str = ""
    """Why there is no answer, or why its facts are missing."""
    usage: Usage
    seconds: float

    @property
    def novelty(self) -> int:
        """New entities and relations."""
        return self.kept.added.entities + self.kept.added.relations


@dataclass(slots=True)
class _Spent:
    budget: Budget
    began: float = field(default_factory=time.monotonic)
    tok: int = 0
    without_news: int = 0

    def over(self) -> Stop | None:
        limit = Budget(self.budget.tok - self.tok, self.budget.s - (time.monotonic() - self.began)).spent()
        return limit or ("novelty" if self.without_news >= PATIENCE else None)


async def grow(
    store: Store, ask: Asker, backend: Backend, *, pack: Pack, questions: int, budget: Budget
) -> AsyncGenerator[Grown | Stop, None]:
    """Ask questions of the graph's own; yields each when it is done, and last why the loop ended.

    Args:
        store: has the graph and takes what is new.
        ask: answers a question from the store.
        backend: reads the facts out of the answers.
        pack: the field.
        questions: most questions.
        budget: generated tokens and seconds for all; a question that has begun is ended.

    Raises:
        InputError: the graph is empty.
        StoreError: the store could not be written.
    """
    spent = _Spent(budget)
    for _ in range(questions):
        if stop := spent.over():
            yield stop
            return
        proposal = await asyncio.to_thread(_next, store, pack)
        if proposal is None:
            yield "asked_all"
            return
        grown = await _asked(store, ask, backend, pack, proposal)
        spent.tok += grown.usage.generated
        spent.without_news = 0 if grown.novelty else spent.without_news + 1
        yield grown
    yield "questions"


def _next(store: Store, pack: Pack) -> Proposal | None:
    graph = store.graph.whole(limit=LOOKED_AT)
    if not graph.entities:
        raise InputError("the graph is empty, so it has no questions; fill it with: preflexor graph extract")
    asked = [run.note for run in store.graph.runs() if run.kind == "grow"]
    return next(proposals(graph, pack, asked=asked), None)


async def _asked(store: Store, ask: Asker, backend: Backend, pack: Pack, proposal: Proposal) -> Grown:
    began = time.monotonic()
    run = await asyncio.to_thread(store.graph.begin, planned(backend, pack, kind="grow", note=proposal.question))
    found = outcome([event async for event in ask(proposal.question)])
    kept, error = Kept(), "" if found else "it was not answered"
    if found is not None:
        try:
            kept = await keep(store, backend, found, pack=pack, run=run)
        except PreflexorError as e:
            error = str(e)
    return Grown(
        proposal=proposal,
        answer=found.answer if found else "",
        kept=kept,
        error=error,
        usage=(found.usage if found else Usage()) + kept.usage,
        seconds=time.monotonic() - began,
    )
