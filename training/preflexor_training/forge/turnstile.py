"""Lets questions through in order of their rows, so that of two that are alike always the earlier row's stays."""

import asyncio
from collections.abc import Callable


class Turnstile:
    """Rows pass one after the other by number; one that never gets there is taken off by `leave`."""

    def __init__(self) -> None:
        """Begin before row 0."""
        self._next = 0
        self._gone: set[int] = set()
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def passing(self, number: int, check: Callable[[], None]) -> None:
        """Wait for all rows before to have passed or left, then do the check; what it raises is raised."""
        if number > self._next:
            self._waiting[number] = asyncio.get_running_loop().create_future()
            try:
                await self._waiting[number]
            finally:
                del self._waiting[number]
        try:
            check()
        finally:
            self.leave(number)

    def leave(self, number: int) -> None:
        """Say that a row will not pass any more. Idempotent."""
        if number < self._next:
            return
        self._gone.add(number)
        while self._next in self._gone:
            self._gone.remove(self._next)
            self._next += 1
        turn = self._waiting.get(self._next)
        if turn is not None and not turn.done():
            turn.set_result(None)
