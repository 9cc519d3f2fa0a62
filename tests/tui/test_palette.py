"""The command palette, themes, and what is exported from the screen."""

import json
from pathlib import Path

import pytest
from selectolax.lexbor import LexborHTMLParser
from textual.command import CommandPalette
from textual.widgets import Input

from preflexor_agents.events import TextDelta
from preflexor_agents.trace import read_trace
from preflexor_tui import acts, pages, slash, themes
from preflexor_tui.commands import Everything
from preflexor_tui.widgets.composer import Composer
from tests.tui import chatting, paging


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return paging.at_home(monkeypatch, tmp_path)


async def test_the_palette_offers_every_screen_command_theme_export_and_key(home: Path) -> None:
    app = chatting.make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await chatting.over(pilot)
        offers = [offer.name for offer in Everything(app.screen).offers()]
    wanted = [f"Open {entry.title}" for entry in pages.ENTRIES]
    wanted += [f"/{c.name} {c.argument}".strip() for c in slash.COMMANDS]
    wanted += [f"Theme {name}" for name in themes.NAMES]
    wanted += ["Export as Markdown", "Export as one HTML page", "Export as trace", "Export as a picture"]
    assert set(wanted) <= set(offers)
    assert any(name.startswith("Sessions (") for name in offers)


async def test_a_screen_is_opened_from_the_palette(home: Path) -> None:
    app = chatting.make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await chatting.over(pilot)
        await pilot.press("ctrl+p")
        await chatting.until(pilot, lambda: isinstance(app.screen, CommandPalette))
        app.screen.query_one(Input).value = "open settings"
        await chatting.until(pilot, lambda: "what holds from the start" in chatting.shown(pilot))
        await pilot.press("enter")
        await chatting.until(pilot, lambda: app.screen.TITLE == "Settings")


async def test_a_command_that_needs_words_is_put_into_the_composer(home: Path) -> None:
    app = chatting.make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await paging.open_page(pilot, "library")
        acts.type_command(app, slash.BY_NAME["rounds"])
        await pilot.pause()
        assert app.screen is app.chat
        assert app.chat.query_one(Composer).text == "/rounds "


@pytest.mark.parametrize("entry", pages.ENTRIES, ids=lambda entry: entry.name)
async def test_every_screen_opens_by_its_key_and_closes_by_escape(home: Path, entry: pages.Entry) -> None:
    app = chatting.make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await chatting.over(pilot)
        await pilot.press(entry.key)
        await paging.settled(pilot)
        assert entry.title == app.screen.TITLE
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen is app.chat


@pytest.mark.parametrize("entry", pages.ENTRIES, ids=lambda entry: entry.name)
async def test_every_screen_bears_a_tiny_terminal(home: Path, entry: pages.Entry) -> None:
    app = chatting.make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await paging.open_page(pilot, entry.name)
        for size in ((20, 5), (1, 1), (250, 70)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
        assert entry.title in chatting.shown(pilot)


async def test_a_theme_is_used_and_kept(home: Path) -> None:
    app = chatting.make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await chatting.over(pilot)
        acts.use_theme(app, "ansi-light")
        await pilot.pause()
        assert app.theme == "ansi-light"
    text = (home / ".config" / "preflexor" / "preflexor.toml").read_text(encoding="utf-8")
    assert text == 'theme = "ansi-light"\n'


async def test_no_color_leaves_no_colour(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = chatting.make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await chatting.over(pilot)
        assert app.no_color
        colours = {
            s.style.color.get_truecolor()
            for strip in app.screen._compositor.render_strips()
            for s in app._filters and strip.apply_filter(app._filters[0], app.screen.background_colors[1])
            if s.style and s.style.color
        }
    assert all(max(c) - min(c) <= 1 for c in colours)


@pytest.mark.parametrize("suffix", [".md", ".html", ".json", ".jsonl"])
async def test_a_run_is_exported_in_every_form(home: Path, suffix: str) -> None:
    app = chatting.make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await chatting.play(pilot, chatting.story())
        acts.export_run(app, suffix)
        acts.export_run(app, suffix)
        await pilot.pause()
    files = sorted(home.glob(f"why-does-nacre-resist-cracks*{suffix}"))
    assert len(files) == 2, "a second export must not overwrite the first"
    text = files[0].read_text(encoding="utf-8")
    assert "tablets slide" in text
    match suffix:
        case ".json":
            assert json.loads(text)["question"] == chatting.QUESTION
        case ".jsonl":
            whole = [t.event for t in read_trace(files[0]) if not isinstance(t.event, TextDelta)]
            assert whole == [e for e in chatting.story() if not isinstance(e, TextDelta)]
        case ".html":
            assert LexborHTMLParser(text).css_first("h1").text() == chatting.QUESTION


async def test_without_a_run_there_is_nothing_to_export(home: Path) -> None:
    app = chatting.make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await chatting.over(pilot)
        acts.export_run(app, ".md")
        await chatting.until(pilot, lambda: len(app._notifications) == 1)
        assert [note.message for note in app._notifications] == ["there is no run yet; ask something first"]
    assert list(home.glob("*.md")) == []


async def test_a_picture_of_the_screen_names_no_other_address(home: Path) -> None:
    app = chatting.make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await chatting.over(pilot)
        acts.export_picture(app)
        await pilot.pause()
    (file,) = home.glob("preflexor-*.svg")
    text = file.read_text(encoding="utf-8")
    assert text.startswith("<svg") and "url(http" not in text and "@font-face" not in text


async def test_in_a_browser_an_export_is_handed_over_as_a_download(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = chatting.make_app()
    given: list[tuple[str, str | None]] = []
    async with app.run_test(size=(120, 40)) as pilot:
        await chatting.play(pilot, chatting.story())
        monkeypatch.setattr(type(app), "is_web", True)
        monkeypatch.setattr(
            app, "deliver_text", lambda text, *, save_filename, mime_type: given.append((text.read(), save_filename))
        )
        acts.export_run(app, ".md")
        monkeypatch.undo()
    ((text, name),) = given
    assert text.startswith("# Why does nacre") and name == "why-does-nacre-resist-cracks.md"
    assert list(home.glob("*.md")) == []


async def test_the_last_block_of_code_is_copied(home: Path) -> None:
    app = chatting.make_app(chatting.voices(draft="So:\n\n```python\na = 1\n```\n\nor\n\n```\nb = 2\n```\n"), rounds=1)
    async with app.run_test(size=(120, 40)) as pilot:
        await chatting.ask(pilot, "How?")
        acts.copy_code(app)
        await pilot.pause()
    assert app.clipboard == "b = 2\n"
