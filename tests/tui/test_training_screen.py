"""Training runs on the screen, while they are written."""

import json
from pathlib import Path

import pytest
from textual.widgets import TabbedContent

from preflexor_tui.screens.training import TrainingScreen
from preflexor_tui.screens.training_plot import Plot
from tests.tui import chatting, paging


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return paging.at_home(monkeypatch, tmp_path)


async def test_without_runs_it_says_where_it_looked_and_how_to_train(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preflexor_tui.screens.training.missing_extra", lambda name: f"pip install 'x[{name}]'")
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        await paging.open_page(pilot, "training")
        text = " ".join(chatting.shown(pilot).split())
    assert "No runs in ~/.local/share/preflexor/runs" in text and "To train here: pip install 'x[train]'" in text


async def test_curves_follow_the_file(home: Path) -> None:
    folder = paging.write_run(home)
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        page = await paging.open_page(pilot, "training")
        assert isinstance(page, TrainingScreen)
        await chatting.until(pilot, lambda: len(page.query(Plot)) == 6)
        assert "orpo-1: step 300 · round 2" in chatting.shown(pilot)
        with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": 301, "loss": 0.05}) + "\n")
        page.follow()
        await paging.settled(pilot)
        text = chatting.shown(pilot)
    assert "step 301" in text and "0.05" in text


async def test_the_curves_can_be_had_in_words(home: Path) -> None:
    paging.write_run(home)
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        page = await paging.open_page(pilot, "training")
        await chatting.until(pilot, lambda: len(page.query(Plot)) == 6)
        await pilot.press("w")
        await pilot.pause()
        text = " ".join(chatting.shown(pilot).split())
    assert "loss: 2." in text and "over steps 1-300; lowest" in text


async def test_samples_and_recipe_are_beside_the_curves(home: Path) -> None:
    paging.write_run(home)
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        page = await paging.open_page(pilot, "training")
        await chatting.until(pilot, lambda: len(page.query(Plot)) == 6)
        page.query_one(TabbedContent).active = "training-samples"
        await chatting.until(pilot, lambda: "Tablets slide. (2)" in chatting.shown(pilot))
        assert "round 2, step 300" in chatting.shown(pilot)
        page.query_one(TabbedContent).active = "training-recipe"
        await chatting.until(pilot, lambda: 'method = "orpo"' in chatting.shown(pilot))


async def test_a_run_that_vanishes_is_said_and_the_screen_stays(home: Path) -> None:
    folder = paging.write_run(home)
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        page = await paging.open_page(pilot, "training")
        assert isinstance(page, TrainingScreen)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        page.follow()
        await paging.settled(pilot)
        assert "is no folder" in " ".join(chatting.shown(pilot).split())
