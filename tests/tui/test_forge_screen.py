"""Preference rows on the screen."""

from pathlib import Path

import pytest
from textual.content import Content
from textual.widgets import Input, Static

from tests.tui import chatting, paging


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return paging.write_rows(paging.at_home(monkeypatch, tmp_path))


async def test_a_row_is_shown_whole_with_scores_and_context(rows: Path) -> None:
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        await paging.open_page(pilot, "rows", rows)
        text = " ".join(chatting.shown(pilot).split())
    for words in ("How does a gecko", "van der Waals", "By suction", "context", "score.chosen 0.92", "model: nano"):
        assert words in text, words
    assert "row 1 of 3" in text


async def test_keys_lead_through_the_file_and_a_broken_row_is_said(rows: Path) -> None:
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        await paging.open_page(pilot, "rows", rows)
        await pilot.press("n")
        await paging.settled(pilot)
        assert "row 2 of 3" in chatting.shown(pilot)
        await pilot.press("g", "9", "enter")
        await paging.settled(pilot)
        assert "row 3 of rows.jsonl has neither a chosen nor" in " ".join(chatting.shown(pilot).split())


async def test_a_file_that_is_none_is_said_and_another_can_be_named(rows: Path) -> None:
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        page = await paging.open_page(pilot, "rows", Path("nowhere.jsonl"))
        assert "cannot be read" in chatting.shown(pilot)
        page.query_one("#forge-file", Input).value = "rows.jsonl"
        page.query_one("#forge-file").focus()
        await pilot.press("enter")
        await paging.settled(pilot)
        assert "row 1 of 3" in chatting.shown(pilot)


async def test_differences_can_be_left_unmarked(rows: Path) -> None:
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        page = await paging.open_page(pilot, "rows", rows)
        chosen = page.query_one("#forge-chosen .text", Static)
        assert isinstance(chosen.visual, Content) and chosen.visual.spans
        await pilot.press("d")
        await pilot.pause()
        assert isinstance(chosen.visual, Content) and not chosen.visual.spans
