"""Looks: two calm themes of our own beside Textual's, among them two that use the terminal's own sixteen colours."""

import difflib
from collections.abc import Iterable

from textual.theme import BUILTIN_THEMES, Theme

from preflexor_agents.errors import ConfigError

# `text-muted` is named because Textual's own, `auto 60%`, is drawn as plain white in styled text.
DARK = Theme(
    name="preflexor-dark",
    primary="#5aa2a8",
    secondary="#8d9bc4",
    accent="#7cc4bd",
    warning="#d9a962",
    error="#d97b70",
    success="#8fbf7f",
    foreground="#d5dade",
    background="#14181c",
    surface="#1a1f24",
    panel="#232a31",
    dark=True,
    variables={
        "text-muted": "#939a9f",
        "text-disabled": "#6b7278",
        "footer-key-foreground": "#7cc4bd",
        "input-selection-background": "#5aa2a8 35%",
        "scrollbar": "#333c45",
        "scrollbar-background": "#14181c",
        "scrollbar-background-hover": "#14181c",
        "scrollbar-background-active": "#14181c",
        "scrollbar-corner-color": "#14181c",
    },
)
LIGHT = Theme(
    name="preflexor-light",
    primary="#0f6b70",
    secondary="#4a5a8a",
    accent="#0f6b70",
    warning="#8a5a00",
    error="#a8332a",
    success="#3b6e2a",
    foreground="#1d2429",
    background="#fbfaf7",
    surface="#f3f1ec",
    panel="#e7e4dc",
    dark=False,
    variables={
        "text-muted": "#5f676c",
        "text-disabled": "#8b9296",
        "footer-key-foreground": "#0f6b70",
        "scrollbar": "#cfcbc0",
        "scrollbar-background": "#fbfaf7",
        "scrollbar-background-hover": "#fbfaf7",
        "scrollbar-background-active": "#fbfaf7",
        "scrollbar-corner-color": "#fbfaf7",
    },
)
OURS = (DARK, LIGHT)
DEFAULT = DARK.name
NAMES = (*(theme.name for theme in OURS), *BUILTIN_THEMES)


def chosen(name: str | None) -> str:
    """The theme's name, or the default where none was set. Raises ConfigError for a name that is no theme."""
    if name is None:
        return DEFAULT
    if name in NAMES:
        return name
    near = _near(name, NAMES)
    raise ConfigError(f"theme {name!r} is unknown; " + (f"did you mean {near}?" if near else f"use one of: {_list()}"))


def _list() -> str:
    return ", ".join(NAMES)


def _near(name: str, names: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(name, list(names), n=1)), "")
