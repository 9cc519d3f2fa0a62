"""Where the user types: several lines, history, and completion of commands. What was typed is never lost."""

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Key, Paste
from textual.message import Message
from textual.widgets import TextArea

LONG_PASTE_CHARS = 20_000
"""A longer paste is kept beside the text, with a mark in its place: an editor that holds it would be slow."""

OURS = ("send", "newline", "back", "forward", "complete")
"""Actions of the composer; every other one is the editor's own."""


class Composer(TextArea):
    """Enter sends, ctrl+j breaks the line; up in the first line goes back in history."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", id="composer.send", tooltip="Send the question or the command"),
        Binding("ctrl+j,shift+enter", "newline", "New line", id="composer.newline", show=False),
        Binding("up", "back", "Earlier", id="composer.earlier", show=False),
        Binding("down", "forward", "Later", id="composer.later", show=False),
        Binding("tab", "complete", "Complete", id="composer.complete", show=False),
    ]

    class Sent(Message):
        """The user sent a text; the composer is empty then."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class TakeBack(Message):
        """Up was pressed in an empty composer: the last thing said is to come back, if it still waits."""

    class Complete(Message):
        """Tab was pressed."""

    def __init__(self) -> None:
        super().__init__(
            id="composer", soft_wrap=True, show_line_numbers=False, compact=True, highlight_cursor_line=False
        )
        self._history: list[str] = []
        self._at = 0
        self._unsent = ""
        self._pasted: dict[str, str] = {}

    @property
    def whole_text(self) -> str:
        """What was typed, long pastes in their places."""
        text = self.text
        for mark, pasted in self._pasted.items():
            text = text.replace(mark, pasted)
        return text

    def load(self, text: str, *, history: Sequence[str] | None = None) -> None:
        """Put a text here to be edited."""
        if history is not None:
            self._history, self._at = list(history), len(history)
        self.text = self._shortened(text)
        self.move_cursor(self.document.end)

    def remember(self, text: str) -> None:
        """Put a text into the history."""
        if text and text not in self._history[-1:]:
            self._history.append(text)
        self._at = len(self._history)

    def action_send(self) -> None:
        """Send what is typed."""
        text = self.whole_text.strip()
        if not text:
            return
        self.remember(text)
        self._unsent = ""
        self.text = ""
        self._pasted.clear()
        self.post_message(self.Sent(text))

    def action_newline(self) -> None:
        """Break the line."""
        self.insert("\n")

    def action_back(self) -> None:
        """One line up; in the first line the entry before, or what waits for the next round."""
        if self.cursor_location[0] > 0:
            self.action_cursor_up()
            return
        if not self.text and self._at == len(self._history):
            self.post_message(self.TakeBack())
            return
        self.earlier()

    def earlier(self) -> None:
        """The entry before in the history; what is typed is kept at its end."""
        if self._at == 0:
            return
        if self._at == len(self._history):
            self._unsent = self.whole_text
        self._at -= 1
        self.load(self._history[self._at])

    def action_forward(self) -> None:
        """One line down; in the last line the entry after."""
        if self.cursor_location[0] < self.document.line_count - 1:
            self.action_cursor_down()
            return
        if self._at >= len(self._history):
            return
        self._at += 1
        self.load(self._history[self._at] if self._at < len(self._history) else self._unsent)

    def action_complete(self) -> None:
        """Complete a command; elsewhere go on to the next widget."""
        if self.text.startswith("/"):
            self.post_message(self.Complete())
        else:
            self.screen.focus_next()

    async def _on_key(self, event: Key) -> None:
        """Do what a key of ours is for at once: a binding would be looked up later, after keys typed behind it."""
        active = self.screen.active_bindings.get(event.key)
        if active is None or active.node is not self or active.binding.action not in OURS:
            return
        event.stop()
        event.prevent_default()
        await self.run_action(active.binding.action)

    async def _on_paste(self, event: Paste) -> None:
        """Take a long paste in without drawing it."""
        if len(event.text) <= LONG_PASTE_CHARS:
            await super()._on_paste(event)
            return
        event.prevent_default()
        event.stop()
        self.insert(self._shortened(event.text))

    def _shortened(self, text: str) -> str:
        if len(text) <= LONG_PASTE_CHARS:
            return text
        mark = f"[pasted text {len(self._pasted) + 1}: {len(text):,} characters]"
        self._pasted[mark] = text
        return mark
