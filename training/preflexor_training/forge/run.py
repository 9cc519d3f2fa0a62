"""A forge run: many rows at once, each finished one put into the log in its turn; goes on where it was broken off."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from preflexor_agents.budget import Budget, Spent
from preflexor_agents.errors import StoreError
from preflexor_agents.store import Store
from preflexor_agents.store.forge_index import ForgeRow
from preflexor_training.forge.cache import CallCache
from preflexor_training.forge.calls import Asked, Calls, Model, Patience, Spending
from preflexor_training.forge.folder import ModelMark, claim, origin_of
from preflexor_training.forge.limits import BudgetSpent, Purse
from preflexor_training.forge.log import PairLog
from preflexor_training.forge.making import Maker, QuestionGate
from preflexor_training.forge.ordering import in_order
from preflexor_training.forge.records import Row, read_rows
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Who
from preflexor_training.forge.table import Tally

SLOTS = 8
"""Calls of one backend at once."""
ENDLESS = Budget(tok=1 << 62, s=float(1 << 30))
Watch = Callable[[Tally, Spending], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A run with everything open that it needs."""

    settings: ForgeSettings
    folder: Path
    """Made if there is none; if a run is in it, that goes on."""
    store: Store
    models: Mapping[Who, Model]
    file_marks: Mapping[Who, str] = field(default_factory=dict)
    """Of models that are files, from `folder.file_mark`."""
    slots: int = SLOTS
    """Calls of one backend at once. With 1 the calls are made in the published serial order."""
    budget: Budget = ENDLESS
    """Of this call; when it is spent, the rest is left for the next one."""
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a call of `forge` came to."""

    folder: Path
    run: str
    """Id of the run."""
    stopped: Literal["rows"] | Spent
    """`rows`: all that were asked for are there."""
    tally: Tally
    spending: Spending
    seconds: float
    notes: tuple[str, ...] = ()


async def forge(work: Work, *, watch: Watch | None = None, take: Callable[[Row], None] | None = None) -> Report:
    """Make the rows that the log does not have yet, and add them to it in order.

    Cancelling it, or killing the process, loses the replies that are being written, and nothing else.

    Args:
        work: the run.
        watch: is given the state of things before the first and after every row.
        take: is given each row as soon as it is in the log, those that were there before first.

    Raises:
        InputError: another run is in the folder, or there is nothing to make rows of.
        BackendGone: a model has stopped answering.
        DiskError: the disk is full.
        StoreError: the store could not be read.
    """
    began = time.monotonic()
    settings = work.settings
    maker = await asyncio.to_thread(Maker.of, work.store, settings)
    run = await asyncio.to_thread(_claimed, work, maker)
    tally, gate = Tally(total=settings.rows), QuestionGate()

    def known(row: Row) -> None:
        tally.add(row)
        gate.know(row)
        if take is not None:
            take(row)

    with closing(CallCache(work.folder)) as cache, closing(PairLog(work.folder, run=run, take=known)) as log:
        tally.before = tally.done
        calls = calls_of(work, cache)

        async def make(number: int, asked: Asked) -> Row:
            try:
                return await maker.row(number, asked, run=run, calls=calls, gate=gate)
            finally:
                gate.leave(number)

        async def add(row: Row) -> None:
            await asyncio.to_thread(log.append, row)
            tally.add(row)
            if take is not None:
                take(row)
            if watch is not None:
                watch(tally, calls.spending)

        if watch is not None:
            watch(tally, calls.spending)
        left = range(log.next, settings.rows)
        try:
            stopped = await _within(work.budget, in_order(left, make, calls=calls, slots=work.slots, hand_on=add))
        finally:
            notes = _indexed(work.store, run, log.path)
    return Report(
        folder=work.folder,
        run=run,
        stopped=stopped,
        tally=tally,
        spending=calls.spending,
        seconds=time.monotonic() - began,
        notes=notes,
    )


async def forge_ahead(work: Work) -> None:
    """Make the calls of a run that need no student, and keep the replies for the run itself.

    While a student is trained, the good sides of its next rows are made so; `models` may lack it. Raises as `forge`.
    """
    maker = await asyncio.to_thread(Maker.of, work.store, work.settings)
    gate = QuestionGate()
    work.folder.mkdir(parents=True, exist_ok=True)
    with closing(CallCache(work.folder)) as cache:
        calls = calls_of(work, cache)

        async def make(number: int, asked: Asked) -> None:
            try:
                await maker.ahead(number, asked, calls=calls, gate=gate)
            finally:
                gate.leave(number)

        numbers = range(work.settings.rows)
        await _within(work.budget, in_order(numbers, make, calls=calls, slots=work.slots, hand_on=_let_go))


async def _let_go(_: None) -> None:
    """Of a row made ahead nothing is left but its replies."""


def calls_of(work: Work, cache: CallCache) -> Calls:
    """The calls of a run."""
    purse = Purse(work.budget.tok)
    return Calls(work.models, cache=cache, slots=work.slots, purse=purse, patience=work.patience)


async def _within(budget: Budget, rows: Awaitable[None]) -> Literal["rows"] | Spent:
    """Make the rows until they are there or the budget is spent; says which."""
    try:
        async with asyncio.timeout(budget.s) as limit:
            await rows
    except BudgetSpent as spent:
        return spent.spent
    except TimeoutError:
        if not limit.expired():
            raise
        return "budget_seconds"
    return "rows"


def _claimed(work: Work, maker: Maker) -> str:
    marks: dict[Who, ModelMark] = {
        who: ModelMark(
            spec=model.backend.spec, adapter_sha256=model.adapter_sha256, file_mark=work.file_marks.get(who, "")
        )
        for who, model in work.models.items()
    }
    origin = origin_of(
        work.settings,
        store=work.store.path,
        pack=maker.pack,
        teacher=marks["teacher"],
        student=marks["student"],
        judge=marks["judge"],
    )
    return claim(work.folder, work.settings, origin)


def _indexed(store: Store, run: str, log: Path) -> tuple[str, ...]:
    """Let the rows be found by their chunks. The log holds all that counts, so a store that is read-only is no harm."""
    rows = [
        ForgeRow(
            id=row.id,
            number=row.number,
            state=row.state,
            variant=row.variant,
            phase=row.phase,
            round=row.round,
            chunk_ids=tuple(span.chunk_id for span in row.context),
        )
        for row in read_rows(log)
    ]
    try:
        store.forge.record(run, rows, log=log)
    except StoreError as e:
        return (f"the rows are not noted in the store: {e}",)
    return ()
