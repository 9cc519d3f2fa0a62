"""Answers to open questions compared by a judge: blind, in both orders, by their answers only.

A judge that prefers a place, not an answer, says one thing in one order and the other in the other: a tie.
"""

from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from preflexor_agents import prompts
from preflexor_agents.backends.base import Backend, Request, complete
from preflexor_agents.config import ReflectConfig
from preflexor_agents.errors import BackendError
from preflexor_agents.evaluation.results import Result
from preflexor_agents.evaluation.running import given_passages
from preflexor_agents.evaluation.slots import as_they_end
from preflexor_agents.evaluation.statistics import Interval, bootstrap, sign_test
from preflexor_agents.evaluation.tasks import Task
from preflexor_agents.prompts import Grounds
from preflexor_agents.reflection.verdicts import points


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One question, two systems."""

    task: str
    seed: int
    first: str
    second: str
    score: float | None = None
    """What the second system gets: 1 won in both orders, 0 lost in both, 0.5 a tie; None if the judge failed."""
    orders: tuple[float, ...] = ()
    """What it got in each order."""
    error: str = ""

    def key(self) -> tuple[str, int, str, str]:
        """What tells it from the others of a run."""
        return self.task, self.seed, self.first, self.second


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a system does against another by a judge."""

    first: str
    second: str
    won: int
    tied: int
    lost: int
    failed: int
    score: Interval
    """Mean of what the second system gets, by a bootstrap over questions."""
    p: float
    """Exact sign test over what was not tied."""


async def judge(
    tasks: Mapping[str, Task],
    results: Sequence[Result],
    *,
    first: str,
    backend: Backend,
    slots: int = 4,
    done: Collection[tuple[str, int, str, str]] = (),
) -> AsyncGenerator[Judgement, None]:
    """Every other system against `first` on every open question, with every seed, as each judgement is there."""
    answers = {r.key(): r for r in results if tasks[r.task].kind == "open" and not r.error}
    works = [
        partial(_judge, tasks[r.task], answers[first, r.task, r.seed], r, backend=backend)
        for r in answers.values()
        if r.system != first and (first, r.task, r.seed) in answers and (r.task, r.seed, first, r.system) not in done
    ]
    async with aclosing(as_they_end(works, slots=slots)) as judgements:
        async for judgement in judgements:
            yield judgement


async def _judge(task: Task, a: Result, b: Result, *, backend: Backend) -> Judgement:
    named = {"task": task.id, "seed": b.seed, "first": a.system, "second": b.system}
    grounds = Grounds(question=task.prompt(), passages=given_passages(task))
    orders = ((a.answer, b.answer, "B"), (b.answer, a.answer, "A"))
    try:
        replies = [
            await complete(
                backend,
                Request(messages=prompts.judge(grounds, a=left, b=right), sampling=ReflectConfig().judge, seed=b.seed),
            )
            for left, right, _ in orders
        ]
    except BackendError as error:
        return Judgement(**named, error=str(error))  # type: ignore[arg-type]
    said = tuple(points(r.answer, challenger=letter) for r, (_, _, letter) in zip(replies, orders, strict=True))
    score = said[0] if said[0] == said[1] else 0.5
    return Judgement(**named, score=score, orders=said)  # type: ignore[arg-type]


def standings(judgements: Sequence[Judgement]) -> list[Standing]:
    """A line for each pair of systems."""
    pairs: dict[tuple[str, str], list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        pairs[judgement.first, judgement.second].append(judgement)
    found = []
    for (first, second), mine in pairs.items():
        heard = [j for j in mine if j.score is not None]
        scores = [j.score for j in heard if j.score is not None]
        won, lost = sum(s > 0.5 for s in scores), sum(s < 0.5 for s in scores)
        found.append(
            Standing(
                first=first,
                second=second,
                won=won,
                tied=len(scores) - won - lost,
                lost=lost,
                failed=len(mine) - len(heard),
                score=bootstrap(scores, groups=[j.task for j in heard]),
                p=sign_test(won, lost),
            )
        )
    return found
