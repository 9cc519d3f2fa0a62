"""A titled text inside a card that can be folded away."""

from textual.app import ComposeResult
from textual.content import Content
from textual.events import Click
from textual.widgets import Static

from preflexor_tui.widgets.growing import Column
from preflexor_tui.widgets.text import Flow


class SectionTitle(Static):
    """The line that folds a section."""

    ALLOW_SELECT = False

    def on_click(self, event: Click) -> None:
        """Fold or unfold."""
        event.stop()
        parent = self.parent
        if isinstance(parent, Section):
            parent.is_open = not parent.is_open
            parent.by_hand = True


class Section(Column):
    """Thinking, critique or reflection: open while it is written, folded afterwards unless the user opened it."""

    def __init__(self, name: str) -> None:
        super().__init__(classes=f"section -{name}")
        self._title = name
        self._text = ""
        self._growing = False
        self._open = False
        self.by_hand = False
        """Whether the user opened or closed it; then it stays so."""

    def compose(self) -> ComposeResult:
        """Title and text."""
        yield SectionTitle(classes="title", markup=False)
        yield Flow(classes="text")

    def on_mount(self) -> None:
        """Draw what was shown before."""
        self._draw()

    @property
    def is_open(self) -> bool:
        """Whether the text is to be seen."""
        return self._open

    @is_open.setter
    def is_open(self, value: bool) -> None:
        self._open = value
        self._draw()

    def show(self, text: str, *, growing: bool = False) -> None:
        """Show this text."""
        if (text, growing) == (self._text, self._growing):
            return
        if not self.by_hand:
            self._open = growing
        self._text, self._growing = text, growing
        self._draw()

    def _draw(self) -> None:
        self.display = bool(self._text.strip())
        if not self.children or not self.display:
            return
        words = len(self._text.split())
        mark = "▾" if self._open else "▸"
        growing = " …" if self._growing else ""
        title = Content.assemble(f"{mark} ", (self._title, "bold"), (f"  {words} words{growing}", "$text-muted"))
        self.query_one(SectionTitle).update(title, layout=False)  # it is one line, whatever it says
        text = self.query_one(Flow)
        text.display = self._open
        if self._open:
            text.show(self._text.strip(), growing=self._growing)
