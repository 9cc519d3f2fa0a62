"""Why a row cannot be trained on, by kind, so that it is counted and never trained on by accident."""

from typing import Literal

from preflexor_agents.errors import TrainingError

Kind = Literal[
    "unreadable",
    "repeated",
    "no_question",
    "unanswered",
    "equal",
    "unrenderable",
    "unclosed",
    "nothing_left",
    "too_long",
]
KINDS: dict[Kind, str] = {
    "unreadable": "no preference in the row",
    "repeated": "an id that another row has",
    "no_question": "no user turn before the reply",
    "unanswered": "a reply that ends before its answer",
    "equal": "chosen and rejected are the same",
    "unrenderable": "turns that the chat template cannot render",
    "unclosed": "no closing thinking tag where the mask needs one",
    "nothing_left": "a mask that leaves no token in the loss",
    "too_long": "more tokens than max_length_tok",
}
"""What each kind means."""


class Damaged(TrainingError):
    """A row is dropped, and why."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind, self.reason = kind, reason
