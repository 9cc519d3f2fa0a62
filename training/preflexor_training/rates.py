"""The learning rate of every step of a phase."""

import math

from preflexor_training.batches import steps_of_phase
from preflexor_training.recipe_parts import Phase


def rate(phase: Phase, step: int, *, total: int) -> float:
    """AdamW's rate in a step of a phase, as transformers' schedules have it.

    Args:
        phase: peak, warm-up and what follows it.
        step: from 0.
        total: steps of the phase.
    """
    if step < phase.warmup_steps:
        return phase.learning_rate * step / phase.warmup_steps
    progress = min(1.0, (step - phase.warmup_steps) / max(1, total - phase.warmup_steps))
    match phase.schedule:
        case "constant":
            return phase.learning_rate
        case "linear":
            return phase.learning_rate * (1 - progress)
        case "cosine":
            return phase.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def total_steps(phase: Phase, *, first: int, steps: int) -> int:
    """Steps that a falling rate is measured by: of all rounds, if every round is like the one at hand.

    Args:
        phase: rounds and rows of each.
        first: steps before the round at hand.
        steps: of the round at hand.
    """
    whole = steps_of_phase(phase, rows_per_round=phase.rows_per_round) if phase.rows_per_round else phase.rounds * steps
    return max(whole, first + steps)
