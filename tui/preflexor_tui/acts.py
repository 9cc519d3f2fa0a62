"""What the palette and the screens beside the chat do to the whole: another model, other looks, exports, settings."""

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from preflexor_agents.errors import PreflexorError
from preflexor_agents.settings import Settings, file_in_use
from preflexor_tui import slash, themes
from preflexor_tui.keys import keymap
from preflexor_tui.setup import changed

if TYPE_CHECKING:
    from preflexor_tui.app import PreflexorApp


def type_command(app: "PreflexorApp", command: slash.Command) -> None:
    """Do a command of the chat; one that needs words is put into the composer."""
    from preflexor_tui.widgets.composer import Composer

    while app.screen is not app.chat:
        app.pop_screen()
    if not command.argument or command.argument.startswith("["):
        app.chat.act(command.name)
        return
    composer = app.chat.query_one(Composer)
    composer.load(f"/{command.name} ")
    composer.focus()


def use_model(app: "PreflexorApp", spec: str) -> None:
    """Make a model that of the next run, and load it if nothing is running. Raises ConfigError."""
    app.setup = changed(app.setup, "model", spec)
    if app.chat.active is None:
        app.chat.load_model()


def stores(app: "PreflexorApp") -> tuple[Path, Path]:
    """The store that is searched, and the user's own, which documents are added to."""
    own = app.setup.settings.store
    return (app.engine.store.path if app.engine.store is not None else own), own


def export_run(app: "PreflexorApp", suffix: str) -> None:
    """Write the last run as a file, or hand it to the browser."""
    from preflexor_tui import exporting

    turns = app.chat.conversation.turns
    if not turns:
        app.notify("there is no run yet; ask something first")
        return
    events = turns[-1].driver.log.events
    _said(app, lambda: exporting.hand_over_run(app, exporting.named_after(events, suffix), events))


def export_picture(app: "PreflexorApp") -> None:
    """Write what the screen shows as a picture."""
    from preflexor_tui import exporting

    _said(app, lambda: exporting.hand_over_picture(app))


def copy_code(app: "PreflexorApp") -> None:
    """Copy the last block of code in the answer."""
    blocks = re.findall(r"^(`{3,}|~{3,})[^\n]*\n(.*?)^\1", app.chat.shown.answer, re.MULTILINE | re.DOTALL)
    if not blocks:
        app.notify("the answer holds no block of code")
        return
    app.copy_to_clipboard(blocks[-1][1])
    app.notify("code copied")


def use_theme(app: "PreflexorApp", name: str) -> None:
    """Show other colours, and keep them."""
    from preflexor_agents.settings_file import save

    app.theme = name
    _said(app, lambda: save(file_in_use(), {"theme": name}))


def apply_settings(app: "PreflexorApp", settings: Settings, names: Collection[str]) -> None:
    """Let what was saved hold from now on; what the command line said otherwise stays."""
    values = {name: getattr(settings, name) for name in names}
    app.setup = replace(app.setup, settings=app.setup.settings.model_copy(update=values))
    if "theme" in names:
        app.theme = themes.chosen(settings.theme)
    if "keys" in names:
        from preflexor_tui import pages

        app.set_keymap(keymap(settings.keys, pages.bindings()))
    if {"model", "store"} & set(names) and app.chat.active is None:
        app.chat.load_model()


def _said(app: "PreflexorApp", do: Callable[[], None]) -> None:
    try:
        do()
    except PreflexorError as e:
        app.notify(str(e), severity="error", markup=False)
