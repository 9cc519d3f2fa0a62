"""The drafts of a round side by side, whole: thinking, answer, score."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from preflexor_tui.state.candidates import Candidate
from preflexor_tui.widgets.candidate_columns import CandidateColumns
from preflexor_tui.widgets.text import plain, plural


class CompareScreen(ModalScreen[None]):
    """Several drafts, each in a column."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", "Back", id="compare.close"),
        Binding("right,l", "scroll_columns(1)", "Right", id="compare.right", show=False),
        Binding("left,h", "scroll_columns(-1)", "Left", id="compare.left", show=False),
    ]

    def __init__(self, question: str, drafts: tuple[Candidate, ...]) -> None:
        super().__init__(id="compare")
        self._question, self._drafts = question, drafts

    def compose(self) -> ComposeResult:
        """Title and columns."""
        title = f"{plural(len(self._drafts), 'draft')}: {' '.join(self._question.split())}"
        yield Static(plain(title, "bold"), classes="title", markup=False)
        yield CandidateColumns(with_thinking=True)
        yield Footer()

    async def on_mount(self) -> None:
        """Draw the drafts."""
        await self.query_one(CandidateColumns).show(self._drafts)

    def action_close(self) -> None:
        """Back to the chat."""
        self.dismiss()

    def action_scroll_columns(self, columns: int) -> None:
        """Move sideways."""
        self.query_one(CandidateColumns).scroll_relative(x=columns * 40, animate=False)
