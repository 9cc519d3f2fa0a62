"""What a phase's loss needs, and the numbers that are shown of it, in every backend."""

from preflexor_training.recipe_parts import REFERENCE_FREE, Phase
from preflexor_training.scopes import NllScope

SHOWN = (
    "loss",
    "nll",
    "margin",
    "accuracy",
    "reward_chosen",
    "reward_rejected",
    "logp_chosen",
    "logp_rejected",
    "margin_most",
)
"""Names of the numbers in a backend's `Scored.shown`; all but the last are means over the pairs, that is the largest
|margin|."""


def nll_scope(phase: Phase) -> NllScope:
    """What the likelihood term covers; only ORPO has one."""
    return phase.nll_scope if phase.loss == "orpo" else "none"


def needs_reference(phase: Phase) -> bool:
    """Whether the loss looks at a reference."""
    return phase.loss not in REFERENCE_FREE
