"""Why a row cannot be trained on, by kind, so that it is counted and never trained on by accident."""

from typing import Literal

from preflexor_agents.errors import TrainingError

Kind = Literal["unanswered", "unclosed", "nothing_left", "too_long", "equal", "no_question", "unrenderable"]
KINDS: dict[Kind, str] = {
    "unanswered": "a reply that ends before its answer",
    "unclosed": "no closing thinking tag where the mask needs one",
    "nothing_left": "a mask that leaves no token in the loss",
    "too_long": "more tokens than max_length_tok",
    "equal": "chosen and rejected are the same",
    "no_question": "no user turn before the reply",
    "unrenderable": "turns that the chat template cannot render",
}
"""What each kind means."""


class Damaged(TrainingError):
    """A row is dropped, and why."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind, self.reason = kind, reason
