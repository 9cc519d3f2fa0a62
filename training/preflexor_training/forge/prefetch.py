"""Makes the rows of the next refresh in a thread of its own, while a trainer works on this one."""

import asyncio
import queue
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Self

from preflexor_agents.backends import open_backend
from preflexor_training.forge.opening import Open, Order, opened
from preflexor_training.forge.records import Row
from preflexor_training.forge.run import Report, forge, forge_ahead

Take = Callable[[Row], None]


class Prefetch:
    """A run that has begun in another thread; get it from `rows` or `good_sides`.

    Whatever ends it, what it made stays in its folder, and another run of the same order goes on there. Leaving it as
    a context manager cancels it.
    """

    def __init__(self, work: Callable[[Take], Awaitable[Report | None]]) -> None:
        self._rows: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
        self._work = work
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Report | None] | None = None
        self._cancelled = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forge")
        self._ending = self._thread.submit(asyncio.run, self._main())
        self._ending.add_done_callback(lambda _: self._rows.put(None))

    @classmethod
    def of_rows(cls, order: Order, *, open_model: Open = open_backend) -> Self:
        """Begin to make the rows of an order, of a student that can be asked while the trainer works."""

        async def work(take: Take) -> Report:
            async with opened(order, open_model=open_model) as run:
                return await forge(run, take=take)

        return cls(work)

    @classmethod
    def of_good_sides(cls, order: Order, *, open_model: Open = open_backend) -> Self:
        """Begin to make the calls that need no student: for the one that is being trained.

        A run of the order's settings in its folder later finds their replies and has to ask the student only.
        """

        async def work(_: Take) -> None:
            async with opened(order, open_model=open_model) as run:
                await forge_ahead(run)

        return cls(work)

    def rows(self) -> Iterator[Row]:
        """The rows in order as they come to be, those that were in the log first. To be called once.

        Raises:
            PreflexorError: what ended the run, after the last row.
        """
        while (row := self._rows.get()) is not None:
            yield row
        self.wait()

    def wait(self) -> Report | None:
        """What the run came to, once it has ended; None of good sides, and of a run that was cancelled.

        Raises:
            PreflexorError: what ended it.
        """
        with suppress(CancelledError, asyncio.CancelledError):
            return self._ending.result()
        return None

    def cancel(self) -> None:
        """End the run and wait until it has. Idempotent."""
        self._cancelled = True
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # the loop has closed meanwhile
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    async def _main(self) -> Report | None:
        self._task, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        if self._cancelled:
            return None
        return await self._work(self._rows.put)
