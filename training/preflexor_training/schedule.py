"""How long a phase goes on: how many steps its rounds take, and when the held-out rows say that it is enough."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from preflexor_training.batches import steps_of_phase
from preflexor_training.recipes import Phase, Recipe
from preflexor_training.run_writer import State

_WEIGHT = 0.1


class Watch(Protocol):
    """Is told how a run goes; called from the thread that trains."""

    def tell(self, line: str) -> None:
        """Something that happens once and is worth a line."""

    def show(self, what: str, *, done: int = 0, total: int = 0, note: str = "") -> None:
        """What is being done, how far it is, and numbers about it."""


@dataclass(slots=True)
class Pace:
    """How long steps take, as a mean that forgets: rows differ in length, and a machine is not always idle."""

    step_s: float = 0.0

    def left_s(self, recipe: Recipe, state: State, *, steps: int, done: int, seconds: float) -> float:
        """Seconds of training that are left of the run, without the making of rows.

        Args:
            recipe: of the run.
            state: as of the last edge.
            steps: of the round at hand, and of those to come about as many.
            done: of the round.
            seconds: that the last step took.
        """
        self.step_s = seconds if not self.step_s else self.step_s + (seconds - self.step_s) * _WEIGHT
        phase = recipe.phases[state.phase]
        left = steps - done + steps * (phase.rounds - state.round - 1)
        for later in recipe.phases[state.phase + 1 :]:
            rows = later.rows_per_round or phase.rows_per_round
            left += steps_of_phase(later, rows_per_round=rows) if rows else steps * later.rounds
        return left * self.step_s


def planned_steps(recipe: Recipe) -> int:
    """Optimizer steps of a whole run, about; 0 where a phase takes all rows that there are."""
    if not all(phase.rows_per_round for phase in recipe.phases):
        return 0
    return sum(steps_of_phase(phase, rows_per_round=phase.rows_per_round) for phase in recipe.phases)


def has_ended(phase: Phase, margins: Sequence[float | None]) -> bool:
    """Whether a phase is over after the rounds that left these held-out margins, nats.

    It is after its last round, or when `patience` rounds in a row have not raised the best margin by `min_gain`.
    Without held-out rows there are no margins, and nothing ends it early.
    """
    patience = phase.early_stop.patience
    if len(margins) >= phase.rounds:
        return True
    return bool(patience) and len(margins) - 1 - best_round(phase, margins) >= patience


def best_round(phase: Phase, margins: Sequence[float | None]) -> int:
    """The round, from 0, whose weights a phase ends with: the last one, or the best if early stop looks for it."""
    known = [margin for margin in margins if margin is not None and math.isfinite(margin)]
    if not phase.early_stop.patience or not known or len(known) < len(margins):
        return len(margins) - 1
    best = 0
    for n, margin in enumerate(known):
        if margin > known[best] + phase.early_stop.min_gain:
            best = n
    return best


def duration(seconds: float) -> str:
    """Seconds as they fit a line: 12 s, 2:05 min, 3:20 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"
