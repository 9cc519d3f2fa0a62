"""Takes text from the thread of a model to an event loop in bunches.

A loop that wakes for every token takes the interpreter and a processor from the threads that compute the next one.
So it is woken for the first piece of a reply, and then looks by itself from time to time.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby

from preflexor_agents.backends.base import Delta

LOOK_S = 0.03
"""How long text may wait; a reader sees no difference."""

Take = Callable[[Delta], None]


class Outbox:
    """Text on its way to one loop. What `emitter` returns may be called from any thread, the rest in the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with nothing."""
        self.loop = loop
        self._held: deque[tuple[Take, Delta]] = deque()
        self._sleeps = True
        """Whether the loop has to be woken; set before the last look at what is held, so nothing is forgotten."""

    def emitter(self, take: Take) -> Take:
        """What a reply gives its text to; it comes out at `take`, pieces of one channel put together."""
        begun = False

        def emit(delta: Delta) -> None:
            nonlocal begun
            self._held.append((take, delta))
            if begun and not self._sleeps:
                return
            begun = True
            with suppress(RuntimeError):  # the loop was closed: nobody reads
                self.loop.call_soon_threadsafe(self._wake)

        return emit

    def deliver(self) -> bool:
        """Hand over what is held; False if there was nothing."""
        found = [self._held.popleft() for _ in range(len(self._held))]
        bunches: dict[Take, list[Delta]] = {}
        for take, delta in found:
            bunches.setdefault(take, []).append(delta)
        for take, deltas in bunches.items():
            for channel, part in groupby(deltas, lambda delta: delta.channel):
                take(Delta(channel, "".join(delta.text for delta in part)))
        return bool(found)

    def _wake(self) -> None:
        self.deliver()
        if self._sleeps:
            self._sleeps = False
            self.loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        if not self.deliver():
            self._sleeps = True
            if not self.deliver():
                return
            self._sleeps = False
        self.loop.call_later(LOOK_S, self._look)
