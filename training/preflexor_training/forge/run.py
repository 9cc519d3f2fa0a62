"""A forge run: many rows at once, each finished one put into the log in its turn; goes on where it was broken off."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from preflexor_agents.budget import Budget, Spent
from preflexor_agents.errors import PreflexorError
from preflexor_agents.store import Store
from preflexor_training.forge.cache import CallCache
from preflexor_training.forge.calls import Asked, Calls, Model, Patience, Spending
from preflexor_training.forge.folder import ModelMark, origin_of
from preflexor_training.forge.ledger import Ledger
from preflexor_training.forge.limits import BudgetSpent, Purse
from preflexor_training.forge.making import Maker, QuestionGate
from preflexor_training.forge.ordering import in_order
from preflexor_training.forge.records import Row
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
    names: Mapping[Who, ModelMark] = field(default_factory=dict)
    """What the run's record calls the models; those that it lacks go by what their backends say."""
    slots: int = SLOTS
    """Calls of one backend at once. With 1 the calls are made in the published serial order."""
    rows_at_once: int | None = None
    """Rows under way at most; as many as keep all slots busy if not given. What the rows say does not depend on it."""
    budget: Budget = ENDLESS
    """Of this call; when it is spent, the rest is left for the next one."""
    patience: Patience = field(default_factory=Patience)

    def marks(self) -> dict[Who, ModelMark]:
        """Which model has which part."""
        said: dict[Who, ModelMark] = {
            who: ModelMark(spec=model.backend.spec, adapter_sha256=model.adapter_sha256)
            for who, model in self.models.items()
        }
        return {**said, **self.names}


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
    maker = await asyncio.to_thread(Maker.of, work.store, work.settings)
    gate = QuestionGate()

    def known(row: Row) -> None:
        gate.know(row.number, row.question)
        if take is not None:
            take(row)

    origin = await asyncio.to_thread(origin_of, work.settings, work.store, maker.pack, work.marks())
    with Ledger(work.folder, work.settings, origin, known=known) as ledger, closing(CallCache(work.folder)) as cache:
        calls = calls_of(work, cache)

        async def make(number: int, asked: Asked) -> Row:
            try:
                return await maker.row(number, asked, run=ledger.run, calls=calls, gate=gate)
            finally:
                gate.leave(number)

        async def add(row: Row) -> None:
            await asyncio.to_thread(ledger.add, row)
            if take is not None:
                take(row)
            if watch is not None:
                watch(ledger.tally, calls.spending)

        if watch is not None:
            watch(ledger.tally, calls.spending)
        try:
            most = work.rows_at_once
            rows = in_order(ledger.left, make, calls=calls, slots=work.slots, hand_on=add, rows_at_once=most)
            stopped = await within(work.budget, rows)
        except BaseException:
            with suppress(PreflexorError):
                ledger.finish(work.store)
            raise
        notes = ledger.finish(work.store)
    return Report(
        folder=work.folder,
        run=ledger.run,
        stopped=stopped,
        tally=ledger.tally,
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
        most = work.rows_at_once
        rows = in_order(numbers, make, calls=calls, slots=work.slots, hand_on=_let_go, rows_at_once=most)
        await within(work.budget, rows)


async def _let_go(_: None) -> None:
    """Of a row made ahead nothing is left but its replies."""


def calls_of(work: Work, cache: CallCache) -> Calls:
    """The calls of a run."""
    purse = Purse(work.budget.tok)
    return Calls(work.models, cache=cache, slots=work.slots, purse=purse, patience=work.patience)


async def within(budget: Budget, rows: Awaitable[None]) -> Literal["rows"] | Spent:
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
