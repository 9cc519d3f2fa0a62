"""Drives one run: folds its events, paints at a bounded rate, holds the user's hand on it. No Textual here."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Literal

from preflexor_agents.events import Event, RoundsAdded, Ruled, StepStarted, Timed
from preflexor_agents.reflection.perform import Control
from preflexor_tui.collecting import collect, leave_out_what_there_is, short_pauses
from preflexor_tui.log import Log
from preflexor_tui.state.run import Run, apply, fold

PAINT_S = 0.05
"""The screen is painted at most this often: painting each token costs more than the token does."""
PAINT_SHARE = 0.12
"""Share of a core that painting may take as long as it is done at least every `SLOWEST_PAINT_S`."""
SLOWEST_PAINT_S = 0.25
TWICE_S = 2.0
"""A second press of escape within this time ends the run."""

Paint = Callable[[], Awaitable[None]]


class Driver:
    """A run and the hand on it."""

    def __init__(self, question: str, *, before: list[Timed] | None = None, offset_s: float = 0.0) -> None:
        """Hold a run that has not begun, or the part of one that is to go on.

        Args:
            question: what is asked.
            before: events that it begins with.
            offset_s: when the events to come begin, in seconds since the run's beginning.
        """
        self.question = question
        self.log = Log(before or [])
        self.run: Run = fold((t.event for t in self.log.events), Run(question=question))
        self.control = Control()
        self.offset_s = offset_s
        """Seconds of the run before the events to come."""
        self._escaped_at = -TWICE_S
        self._changed = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def waiting(self) -> tuple[str, ...]:
        """What the user said and no round has taken in yet."""
        return tuple(self.control.said)

    @property
    def orders(self) -> tuple[str, ...]:
        """What the user decided and no round has taken in yet, in words."""
        return tuple(
            "one more round"
            if isinstance(order, RoundsAdded)
            else f"{'take' if order.accepted else 'refuse'} round {order.round}"
            for order in self.control.orders
        )

    async def follow(
        self, events: AsyncGenerator[Event, None], paint: Paint, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Fold the events as they come and paint what they changed, at most every `PAINT_S`, the last time at the end.

        Whatever the events raise is raised when everything before it is painted.
        """
        with short_pauses():
            await self._follow(events, paint, clock)

    async def _follow(self, events: AsyncGenerator[Event, None], paint: Paint, clock: Callable[[], float]) -> None:
        began = clock() - self.offset_s
        painting = asyncio.create_task(self._paint(paint))
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, StepStarted):
                        leave_out_what_there_is()
                    self.take(event, clock() - began)
        finally:
            self.log.settle()
            self._over.set()
            self._changed.set()
            await painting

    def take(self, event: Event, t_s: float) -> None:
        """Fold one event that happened `t_s` seconds after the run began."""
        self.log.add(t_s, event)
        self.run = apply(self.run, event)
        self._changed.set()

    def say(self, text: str) -> None:
        """Say something that counts from the next round on."""
        self.control.said.append(text)

    def take_back(self) -> str | None:
        """The last thing said that no round has taken in yet; it is said no more."""
        return self.control.said.pop() if self.control.said else None

    def rule(self, round: int, *, accepted: bool) -> None:
        """Take or refuse a round's answer by hand; counts from the round's edge on."""
        self.control.orders[:] = [o for o in self.control.orders if not (isinstance(o, Ruled) and o.round == round)]
        self.control.orders.append(Ruled(round=round, accepted=accepted))

    def add_round(self) -> None:
        """Ask for one more round."""
        self.control.orders.append(RoundsAdded(rounds=1))

    def escape(self, *, clock: Callable[[], float] = time.monotonic) -> Literal["round", "run"]:
        """Stop the round, or, if that was asked a moment ago, the run; says which."""
        now = clock()
        twice = now - self._escaped_at < TWICE_S
        self._escaped_at = now
        if twice:
            self.control.stop.set()
            return "run"
        self.control.stop_round.set()
        return "round"

    async def _paint(self, paint: Paint) -> None:
        """Paint until the run is over and all of it is painted; a painting that was begun is never broken off.

        The model needs the processor more than the screen does: the longer a picture takes, the rarer it is drawn.
        """
        collected = time.monotonic()
        while True:
            await self._changed.wait()
            self._changed.clear()
            over, began = self._over.is_set(), time.thread_time()
            await paint()
            if over:
                return
            await self._rest(PAINT_S)
            spent_s = time.thread_time() - began  # with the layout, which follows a painting
            collected = collect(collected)
            await self._rest(min(SLOWEST_PAINT_S, spent_s / PAINT_SHARE) - PAINT_S)

    async def _rest(self, seconds: float) -> None:
        """Wait, but not beyond the end of the run."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), seconds)


async def replayed(events: list[Timed], *, speed: float, stop: asyncio.Event) -> AsyncGenerator[Event, None]:
    """The events of a trace at their own pace.

    Args:
        events: of the trace.
        speed: 1 is real time, 10 ten times as fast, 0 at once.
        stop: ends the waiting; the rest comes at once.
    """
    before = 0.0
    for t_s, event in events:
        if speed and t_s > before and not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), (t_s - before) / speed)
        before = max(before, t_s)
        yield event
