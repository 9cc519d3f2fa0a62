"""What a round changed in the answer, word by word. Colour is never the only signal."""

from textual.content import Content
from textual.widgets import Static

from preflexor_agents.word_diff import Piece, change, word_diff
from preflexor_tui.widgets.text import plain

STYLES = {"same": "", "gone": "$text-error strike", "new": "$text-success bold underline"}


def diff_content(pieces: tuple[Piece, ...]) -> Content:
    """The new text with what is gone struck out and what came underlined."""
    return Content("").join([plain(p.text, STYLES[p.kind]) for p in pieces])


class DiffView(Static):
    """Answer of one round against that of another."""

    def __init__(self) -> None:
        super().__init__(classes="diff", markup=False)
        self._drawn: tuple[str, str] | None = None

    def show(self, old: str, new: str, *, against: int) -> None:
        """Show what leads from the answer of round `against` to this one."""
        if self._drawn == (old, new):
            return
        self._drawn = (old, new)
        pieces = word_diff(old, new)
        gone, came = change(pieces)
        summary = f"against round {against}: " + (f"-{gone} +{came} words" if gone or came else "the same words")
        self.update(Content.assemble((summary, "$text-muted"), "\n\n", diff_content(pieces)))
