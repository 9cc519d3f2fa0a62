"""Text of models and documents on the screen: always inert, whatever it holds."""

from textual.content import Content
from textual.widgets import Static

from preflexor_agents.cli.show import inert
from preflexor_tui.widgets.growing import Growing

TAIL_CHARS = 1200
"""Of a text that is being written beside the answer, only the end is drawn: drawing all of it at each piece is slow."""
CUT_CHARS = 400
"""How much of it goes away at once."""


def plain(text: str, style: str = "") -> Content:
    """The text as it is, in one style, with nothing in it that could steer a terminal or open a link."""
    return Content.styled(inert(text), style) if style else Content(inert(text))


def count(number: int) -> str:
    """A number of tokens as it fits a line: 950, 1.9k, 16k."""
    if number < 1000:
        return str(number)
    return f"{number / 1000:.1f}k".replace(".0k", "k") if number < 10_000 else f"{number // 1000}k"


def duration(seconds: float) -> str:
    """Seconds as they fit a line: 0.4 s, 12 s, 2:05."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def plural(number: int, word: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{number} {word}{'' if number == 1 else 's'}"


class Flow(Growing, Static):
    """Plain text that grows; while it does, only its end is drawn."""

    def __init__(self, text: str = "", *, classes: str | None = None) -> None:
        super().__init__(plain(text), classes=classes, markup=False)
        self._drawn: tuple[str, bool] = (text, False)

    def show(self, text: str, *, growing: bool) -> None:
        """Show this text, or its end."""
        if (text, growing) == self._drawn:
            return
        self._drawn = (text, growing)
        content, width = plain(_end(text) if growing else text), self.size.width
        lines = content.get_height({}, width) if width else -1
        self.update(content, layout=lines != self.size.height)


def _end(text: str) -> str:
    """The end of a text, cut where it stays cut for a while: what is drawn of it does not move at every piece."""
    cut = max(0, len(text) - TAIL_CHARS) // CUT_CHARS * CUT_CHARS
    return f"… {text[cut:]}" if cut else text
