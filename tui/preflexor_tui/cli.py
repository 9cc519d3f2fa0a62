"""Starts the terminal UI: checks everything that can be checked while messages still go to the terminal."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from preflexor_agents.config import Variant
from preflexor_agents.errors import InputError
from preflexor_agents.settings import Settings
from preflexor_agents.trace import read_trace
from preflexor_tui import pages, themes
from preflexor_tui.app import PreflexorApp, Replay
from preflexor_tui.keys import keymap
from preflexor_tui.setup import Setup, changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What the command line asks for."""

    settings: Settings
    roles: tuple[str, ...] = ()
    """Each ROLE=SPEC."""
    variant: Variant | None = None
    question: str = ""
    resumed: bool = False
    """Whether the latest session is to be gone on with."""
    replay: Path | None = None
    speed: float = 1.0


def start(opening: Opening) -> None:
    """Run the terminal UI until the user ends it.

    Raises:
        PreflexorError: something that was asked for is wrong; nothing was drawn yet.
    """
    app = make_app(opening)
    is_served = "TEXTUAL_DRIVER" in os.environ
    if not is_served and not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise InputError("chat needs a terminal; in a script use: preflexor ask 'QUESTION'")
    app.run()


def make_app(opening: Opening) -> PreflexorApp:
    """The app, ready to run. Raises PreflexorError if something that was asked for is wrong."""
    setup = Setup(settings=opening.settings, variant=opening.variant)
    for text in opening.roles:
        setup = changed(setup, "role", text)
    _ = setup.config
    replay = None
    if opening.replay is not None:
        replay = Replay(events=list(read_trace(opening.replay)), speed=opening.speed)
        if not replay.events:
            raise InputError(f"{opening.replay} holds no event")
    return PreflexorApp(
        setup=setup,
        sessions=session_file(opening.settings) if replay is None else None,
        question=opening.question,
        resumed=opening.resumed,
        replay=replay,
        theme=themes.chosen(opening.settings.theme),
        keys=keymap(opening.settings.keys, pages.bindings()) if opening.settings.keys else None,
    )


def session_file(settings: Settings) -> Path:
    """Where conversations are kept: in the user's own store; where there is none yet, in a file of their own."""
    if settings.store.is_file():
        return settings.store
    return Path(platformdirs.user_data_dir("preflexor", appauthor=False)) / "sessions.db"
