"""Ends what a call waits for when its caller's token is cancelled, from whichever thread."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from autogen_core import CancellationToken

from preflexor_agents.errors import PreflexorError

T = TypeVar("T")


class Stop:
    """A link to a token for the length of one call; adds one callback to it, however long the call is."""

    def __init__(self, token: CancellationToken | None) -> None:
        """Link; in the event loop that the call runs in."""
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Timeout | None = None
        self._called = token is not None and token.is_cancelled()
        if token is not None and not self._called:
            token.add_callback(self._call)

    def check(self) -> None:
        """Raise asyncio.CancelledError if the token is cancelled."""
        if self._called:
            raise asyncio.CancelledError("the cancellation token was cancelled")

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """What `awaitable` comes to.

        Raises:
            asyncio.CancelledError: the token was cancelled, and then `awaitable`.
        """
        try:
            async with asyncio.timeout(None) as self._waiting:
                return await awaitable
        except (TimeoutError, PreflexorError):
            self.check()
            raise
        finally:
            self._waiting = None

    def _call(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._called = True
        if self._waiting is not None:
            self._waiting.reschedule(self._loop.time())
