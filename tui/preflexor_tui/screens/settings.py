"""The settings, written back to preflexor.toml; what is wrong is said beside the field, and nothing is written then."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import DataTable, Input, Select, Static, TabbedContent, TabPane

from preflexor_agents.config import PRESETS
from preflexor_agents.errors import ConfigError
from preflexor_agents.settings import Given, Settings, checked, given
from preflexor_agents.settings_file import Value, save
from preflexor_tui import themes
from preflexor_tui.keys import Bound, keymap
from preflexor_tui.screens.page import Page, tilde
from preflexor_tui.widgets.text import plain

FIELDS = tuple(name for name in Settings.model_fields if name != "keys")
CHOICES: Mapping[str, tuple[str, ...]] = {"preset": PRESETS, "theme": themes.NAMES}
DEFAULTS: Mapping[str, str] = {"theme": themes.DEFAULT}
UNSET = "(not set)"


class SettingsScreen(Page):
    """A line for each setting, and the keys."""

    TITLE = "Settings"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "Save", id="settings.save", priority=True),
        Binding("f9", "reload", "Read the file again", id="settings.reload"),
    ]

    def __init__(
        self,
        file: Path,
        bindings: Mapping[str, Bound],
        *,
        saved: Callable[[Settings, Collection[str]], None],
        read: Callable[[], Mapping[str, Given]] = given,
    ) -> None:
        """Show the settings of `file`.

        Args:
            file: where changes are written.
            bindings: what a key may be given to.
            saved: told the settings that hold then, and the names of those that changed.
            read: what is set at present, and where.
        """
        super().__init__()
        self._file = file
        self._bound = bindings
        self._saved = saved
        self._read = read
        self._given: Mapping[str, Given] = {}
        self._keys: dict[str, str] = {}
        self._editing = ""

    def parts(self) -> ComposeResult:
        """Two tabs."""
        with TabbedContent(id="settings-tabs"):
            with TabPane("Settings", id="settings-fields"), VerticalScroll(can_focus=False):
                for name in FIELDS:
                    yield from _field(name)
            with TabPane("Keys", id="settings-keys"):
                yield DataTable(id="settings-bindings", cursor_type="row", zebra_stripes=True)
                yield Input(id="settings-key")

    def on_mount(self) -> None:
        """Read what is set."""
        table: DataTable[object] = self.query_one(DataTable)
        for column in ("what it does", "key", "name in the file"):
            table.add_column(column, key=column)
        self.query_one("#settings-key").display = False
        self.action_reload()

    def action_reload(self) -> None:
        """Show what holds at present; what was typed and not saved is dropped."""
        self.describe(tilde(self._file))
        try:
            self._given = self._read()
            keys = self._given.get("keys")
            self._keys = dict(checked({"keys": keys} if keys else {}).keys)
        except ConfigError as e:
            self.tell(str(e), "bad")
        for name in FIELDS:
            held = self._given.get(name)
            self._put(name, "" if held is None else str(held.value))
        self._list_keys()

    def _put(self, name: str, text: str) -> None:
        widget = self.query_one(f"#set-{name}")
        if isinstance(widget, Select):
            widget.value = text if text in CHOICES[name] else Select.NULL
        elif isinstance(widget, Input):
            widget.value = text
        self._judge(name)

    def _text(self, name: str) -> str:
        widget = self.query_one(f"#set-{name}")
        if isinstance(widget, Select):
            return "" if widget.is_blank() else str(widget.value)
        return widget.value.strip() if isinstance(widget, Input) else ""

    def _judge(self, name: str) -> bool:
        """Say beside the field where its value comes from, or what is wrong with it."""
        about = self.query_one(f"#about-{name}", Static)
        try:
            self._value(name)
        except ConfigError as e:
            about.update(plain(f"✗ {e}", "$text-error"))
            return False
        meaning = " ".join((Settings.model_fields[name].description or "").split())
        about.update(plain(f"{meaning} ({self._origin(name)})"))
        return True

    def _value(self, name: str) -> Value | None:
        """The value in its own type; None if the field is empty. Raises ConfigError."""
        text = self._text(name)
        if not text:
            return None
        value = getattr(checked({name: Given(text, name)}), name)
        if name == "theme":
            themes.chosen(text)
        return text if isinstance(value, Path) else value

    def _origin(self, name: str) -> str:
        held = self._given.get(name)
        default = Settings.model_fields[name].get_default(call_default_factory=True)
        if held is None:
            if default is None:
                return f"default: {DEFAULTS.get(name, 'as the preset says')}"
            return f"default: {tilde(default) if isinstance(default, Path) else default}"
        if not held.place.endswith(str(self._file)):
            return f"{held.place} is set and counts, whatever the file says"
        return "set in this file"

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        name = (event.input.id or "").removeprefix("set-")
        if name in FIELDS:
            self._judge(name)

    @on(Select.Changed)
    def _picked(self, event: Select.Changed) -> None:
        self._judge((event.select.id or "").removeprefix("set-"))

    @work(exclusive=True, group="settings")
    async def action_save(self) -> None:
        """Write what changed, all of it or nothing."""
        wrong = [name for name in FIELDS if not self._judge(name)]
        if wrong:
            self.tell(f"not saved: {', '.join(wrong)}", "bad")
            self.query_one(f"#set-{wrong[0]}").focus()
            return
        changes = {name: self._value(name) for name in FIELDS if self._is_changed(name)}
        try:
            table = {"keys": keymap(self._keys, self._bound) or None} if self._keys_changed() else {}
            await asyncio.to_thread(save, self._file, {**changes, **table})
            self._given = self._read()
            settings = checked(self._given)
        except ConfigError as e:
            self.tell(f"not saved: {e}", "bad")
            return
        for name in FIELDS:
            self._judge(name)
        named = ", ".join([*changes, *table]) or "nothing changed"
        self.tell(f"saved: {named}", "good")
        self._saved(settings, [*changes, *table])

    def _is_changed(self, name: str) -> bool:
        held = self._given.get(name)
        if held is not None and not held.place.endswith(str(self._file)) and self._text(name) == str(held.value):
            return False  # a variable's value is not the file's
        return self._text(name) != ("" if held is None else str(held.value))

    def _keys_changed(self) -> bool:
        held = self._given.get("keys")
        return self._keys != (held.value if held else {})

    def _list_keys(self) -> None:
        table: DataTable[object] = self.query_one(DataTable)
        row = table.cursor_row
        table.clear()
        for id_, bound in self._bound.items():
            own = self._keys.get(id_)
            shown = f"{own} (was {bound.keys})" if own else bound.keys
            table.add_row(bound.description or id_, shown, id_, key=id_)
        table.move_cursor(row=row)

    @on(DataTable.RowSelected)
    def _edit_key(self, event: DataTable.RowSelected) -> None:
        self._editing = str(event.row_key.value)
        line = self.query_one("#settings-key", Input)
        line.border_title = f"key for {self._editing}; empty gives it its own back"
        line.value = self._keys.get(self._editing, "")
        line.display = True
        line.focus()

    @on(Input.Submitted, "#settings-key")
    def _set_key(self, event: Input.Submitted) -> None:
        keys = {id_: key for id_, key in self._keys.items() if id_ != self._editing}
        if event.value.strip():
            keys[self._editing] = event.value.strip()
        try:
            keymap(keys, self._bound)
        except ConfigError as e:
            self.tell(str(e), "bad")
            return
        self._keys = keys
        self.tell("ctrl+s saves the keys")
        event.input.display = False
        self._list_keys()
        self.query_one(DataTable).focus()

    def action_leave(self) -> None:
        """Leave the line for a key, or the page."""
        line = self.query_one("#settings-key")
        if line.display:
            line.display = False
            self.query_one(DataTable).focus()
            return
        super().action_leave()


def _field(name: str) -> ComposeResult:
    """Name and meaning, the value, and where it comes from or what is wrong with it."""
    with Vertical(classes="field"):
        with Horizontal():
            yield Static(name.replace("_", " "), classes="name", markup=False)
            if name in CHOICES:
                options = [(choice, choice) for choice in CHOICES[name]]
                yield Select(options, id=f"set-{name}", prompt=UNSET, compact=True)
            else:
                yield Input(id=f"set-{name}", placeholder=UNSET, compact=True)
        yield Static("", id=f"about-{name}", classes="about", markup=False)
