"""The same run as a Ray Data job: each worker process opens the models for itself and makes blocks of rows.

The log is written here, in the order of the rows; one actor decides which question was asked before. So the rows are
those that one process makes. Needs the `ray` extra; imports it only when a job is run.
"""

import asyncio
import json
import logging
import os
import platform
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from preflexor_agents.budget import Budget, Spent
from preflexor_agents.errors import ForgeError, InputError, PreflexorError
from preflexor_agents.events import Usage
from preflexor_agents.prompts import one_line
from preflexor_agents.store.bundled import NAME, open_named
from preflexor_training.forge.cache import CallCache
from preflexor_training.forge.calls import Asked, BackendGone, FailureKind, Spending
from preflexor_training.forge.folder import origin_of
from preflexor_training.forge.ledger import Ledger
from preflexor_training.forge.making import Maker, QuestionGate
from preflexor_training.forge.opening import Order, marks, opened
from preflexor_training.forge.ordering import in_order
from preflexor_training.forge.records import Row, from_json, to_json
from preflexor_training.forge.run import Report, Watch, calls_of, within
from preflexor_training.forge.steps import Dropped

ROWS_PER_SLOT = 2
"""Most rows of a block, for each call that a worker makes at once: enough to keep the calls busy."""
LOCAL = "local"
"""Address of a cluster of this machine's processors, started for the job."""


def forge_on_ray(order: Order, *, address: str = LOCAL, watch: Watch | None = None) -> Report:
    """Make the rows of an order with all processors of a Ray cluster, a worker on each.

    As `run.forge`, in the same folder and with the same rows. Every worker makes `order.slots` calls of a backend at
    once, and may write its share of the token budget. A worker keeps its replies in the order's folder: where workers
    see the same folder, no reply that was kept is paid for again.

    Args:
        order: names models and store as every worker finds them.
        address: of the cluster, or LOCAL.
        watch: as of `run.forge`.

    Raises:
        InputError: Ray is not installed or not at that address, or as `run.forge`.
        PreflexorError: as `run.forge`.
    """
    began = time.monotonic()
    asyncio.run(_tried(order))
    with closing(open_named(order.store)) as store:
        maker = Maker.of(store, order.settings)
        origin = origin_of(order.settings, store, maker.pack, marks(order))
        before: list[Row] = []
        with Ledger(order.folder, order.settings, origin, known=before.append) as ledger, _cluster(address):
            spending = Spending()
            if watch is not None:
                watch(ledger.tally, spending)
            stopped: Literal["rows"] | Spent = "rows"
            with closing(_blocks(order, ledger, before)) as blocks:
                for block in blocks:
                    for row in block.rows:
                        ledger.add(row)
                    _add(spending, block.spent)
                    if watch is not None:
                        watch(ledger.tally, spending)
                    if block.error is not None:
                        raise block.error
                    if block.stopped != "rows":
                        stopped = block.stopped
                        break
            notes = ledger.finish(store)
    return Report(
        folder=order.folder,
        run=ledger.run,
        stopped=stopped,
        tally=ledger.tally,
        spending=spending,
        seconds=time.monotonic() - began,
        notes=notes,
    )


class Worker:
    """Makes blocks of rows in a process of its own, side by side within a block."""

    def __init__(self, order: Order, run: str, gate: Any) -> None:
        """Open what the order names; `gate` is the actor that lets questions pass."""
        self._loop = asyncio.new_event_loop()
        self._order, self._run, self._gate = order, run, gate
        self._until = time.monotonic() + order.budget.s
        self._open = AsyncExitStack()
        work = self._loop.run_until_complete(self._open.enter_async_context(opened(order)))
        order.folder.mkdir(parents=True, exist_ok=True)
        self._calls = calls_of(work, CallCache(order.folder, writer=f"{platform.node()}-{os.getpid()}"))
        self._maker = Maker.of(work.store, order.settings)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """Make the rows of the numbers; one line of JSON."""
        before = _plain(self._calls.spending)
        rows: list[Row] = []
        block: dict[str, Any] = {"stopped": "rows", "error": None}
        try:
            made = self._make([int(number) for number in batch["number"]], rows)
            block["stopped"] = self._loop.run_until_complete(made)
        except PreflexorError as e:
            block["error"] = [type(e).__name__, str(e), e.exit_code]
        spent = {key: value - before[key] for key, value in _plain(self._calls.spending).items()}
        return {"block": [json.dumps({**block, "rows": list(map(to_json, rows)), "spent": spent})]}

    async def _make(self, numbers: Sequence[int], rows: list[Row]) -> Literal["rows"] | Spent:
        async def make(number: int, asked: Asked) -> Row:
            try:
                return await self._maker.row(number, asked, run=self._run, calls=self._calls, gate=self._passing)
            finally:
                await self._gate.leave.remote(number)

        async def take(row: Row) -> None:
            rows.append(row)

        budget = Budget(self._order.budget.tok, self._until - time.monotonic())
        making = in_order(numbers, make, calls=self._calls, slots=self._order.slots, hand_on=take)
        return await within(budget, making)

    async def _passing(self, number: int, question: str) -> None:
        refused = await self._gate.passing.remote(number, question)
        if refused is not None:
            raise Dropped(*refused)


