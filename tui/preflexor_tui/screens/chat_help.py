"""Keys and commands of the chat, on one page."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Markdown

from preflexor_tui.slash import help_text

KEYS = """
| key | what it does |
| --- | --- |
| enter | send; while a run is going: say what counts from its next round on |
| ctrl+j | new line |
| up, down | earlier and later entries; up in an empty line takes back what waits |
| esc | stop the round and keep what is written; again within 2 s: stop the run |
| ctrl+o | to the rounds; there: enter unfolds, t thinking, c critique, d diff, n candidates, s side by side |
| a, x | on a round: accept or reject its answer by hand |
| b, e, r, y | on a round: branch from it, edit the question, retry, copy |
| ctrl+t | show or hide all thinking |
| ctrl+g | show or hide sources and graph |
| ctrl+b | show or hide the branches of the session |
| ctrl+r | sessions |
| ctrl+p | everything else |
"""


class ChatHelp(ModalScreen[None]):
    """What can be done here."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,f1", "close", "Back", id="help.close")]

    def __init__(self) -> None:
        super().__init__(id="help")

    def compose(self) -> ComposeResult:
        """Keys, then commands."""
        with VerticalScroll(classes="box"):
            yield Markdown(f"## Keys\n{KEYS}\n## Commands\n\n{help_text()}\n", open_links=False)
        yield Footer(show_command_palette=False)

    def action_close(self) -> None:
        """Back to the chat."""
        self.dismiss()
