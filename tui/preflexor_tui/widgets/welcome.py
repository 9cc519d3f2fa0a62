"""What an empty conversation shows."""

from textual.content import Content
from textual.widgets import Static

LINES = (
    ("Ask a question.", "bold"),
    (
        "The model thinks, is criticised, revises, and keeps the better answer. You see every round and may take part.",
        "",
    ),
    ("", ""),
    ("enter    send; while it runs: what counts from the next round on", "$text-muted"),
    ("esc      stop the round and keep what is written; twice: stop the run", "$text-muted"),
    ("/        commands: /model /rounds /store /sessions /help", "$text-muted"),
    ("ctrl+o   to the rounds; there: a accepts, x rejects, b branches, d compares", "$text-muted"),
)


class Welcome(Static):
    """How to begin."""

    def __init__(self) -> None:
        super().__init__(Content("\n").join([Content.styled(*line) for line in LINES]), id="welcome", markup=False)
