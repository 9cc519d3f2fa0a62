"""The screens beside the chat by name: made when they are first opened, then kept, so that work in them goes on."""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from preflexor_tui import acts
from preflexor_tui.keys import Bound, bound_in

if TYPE_CHECKING:
    from preflexor_tui.app import PreflexorApp
    from preflexor_tui.screens.page import Page


class Entry(NamedTuple):
    """A screen that can be opened."""

    name: str
    title: str
    key: str
    help: str


ENTRIES = (
    Entry("models", "Models", "f2", "what is installed, pull from Ollama, load and unload"),
    Entry("library", "Library", "f3", "add documents, browse and search them"),
    Entry("rows", "Preference rows", "f4", "chosen and rejected answers side by side"),
    Entry("training", "Training", "f5", "curves and samples of training runs"),
    Entry("settings", "Settings", "f8", "what holds from the start, and the keys"),
)
_BOUND = (
    ("app", "PreflexorApp"),
    ("screens.chat", "ChatScreen"),
    ("screens.chat_help", "ChatHelp"),
    ("screens.compare", "CompareScreen"),
    ("screens.sessions", "SessionsScreen"),
    ("screens.page", "Page"),
    ("screens.models", "ModelsScreen"),
    ("screens.library", "LibraryScreen"),
    ("screens.forge", "ForgeScreen"),
    ("screens.training", "TrainingScreen"),
    ("screens.settings", "SettingsScreen"),
    ("widgets.composer", "Composer"),
    ("widgets.round_card", "RoundCard"),
)
"""Everything that has keys: module and class."""


def bindings() -> dict[str, Bound]:
    """All bindings that a key may be given to. Loads all screens."""
    return bound_in(_classes())


def show(app: "PreflexorApp", name: str, path: Path | None = None) -> None:
    """Open a screen; `path` is what it is to show, where it shows a file or a folder."""
    from preflexor_tui.screens.forge import ForgeScreen
    from preflexor_tui.screens.training import TrainingScreen

    if not app.is_screen_installed(name):
        app.install_screen(_made(app, name), name)
    screen = app.get_screen(name)
    if path is not None and isinstance(screen, ForgeScreen | TrainingScreen):
        screen.show_path(path)
    if screen not in app.screen_stack:
        app.push_screen(name)
    while app.screen is not screen and len(app.screen_stack) > 1:
        app.pop_screen()


def _made(app: "PreflexorApp", name: str) -> "Page":
    match name:
        case "models":
            from preflexor_tui.screens.models import ModelsScreen

            return ModelsScreen(
                current=lambda: app.setup.model,
                held=lambda: app.engine.held,
                let_go=app.engine.let_go,
                choose=partial(acts.use_model, app),
            )
        case "library":
            from preflexor_tui.screens.library import LibraryScreen

            return LibraryScreen(partial(acts.stores, app), added=app.engine.forget_store)
        case "rows":
            from preflexor_tui.screens.forge import ForgeScreen

            return ForgeScreen()
        case "training":
            from preflexor_agents.run_folder import runs_folder
            from preflexor_tui.screens.training import TrainingScreen

            return TrainingScreen(runs_folder())
        case "settings":
            from preflexor_agents.settings import file_in_use
            from preflexor_tui.screens.settings import SettingsScreen

            return SettingsScreen(file_in_use(), bindings(), saved=partial(acts.apply_settings, app))
    raise ValueError(f"no screen is named {name!r}")


def _classes() -> Iterator[Any]:
    for module, name in _BOUND:
        yield getattr(import_module(f"preflexor_tui.{module}"), name)
