"""The pieces a row is made of: steps with declared needs, and the calls that they make."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from preflexor_agents.backends.base import Completion, Request
from preflexor_agents.errors import PreflexorError
from preflexor_agents.events import Passage
from preflexor_agents.packs import Pack

Who = Literal["teacher", "student", "judge"]
"""Whose backend answers; several may be the same model."""


class Dropped(PreflexorError):
    """A row is given up on purpose: a gate refused it. Counted by kind, with its reason."""

    def __init__(self, kind: str, reason: str, *, scores: Mapping[str, float] | None = None) -> None:
        """Say why; `scores` are what was counted until then, and go into the row's record."""
        super().__init__(f"{kind}: {reason}")
        self.kind, self.reason, self.scores = kind, reason, scores or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a model within a row."""

    step: str
    """Name of the step, as `question` or `category:Hypothesis`."""
    who: Who
    request: Request
    attempt: int = 0
    """Which of several samples of the same request; part of the call's identity, as its seed is."""
    may_be_empty: bool = False
    """Whether an empty answer is one, as of a category that the context has nothing for; else it is asked again."""
    may_decline: bool = False
    """Whether to decline is an answer, as to a question that cannot be answered; else it is asked again."""


class Ask(Protocol):
    """Makes a call: from the cache if it was paid for before, else from the backend, with retries, within the budget.

    What was asked, by whom, how long it took and what it cost goes into the row's record.
    """

    async def __call__(self, call: Call) -> Completion:
        """The reply. Raises BackendError when all tries failed, BudgetSpent when the run may spend no more."""


class Retrieve(Protocol):
    """Finds passages for a query in the corpus, best first; never what models wrote themselves."""

    async def __call__(self, query: str, *, k: int) -> tuple[Passage, ...]:
        """At most `k` passages. Raises StoreError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a step knows of its row."""

    number: int
    """Of the row in the run, from 0; with the run's seed it decides everything that is drawn."""
    seed: int
    """Of the row, from `asking.row_seed`; the seed of each call is made of it."""
    passages: tuple[Passage, ...]
    """The context that was drawn for the row."""
    pack: Pack
    ask: Ask
    retrieve: Retrieve
    """From `contexts.retriever`."""


Values = Mapping[str, Any]
"""Results of the steps before, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One node of a row's dependency graph; it starts as soon as all its needs are there."""

    name: str
    needs: tuple[str, ...] = ()
    run: Callable[[Job, Values], Awaitable[Any]]
