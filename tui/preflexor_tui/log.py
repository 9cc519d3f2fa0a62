"""The log of a run while it is made: events with their times, pieces of one text joined."""

from collections.abc import Iterable
from dataclasses import replace

from preflexor_agents.events import Event, RoundFinished, RunFinished, TextDelta, Timed

JOIN_S = 0.25
"""Pieces of one text within this time are one event: a replay still flows, and the log stays small."""


class Log:
    """Grows at its end; what lies before `settled` does not change any more."""

    def __init__(self, events: Iterable[Timed] = ()) -> None:
        self.events: list[Timed] = list(events)
        self.settled = len(self.events)
        """Events that no further piece can be joined to."""

    def add(self, t_s: float, event: Event) -> None:
        """Append what happened now."""
        last = self.events[-1] if self.events else None
        if (
            isinstance(event, TextDelta)
            and last is not None
            and isinstance(last.event, TextDelta)
            and t_s - last.t_s < JOIN_S
            and replace(event, text="") == replace(last.event, text="")
            and self.settled < len(self.events)
        ):
            self.events[-1] = Timed(last.t_s, replace(event, text=last.event.text + event.text))
            return
        self.settled = len(self.events)
        self.events.append(Timed(t_s, event))
        if not isinstance(event, TextDelta):
            self.settle()

    def settle(self) -> None:
        """No further piece will be joined to the last event."""
        self.settled = len(self.events)


def up_to_round(events: Iterable[Timed], round: int) -> list[Timed]:
    """The events up to the end of a round; all that were before the ending if the round is the last one."""
    found: list[Timed] = []
    for timed in events:
        found.append(timed)
        if isinstance(timed.event, RoundFinished) and timed.event.round == round:
            return found
    return found


def up_to_last_round(events: Iterable[Timed]) -> list[Timed]:
    """The events without what came after the last whole round; for a run that ended, all of them."""
    found = list(events)
    if found and isinstance(found[-1].event, RunFinished):
        return found
    ends = [n for n, timed in enumerate(found) if isinstance(timed.event, RoundFinished)]
    return found[: ends[-1] + 1] if ends else found[:1]
