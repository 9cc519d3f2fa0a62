"""A failure that belongs to no run, shown above the composer until it is mended or dismissed."""

from collections.abc import Callable

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Button, Static

from preflexor_tui.widgets.text import plain


class Notice(Horizontal):
    """One line that says what failed, with what can be done about it."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.display = False
        self._retry: Callable[[], object] | None = None

    def compose(self) -> ComposeResult:
        """The line and its buttons."""
        yield Static(classes="what", markup=False)
        yield Button("Retry", classes="retry", compact=True)
        yield Button("Dismiss", classes="dismiss", compact=True)

    def show(self, what: str, *, retry: Callable[[], object] | None = None) -> None:
        """Show a failure."""
        self._retry = retry
        self.query_one(".what", Static).update(plain(f"✗ {what}", "$text-error"))
        self.query_one(".retry").display = retry is not None
        self.display = True

    def hide(self) -> None:
        """Nothing is wrong."""
        self.display = False

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Try again, or put it away."""
        event.stop()
        self.hide()
        if event.button.has_class("retry") and self._retry is not None:
            self._retry()
