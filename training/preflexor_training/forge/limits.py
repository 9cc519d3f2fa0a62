"""What calls wait for: a place beside other calls of the same model, and tokens that may still be written."""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from preflexor_agents.budget import Spent
from preflexor_agents.errors import PreflexorError

_WORDS = {"budget_tokens": "the token budget is spent", "budget_seconds": "the time budget is spent"}


class BudgetSpent(PreflexorError):
    """The run may spend no more; what is not finished is left for the next time."""

    def __init__(self, spent: Spent) -> None:
        super().__init__(_WORDS[spent])
        self.spent = spent


class Slots:
    """So many calls of a backend at once; of those that wait the one of the lowest row goes first.

    A row's calls then follow one another closely, so that an engine still has their common beginning in its cache.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._free = most
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()
        self._changed = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether there is a place that no call waits for."""
        return self._free > 0 and not self._waiting

    @asynccontextmanager
    async def taken(self, row: int) -> AsyncIterator[None]:
        """Hold a place for a call of a row."""
        await self._take(row)
        try:
            yield
        finally:
            self._give_back()

    async def until_idle(self) -> None:
        """Wait for a place that no call waits for."""
        while not self.idle:
            self._changed.clear()
            await self._changed.wait()

    async def _take(self, row: int) -> None:
        if self.idle:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (row, next(self._order), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back()
            self._waiting = [waiting for waiting in self._waiting if waiting[2] is not turn]
            heapq.heapify(self._waiting)
            raise

    def _give_back(self) -> None:
        while self._waiting:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
        self._changed.set()


class Purse:
    """Tokens that may still be generated. What calls in flight may write is set aside, so the limit is never passed."""

    def __init__(self, tok: int) -> None:
        self.left = tok
        self._aside = 0
        self._changed = asyncio.Event()

    async def take(self, most: int) -> int:
        """How many tokens a call that wants `most` may write: all of them, or, if it is the last one, what is left.

        Raises:
            BudgetSpent: nothing is left.
        """
        while True:
            if self.left - self._aside >= most:
                granted = most
                break
            if not self._aside:
                if self.left <= 0:
                    raise BudgetSpent("budget_tokens")
                granted = self.left
                break
            self._changed.clear()
            await self._changed.wait()
        self._aside += granted
        return granted

    def give_back(self, granted: int, *, used: int) -> None:
        """The call has ended."""
        self._aside -= granted
        self.left -= used
        self._changed.set()
