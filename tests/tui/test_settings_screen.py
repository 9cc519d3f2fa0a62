"""Settings on the screen, and what becomes of the file."""

from pathlib import Path

import pytest
from textual.widgets import DataTable, Input, Select, TabbedContent

from tests.tui import chatting, paging

FILE = '# mine\nrounds = 3  # enough\n\n[keys]\n"app.help" = "f12"\n'


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A settings file in the working directory."""
    made = paging.at_home(monkeypatch, tmp_path) / "preflexor.toml"
    made.write_text(FILE, encoding="utf-8")
    return made


async def test_what_is_changed_is_saved_and_holds_at_once(file: Path) -> None:
    app = chatting.make_app()
    async with app.run_test(size=(120, 50)) as pilot:
        page = await paging.open_page(pilot, "settings")
        page.query_one("#set-rounds", Input).value = "5"
        page.query_one("#set-theme", Select).value = "preflexor-light"
        await pilot.press("ctrl+s")
        await paging.settled(pilot)
        assert "saved: rounds, theme" in chatting.shown(pilot)
        assert (app.setup.settings.rounds, app.theme) == (5, "preflexor-light")
    text = file.read_text(encoding="utf-8")
    assert text == FILE.replace("rounds = 3", "rounds = 5").replace("enough\n", 'enough\ntheme = "preflexor-light"\n')


async def test_a_wrong_value_is_said_beside_it_and_nothing_is_written(file: Path) -> None:
    async with chatting.make_app().run_test(size=(120, 50)) as pilot:
        page = await paging.open_page(pilot, "settings")
        page.query_one("#set-rounds", Input).value = "0"
        page.query_one("#set-seed", Input).value = "7"
        await pilot.pause()
        assert "rounds is '0'; it should be greater than or equal to 1" in chatting.shown(pilot)
        await pilot.press("ctrl+s")
        await paging.settled(pilot)
        assert "not saved: rounds" in chatting.shown(pilot)
        assert page.focused is page.query_one("#set-rounds")
    assert file.read_text(encoding="utf-8") == FILE


async def test_a_variable_that_counts_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLEXOR_SEED", "42")
    async with chatting.make_app().run_test(size=(120, 50)) as pilot:
        await paging.open_page(pilot, "settings")
        assert "PREFLEXOR_SEED is set and counts" in chatting.shown(pilot)
        await pilot.press("ctrl+s")
        await paging.settled(pilot)
        assert "saved: nothing changed" in chatting.shown(pilot)
    assert file.read_text(encoding="utf-8") == FILE


async def test_a_setting_that_is_emptied_leaves_the_file(file: Path) -> None:
    async with chatting.make_app().run_test(size=(120, 50)) as pilot:
        page = await paging.open_page(pilot, "settings")
        page.query_one("#set-rounds", Input).value = ""
        await pilot.press("ctrl+s")
        await paging.settled(pilot)
    text = file.read_text(encoding="utf-8")
    assert "rounds" not in text and "# mine" in text and "app.help" in text


async def test_a_key_is_changed_saved_and_works(file: Path) -> None:
    app = chatting.make_app()
    async with app.run_test(size=(120, 50)) as pilot:
        page = await paging.open_page(pilot, "settings")
        page.query_one(TabbedContent).active = "settings-keys"
        table: DataTable[object] = page.query_one(DataTable)
        await pilot.pause()
        table.focus()
        table.move_cursor(row=table.get_row_index("app.models"))
        await pilot.press("enter")
        page.query_one("#settings-key", Input).value = "f1000"
        await pilot.press("enter")
        await pilot.pause()
        assert "write it like ctrl+s" in chatting.shown(pilot)
        page.query_one("#settings-key", Input).value = "f10"
        await pilot.press("enter", "ctrl+s")
        await paging.settled(pilot)
        await pilot.press("escape", "f10")
        await paging.settled(pilot)
        assert app.screen.TITLE == "Models"
    text = file.read_text(encoding="utf-8")
    assert '"app.help" = "f12"' in text and '"app.models" = "f10"' in text


async def test_a_damaged_file_is_said_and_left_alone(file: Path) -> None:
    file.write_text("rounds = ", encoding="utf-8")
    async with chatting.make_app().run_test(size=(120, 50)) as pilot:
        await paging.open_page(pilot, "settings")
        assert "is not TOML" in " ".join(chatting.shown(pilot).split())
        await pilot.press("ctrl+s")
        await paging.settled(pilot)
    assert file.read_text(encoding="utf-8") == "rounds = "


async def test_every_key_has_a_name_and_says_what_it_does() -> None:
    from preflexor_tui import pages

    bindings = pages.bindings()
    assert len(bindings) > 30
    assert [b.id for b in bindings.values() if not b.description] == []
