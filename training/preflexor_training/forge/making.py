"""Makes one row: draws its passages, runs its steps, and writes down what came out and what it cost."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from preflexor_agents import packs
from preflexor_agents.errors import BackendError, InputError
from preflexor_agents.events import Passage
from preflexor_agents.packs import Pack
from preflexor_agents.prompts import one_line
from preflexor_agents.store import Store
from preflexor_training.forge import contexts, rejected, variants
from preflexor_training.forge.asking import row_seed
from preflexor_training.forge.calls import Asked, CallFailed, Calls
from preflexor_training.forge.contexts import Corpus
from preflexor_training.forge.duplicates import AskedBefore
from preflexor_training.forge.given import Question
from preflexor_training.forge.log import row_id
from preflexor_training.forge.records import CallRecord, Row, from_json, to_json
from preflexor_training.forge.rejected import Rejected
from preflexor_training.forge.rows import run_steps
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Dropped, Job, Step, Values
from preflexor_training.forge.turnstile import Turnstile

_MOST_REASON_CHARS = 300
Gate = Callable[[int, str], Awaitable[None]]
"""Is told the number of a row and its question, and raises Dropped if a row before asks nearly the same."""


class QuestionGate:
    """Lets a question pass that no row before asks; the rows pass in order of their numbers."""

    def __init__(self) -> None:
        self._asked = AskedBefore()
        self._turnstile = Turnstile()

    def know(self, number: int, question: str) -> None:
        """Take a row of the log, the next one: one that has a question has passed."""
        if question:
            with suppress(Dropped):  # given questions may come again
                self._asked.take(number, question)
        self.leave(number)

    async def __call__(self, number: int, question: str) -> None:
        """Wait until it is the row's turn, and let it pass. Raises Dropped: a row before asks nearly the same."""
        await self._turnstile.passing(number, lambda: self._asked.take(number, question))

    def leave(self, number: int) -> None:
        """Say that a row will not ask any more. Idempotent."""
        self._turnstile.leave(number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """What all rows of a run have in common."""

    settings: ForgeSettings
    pack: Pack
    corpus: Corpus
    made: tuple[Step, ...]
    """Of everything but the rejected side; they never ask the student."""
    rejected: tuple[Step, ...]

    @classmethod
    def of(cls, store: Store, settings: ForgeSettings) -> "Maker":
        """Look through the store and get everything ready.

        Raises:
            InputError: there is nothing to make rows of; names the remedy.
            StoreError: the store could not be read.
        """
        return cls(
            settings=settings,
            pack=packs.load(settings.pack),
            corpus=contexts.survey(store, settings),
            made=variants.steps(settings),
            rejected=rejected.steps(settings),
        )

    async def row(self, number: int, asked: Asked, *, run: str, calls: Calls, gate: Gate) -> Row:
        """Make a row. Raises PreflexorError: the run cannot go on."""
        job = self._job(number, asked, calls)
        ran = await self._run((*self.made, *self.rejected), job, asked, calls, gate)
        made = await asyncio.to_thread(variants.assemble, replace(job, passages=ran.passages), ran.values)
        settings = self.settings
        row = Row(
            id=row_id(run, number),
            number=number,
            state="kept",
            variant=settings.variant,
            phase=settings.phase,
            round=settings.round,
            seed=job.seed,
            pack=self.pack.name,
            question=made.question,
            gold=made.gold,
            prompt=made.prompt,
            categories=made.categories,
            chosen=made.chosen,
            context=made.context,
            scores=dict(made.counts),
            calls=tuple(record for _, record in sorted(asked.records, key=_order)),
        )
        if ran.fall is not None:
            return _fallen(row, ran.fall)
        worse: Rejected = ran.values["rejected"]
        scores = {**made.counts, **worse.scores}
        return await asyncio.to_thread(
            _checked, replace(row, rejected=worse.reply, rejected_kind=worse.kind, scores=scores)
        )

    async def ahead(self, number: int, asked: Asked, *, calls: Calls, gate: Gate) -> None:
        """Make only the calls of a row that need no student, so that their replies are in the cache."""
        await self._run(self.made, self._job(number, asked, calls), asked, calls, gate)

    def _job(self, number: int, asked: Asked, calls: Calls) -> Job:
        return Job(
            number=number,
            seed=row_seed(self.settings, number),
            passages=(),
            pack=self.pack,
            ask=calls.asker(asked, row=number, place=0),
            retrieve=contexts.retriever(self.corpus.store),
        )

    async def _run(self, steps: Sequence[Step], job: Job, asked: Asked, calls: Calls, gate: Gate) -> "_Made":
        try:
            passages = await asyncio.to_thread(contexts.draw, self.corpus, number=job.number)
        except Dropped as dropped:
            return _Made((), {}, dropped)
        gated = steps if self.settings.questions else tuple(_gated(step, gate) for step in steps)

        def job_of(place: int) -> Job:
            return replace(job, passages=passages, ask=calls.asker(asked, row=job.number, place=place))

        ran = await run_steps(gated, job_of)
        return _Made(passages, ran.values, ran.fall)


class _Made(NamedTuple):
    """What a row was made of."""

    passages: tuple[Passage, ...]
    values: Values
    fall: Dropped | BackendError | None


def _gated(step: Step, gate: Gate) -> Step:
    """The step that makes the question, with the gate behind it."""
    if step.name != "question":
        return step

    async def run(job: Job, values: Values) -> Question:
        question: Question = await step.run(job, values)
        await gate(job.number, question.text)
        return question

    return replace(step, run=run)


def _fallen(row: Row, error: Dropped | BackendError) -> Row:
    """The row with why it fell. It has a question only if that passed the gate."""
    match error:
        case Dropped(scores=scores):
            return replace(row, state="dropped", reason=_short(str(error)), scores={**row.scores, **scores})
        case CallFailed(kind=kind):
            return replace(row, state="failed", reason=_short(f"{kind}: {error}"))
        case _:
            return replace(row, state="failed", reason=_short(f"error: {error}"))


def _checked(row: Row) -> Row:
    """The row if it can be read back from the log, else the same as a dropped one."""
    try:
        from_json(json.loads(json.dumps(to_json(row))), where="it")
    except InputError as e:
        return replace(row, state="dropped", reason=_short(f"invalid: {e}"))
    return row


def _short(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= _MOST_REASON_CHARS else f"{line[: _MOST_REASON_CHARS - 1]}…"


def _order(noted: tuple[int, CallRecord]) -> tuple[int, str, str, int]:
    """By the order of the steps, not by who was faster."""
    place, record = noted
    return place, record.step, record.prompt_sha256, record.seed
