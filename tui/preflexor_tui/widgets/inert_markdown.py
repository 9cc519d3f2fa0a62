"""Markdown of a model as one widget: lines that are made once, and only the last block made again while it grows.

A widget for each paragraph, as Textual's own Markdown has them, is laid out anew at every piece that is written.
"""

from typing import Any, ClassVar

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Heading, ListItem, MarkdownElement
from rich.markdown import Markdown as Page
from rich.segment import Segment
from rich.style import Style
from rich.theme import Theme
from textual.color import Color
from textual.geometry import Region, Size
from textual.selection import Selection
from textual.strip import Strip
from textual.widget import Widget

from preflexor_agents.cli.show import inert
from preflexor_tui.widgets.growing import Growing

PLAIN = {"markdown.code": Style(color="cyan", bold=True), "markdown.block_quote": Style(italic=True)}


class _LeftHeading(Heading):
    LEVEL_ALIGN: ClassVar[dict[str, Any]] = dict.fromkeys(Heading.LEVEL_ALIGN, "left")


class _Item(ListItem):
    def render_bullet(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(
            self.elements, options.update(width=max(1, options.max_width - 2)), style=self.style
        )
        for n, line in enumerate(lines):
            yield Segment("  ") if n else Segment("• ", console.get_style("markdown.item.bullet"))
            yield from line
            yield Segment.line()


class _Block(Page):
    """A top-level block, parsed."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Page.elements,
        "heading_open": _LeftHeading,
        "list_item_open": _Item,
    }

    def __init__(self, tokens: list[Token], *, code_theme: str) -> None:
        super().__init__("", hyperlinks=False, code_theme=code_theme)
        self.parsed = [_harmless(token) for token in tokens]


class InertMarkdown(Growing, Widget):
    """Markdown that grows; HTML in it is shown as text, links are shown and not followed, images are never loaded."""

    DEFAULT_CSS = "InertMarkdown { height: auto; }"

    def __init__(self, text: str = "", *, classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self._text = text
        self._source = inert(text)
        self._parser = MarkdownIt("gfm-like", {"html": False})
        self._width = 0
        self._drawn_for = ""
        """The theme whose colours are in the lines."""
        self._forget()

    def show(self, text: str) -> None:
        """Show this text; what was drawn of its beginning stays."""
        before, self._text = self._text, text
        if text == before:
            return
        if before and text.startswith(before):
            self._source += inert(text[len(before) :])
        else:
            self._source = inert(text)
            self._forget()
        if not self._width:
            self.refresh(layout=True)
            return
        kept, height, targets = self._whole, len(self._strips), self._known
        self._write()
        if len(self._strips) != height or self._known != targets:
            self.refresh(layout=True)
        else:
            self.refresh(Region(0, kept, self._width, max(1, height - kept)))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines as the text has at this width."""
        self._fit(width)
        return len(self._strips)

    def get_content_width(self, container: Size, viewport: Size) -> int:
        """All there is."""
        return container.width

    def render_line(self, y: int) -> Strip:
        """One line of it."""
        width, style = self.size.width, self.rich_style
        self._fit(width)
        if y >= len(self._strips):
            return Strip.blank(width, style)
        selection = self.text_selection
        span = selection.get_span(y) if selection is not None else None
        if span is not None:
            return self._finished(_marked(self._strips[y], span, self._selection_style), y, style)
        known = self._drawn.get(y)
        if known is None or known[0] != style:
            self._drawn[y] = known = (style, self._finished(self._strips[y], y, style))
        return known[1]

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """What is selected, line by line as it is on the screen."""
        return selection.extract("\n".join(strip.text.rstrip() for strip in self._strips)), "\n"

    @property
    def _selection_style(self) -> Style:
        return Style(bgcolor=self.screen.get_component_rich_style("screen--selection").bgcolor)

    def _finished(self, strip: Strip, y: int, style: Style) -> Strip:
        return strip.apply_offsets(0, y).crop_extend(0, self.size.width, style).apply_style(style)

    def _fit(self, width: int) -> None:
        look = self.app.current_theme.name
        if width and (width, look) != (self._width, self._drawn_for):
            self._width, self._drawn_for = width, look
            self._forget()
            self._write()

    def _forget(self) -> None:
        self._strips: list[Strip] = []
        self._whole = 0
        """Lines of blocks that do not change any more."""
        self._at = 0
        """Where in the source the block after them begins."""
        self._before: dict[str, Any] = {}
        """Targets of links that are defined before it."""
        self._known: dict[str, Any] = {}
        """All targets that the lines were made with."""
        self._drawn: dict[int, tuple[Style, Strip]] = {}
        """Lines that were on the screen, by number, with the style that they were drawn in."""

    def _write(self) -> None:
        """Make the lines of the last block and of what came after it."""
        source, env = self._source[self._at :], {"references": dict(self._before)}
        blocks = _blocks(self._parser.parse(source, env))
        if env["references"] != self._known and self._at:  # a link in the blocks before may mean it
            self._forget()
            source, env = self._source, {"references": {}}
            blocks = _blocks(self._parser.parse(source, env))
        self._known = env["references"]
        for y in [y for y in self._drawn if y >= self._whole]:
            del self._drawn[y]
        del self._strips[self._whole :]
        growing = _growing(blocks, source)
        for n, block in enumerate(blocks):
            if n == growing and block[0].map is not None:
                self._whole = len(self._strips)
                ended = sum(len(line) + 1 for line in source.split("\n")[: block[0].map[0]])
                self._parser.parse(source[:ended], {"references": self._before})
                self._at += ended
            lines = self._lines(block)
            self._strips += [Strip.blank(0), *lines] if self._strips and lines else lines

    def _lines(self, block: list[Token]) -> list[Strip]:
        app, theme = self.app, self.app.current_theme
        options = app.console_options.update(highlight=False, width=self._width, height=None)
        page = _Block(block, code_theme="ansi_dark" if theme.dark else "ansi_light")
        with app.console.use_theme(_look(theme.primary)):
            strips = [Strip(line) for line in app.console.render_lines(page, options, pad=False)]
        while strips and not strips[0].text.strip() and not _painted(strips[0]):
            del strips[0]
        while strips and not strips[-1].text.strip() and not _painted(strips[-1]):
            del strips[-1]
        return strips


def _harmless(token: Token) -> Token:
    """Images as text, and what was written as `&#8238;` inert as well."""
    children = [
        Token("text", "", 0, content=f"🖼 {inert(t.content)}") if t.type == "image" else t.copy(content=inert(t.content))
        for t in token.children or ()
    ]
    return token.copy(children=children or token.children)


def _look(color: str) -> Theme:
    accented = Style(color=Color.parse(color).rich_color, bold=True)
    names = ("h1", "h2", "h3", "h4", "h5", "h6", "item.bullet", "item.number")
    return Theme({f"markdown.{name}": accented for name in names} | PLAIN)


def _painted(strip: Strip) -> bool:
    return any(segment.style is not None and segment.style.bgcolor is not None for segment in strip)


def _blocks(tokens: list[Token]) -> list[list[Token]]:
    """The tokens of each top-level block."""
    found: list[list[Token]] = []
    for token in tokens:
        if token.level == 0 and token.nesting >= 0:
            found.append([])
        found[-1].append(token)
    return found


def _growing(blocks: list[list[Token]], source: str) -> int:
    """The first block that may still change: the last one, or the one before if of that only half a line is there."""
    last = blocks[-1][0].map if blocks else None
    half = last is not None and last[0] >= source.count("\n")
    return max(0, len(blocks) - 2 if half else len(blocks) - 1)


def _marked(strip: Strip, span: tuple[int, int], style: Style) -> Strip:
    start, end = span
    written = cell_len(strip.text.rstrip())
    end = written if end == -1 else min(end, written)
    if start >= end:
        return strip
    before, chosen, after = strip.crop(0, start), strip.crop(start, end), strip.crop(end)
    return Strip.join([before, Strip([s._replace(style=(s.style or Style.null()) + style) for s in chosen]), after])
