"""Keys that the user gives to bindings, and themes by name."""

import re
import tomllib
from pathlib import Path
from typing import ClassVar

import pytest
from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen

from preflexor_agents.errors import ConfigError
from preflexor_agents.settings import Given, checked
from preflexor_tui import pages, themes
from preflexor_tui.keys import Bound, bound_in, keymap


class SomeApp(App[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "help", "help", id="app.help"),
        Binding("ctrl+q", "quit", "quit"),
    ]


class SomeScreen(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s,f2", "save", "save", id="some.save"),
        Binding("g", "go", "go", id="some.go"),
        ("x", "x", "no id"),
    ]


class OtherScreen(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("g", "grow", "grow", id="other.grow")]


KNOWN = bound_in([SomeApp, SomeScreen, OtherScreen])


def test_bindings_with_an_id_are_known_with_all_their_keys() -> None:
    assert KNOWN["some.save"] == Bound("some.save", "ctrl+s,f2", "save")
    assert list(KNOWN) == ["app.help", "some.save", "some.go", "other.grow"]


def test_keys_are_taken_as_textual_wants_them() -> None:
    assert keymap({"some.save": "f5 , ctrl+o", "some.go": "?"}, KNOWN) == {"some.save": "f5,ctrl+o", "some.go": "?"}


def test_one_key_may_serve_two_screens() -> None:
    assert keymap({"other.grow": "ctrl+s"}, KNOWN) == {"other.grow": "ctrl+s"}


def test_two_bindings_may_swap_their_keys() -> None:
    assert keymap({"some.save": "g", "some.go": "f2"}, KNOWN)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"some.sve": "f5"}, "'some.sve' among the [keys] is no binding; did you mean 'some.save'?"),
        ({"xyz": "f5"}, "'xyz' among the [keys] is no binding; the settings screen lists them (ctrl+p, Settings)"),
        ({"some.go": "strg+s"}, "key 'strg+s' of 'some.go' among the [keys] is none; write it like"),
        ({"some.go": "ctrl+"}, "key 'ctrl+' of 'some.go'"),
        ({"some.go": ""}, "key '' of 'some.go'"),
        ({"some.go": "f99"}, "key 'f99' of 'some.go'"),
        ({"some.go": "g,\x1b"}, "key '\\x1b' of 'some.go'"),
        ({"some.go": "f2"}, "key 'f2' of 'some.go' among the [keys] is that of 'some.save' already"),
        ({"some.go": "f1"}, "key 'f1' of 'some.go' among the [keys] is that of 'app.help' already"),
        ({"app.help": "g"}, "key 'g' of 'app.help' among the [keys] is that of 'some.go' already"),
    ],
)
def test_what_can_not_be_is_said_in_one_line(wanted: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        keymap(wanted, KNOWN)
    assert words in str(caught.value) and "\n" not in str(caught.value)


async def test_a_changed_key_works_and_the_old_one_does_not() -> None:
    pressed = []

    class Pressed(SomeApp):
        def action_help(self) -> None:
            pressed.append("help")

    app = Pressed()
    async with app.run_test() as pilot:
        app.set_keymap(keymap({"app.help": "f9"}, KNOWN))
        await pilot.press("f1", "f9")
    assert pressed == ["help"]


def test_the_settings_in_the_docs_are_settings() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tui.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```", page, re.M | re.S)
    settings = checked({key: Given(value, key) for key, value in tomllib.loads(block).items()})
    assert keymap(settings.keys, pages.bindings()) and themes.chosen(settings.theme)
    for entry in pages.ENTRIES:
        assert f"| {entry.key} | {entry.title} |" in page


def test_a_theme_is_chosen_by_name() -> None:
    assert themes.chosen(None) == "preflexor-dark"
    assert themes.chosen("ansi-light") == "ansi-light"
    with pytest.raises(ConfigError, match="theme 'nordd' is unknown; did you mean nord"):
        themes.chosen("nordd")
    with pytest.raises(ConfigError, match="use one of: preflexor-dark, preflexor-light"):
        themes.chosen("zzz")


def test_every_theme_that_is_offered_exists() -> None:
    app = SomeApp()
    for theme in themes.OURS:
        app.register_theme(theme)
    assert set(themes.NAMES) == set(app.available_themes)