class Gate:
    """The actor that lets questions pass in the order of their rows, from whichever worker they come."""

    def __init__(self, known: Sequence[tuple[int, str]]) -> None:
        """Begin after the rows of the log: their numbers and questions."""
        self._gate = QuestionGate()
        self._said: dict[int, tuple[str, str] | None] = {}
        for number, question in known:
            self._gate.know(number, question)

    async def passing(self, number: int, question: str) -> tuple[str, str] | None:
        """Why the question is refused, if it is; the same when a row is made anew after its worker died."""
        if number not in self._said:
            try:
                await self._gate(number, question)
                self._said[number] = None
            except Dropped as dropped:
                self._said[number] = (dropped.kind, dropped.reason)
        return self._said[number]

    async def leave(self, number: int) -> None:
        """Say that a row will not ask any more."""
        self._gate.leave(number)


class _Block(NamedTuple):
    rows: list[Row]
    spent: Mapping[str, int]
    stopped: Literal["rows"] | Spent
    error: PreflexorError | None


def _blocks(order: Order, ledger: Ledger, known: Sequence[Row]) -> Generator[_Block, None, None]:
    """The blocks of rows that the cluster makes, in order."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    if not ledger.left:
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the run tells how it stands itself
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = context.print_on_execution_start = False
    resources: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    workers = min(len(ledger.left), max(1, int(resources.get("CPU", 1))))
    blocks = max(workers, -(-len(ledger.left) // (order.slots * ROWS_PER_SLOT)))
    gate = ray.remote(Gate).options(num_cpus=0, max_concurrency=10_000)
    asked = gate.remote([(row.number, row.question) for row in known])
    share = Budget(max(1, order.budget.tok // workers), order.budget.s)
    numbers = ray.data.from_items([{"number": n} for n in ledger.left], override_num_blocks=blocks)
    made = numbers.map_batches(
        Worker,
        fn_constructor_args=(_anywhere(replace(order, budget=share)), ledger.run, asked),
        compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),  # a queued block could be overtaken
        batch_size=None,
        num_cpus=1,
    )
    try:
        for line in made.iter_rows():
            data = json.loads(line["block"])
            rows = [from_json(row) for row in data["rows"]]
            yield _Block(rows, data["spent"], data["stopped"], _error(data["error"]))
    except ray.exceptions.RayError as e:
        raise ForgeError(f"a Ray worker failed: …{one_line(str(e))[-300:]}") from e


async def _tried(order: Order) -> None:
    """See that store and models can be opened before a cluster is asked to; raises as `opened`."""
    async with opened(order):
        pass


def _anywhere(order: Order) -> Order:
    """The order with paths that do not depend on where a process was started."""
    questions = order.settings.questions
    settings = order.settings.model_copy(update={"questions": questions.absolute()}) if questions else order.settings
    store = order.store if order.store == NAME else str(Path(order.store).expanduser().absolute())
    return replace(order, settings=settings, store=store, folder=order.folder.absolute())


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    """The cluster of the program if it has one, else the one at the address; left at the end."""
    try:
        import ray
    except ImportError:
        raise InputError("Ray is not installed; install it: pip install 'preflexor-agents[ray]'") from None
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **own)
    except (ConnectionError, ValueError) as e:
        raise InputError(
            f"no Ray cluster at {address!r}: {one_line(str(e))[:200]}; leave it out for a local one"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _plain(spending: Spending) -> Counter[str]:
    """What was spent as numbers that can be added."""
    usage = spending.usage
    found = Counter(paid=spending.paid, cached=spending.cached)
    found.update({"prompt": usage.prompt, "from_cache": usage.cached, "generated": usage.generated})
    found.update({f"failed {kind}": count for kind, count in spending.failures.items()})
    return found


def _add(spending: Spending, spent: Mapping[str, int]) -> None:
    spending.paid += spent["paid"]
    spending.cached += spent["cached"]
    spending.usage += Usage(prompt=spent["prompt"], cached=spent["from_cache"], generated=spent["generated"])
    spending.failures.update({kind: n for kind in get_args(FailureKind) if (n := spent.get(f"failed {kind}", 0))})


def _error(told: Sequence[Any] | None) -> PreflexorError | None:
    """What ended a worker's part, as an error of the same meaning."""
    if told is None:
        return None
    name, message, exit_code = told
    if name == BackendGone.__name__:
        return BackendGone(message)
    return InputError(message) if exit_code == InputError.exit_code else ForgeError(message)
