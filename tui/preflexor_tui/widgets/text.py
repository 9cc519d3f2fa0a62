"""Text of models and documents on the screen: always inert, whatever it holds."""

from markdown_it import MarkdownIt
from rich.markdown import Markdown as RichMarkdown
from textual.content import Content
from textual.widgets import Markdown, Static

from preflexor_agents.cli.show import inert

TAIL_CHARS = 1200
"""Of a text that is being written beside the answer, only the end is drawn: drawing all of it at each piece is slow."""


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


class InertMarkdown(Markdown):
    """Markdown that grows; HTML in it is shown as text, links are shown and not followed, images are never loaded."""

    def __init__(self, text: str = "", *, classes: str | None = None) -> None:
        super().__init__(inert(text), classes=classes, parser_factory=_parser, open_links=False)
        self._shown = text

    async def show(self, text: str) -> None:
        """Show this text: what was added is appended, anything else drawn anew."""
        before, self._shown = self._shown, text
        if text == before:
            return
        if before and text.startswith(before):
            await self.append(inert(text[len(before) :]))
        else:
            await self.update(inert(text))

    async def settle(self) -> None:
        """Draw the whole text once more: what was drawn piece by piece may lack what only the end made clear."""
        await self.update(inert(self._shown))


class SettledMarkdown(Static):
    """Markdown that does not change any more, as one widget; one that grows has many, laid out at every piece."""

    def __init__(self, text: str) -> None:
        page = RichMarkdown("", hyperlinks=False)
        page.parsed = _parser().parse(inert(text))
        super().__init__(page, classes="settled")


class Flow(Static):
    """Plain text that grows; while it does, only its end is drawn."""

    def __init__(self, text: str = "", *, classes: str | None = None) -> None:
        super().__init__(plain(text), classes=classes, markup=False)
        self._drawn: tuple[str, bool] = (text, False)

    def show(self, text: str, *, growing: bool) -> None:
        """Show this text, or its end."""
        if (text, growing) == self._drawn:
            return
        self._drawn = (text, growing)
        tail = text[-TAIL_CHARS:] if growing else text
        self.update(plain(("… " if len(tail) < len(text) else "") + tail))


def _parser() -> MarkdownIt:
    return MarkdownIt("gfm-like", {"html": False})
