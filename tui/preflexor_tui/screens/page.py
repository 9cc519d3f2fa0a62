"""What the screens beside the chat share: a title, a line that says what happened, a footer with the keys."""

from pathlib import Path
from typing import ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Static

from preflexor_tui.widgets.text import plain

WIDE = 100
"""From so many columns on there are two sides."""
Mood = Literal["", "good", "bad", "busy"]
_STYLES: dict[Mood, str] = {"": "dim", "good": "$text-success", "bad": "$text-error", "busy": "$text-accent"}
_SIGNS: dict[Mood, str] = {"": "", "good": "✓ ", "bad": "✗ ", "busy": "… "}


def tilde(path: Path) -> str:
    """A path as people write it, with `~` for the home folder."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) and path != home else str(path)


class Page(Screen[None]):
    """A screen that is opened from the chat and left with escape."""

    CSS_PATH = "../pages.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide"), (160, "-broad")]  # noqa: RUF012 - as Textual declares it
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Back", id="page.back")]
    TITLE = ""

    def compose(self) -> ComposeResult:
        """Title, the page's own widgets, message, keys."""
        yield Static(self._title(""), id="page-title", markup=False)
        with Vertical(id="page-body"):
            yield from self.parts()
        yield Static(id="page-message", markup=False)
        yield Footer(show_command_palette=False)

    def parts(self) -> ComposeResult:
        """The widgets of the page."""
        yield from ()

    def describe(self, about: str) -> None:
        """What the page is about, behind its title."""
        self.query_one("#page-title", Static).update(self._title(about))

    def _title(self, about: str) -> Content:
        return Content.assemble((self.TITLE or "", "bold $text-accent"), "   ", plain(about, "dim"))

    def tell(self, words: str, mood: Mood = "") -> None:
        """Say in one line what happened; stays until the next."""
        line = " ".join(words.split())
        self.query_one("#page-message", Static).update(plain(_SIGNS[mood] + line if line else "", _STYLES[mood]))

    def action_leave(self) -> None:
        """Go back to where this was opened from."""
        self.app.pop_screen()
