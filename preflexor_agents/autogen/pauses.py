"""Time that does not count against a run's budget: while the host has paused it, and between a save and a load."""

import asyncio
import time
from dataclasses import replace

from preflexor_agents.events import RunStarted


class Pauses:
    """The pauses of a run. Seconds since the epoch throughout."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []
        """From, until; of pauses that are over."""
        self._since: float | None = None
        self._going = asyncio.Event()
        self._going.set()

    def begin(self) -> None:
        """Hold the run before its next step."""
        if self._since is None:
            self._since = time.time()
            self._going.clear()

    def end(self) -> None:
        """Let the run go on."""
        if self._since is not None:
            self.spans.append((self._since, time.time()))
            self._since = None
            self._going.set()

    async def over(self, stop: asyncio.Event) -> None:
        """Wait until the run may go on, or is to stop; that ends the pause, too."""
        if not self._going.is_set() and not stop.is_set():
            waits = [asyncio.create_task(event.wait()) for event in (self._going, stop)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waits:
                    task.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
        self.end()

    def without(self, started: RunStarted) -> RunStarted:
        """The run as if it had begun later, by the pauses since its beginning."""
        lost_s = sum(until - begun for begun, until in self.spans if until > started.started_at)
        return replace(started, started_at=started.started_at + lost_s)
