"""How the screens beside the chat look: pictures at the sizes and in the themes that people use."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, TabbedContent

from preflexor_tui.screens.page import Page
from preflexor_tui.screens.training_plot import Plot
from tests.fakes.ollama_stub import OllamaStub, StubModel
from tests.tui import chatting, paging

Before = Callable[[Pilot[None]], Awaitable[None]]
Picture = Callable[..., None]
SIZES = {"small": (80, 24), "middle": (120, 40), "large": (220, 60)}


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return paging.at_home(monkeypatch, tmp_path)


@pytest.fixture
def picture(snap_compare: Callable[..., bool], home: Path) -> Picture:
    """Compare what is on the screen with the picture that was looked at."""

    def compare(before: Before, *, size: str = "middle", theme: str = "preflexor-dark") -> None:
        app = chatting.make_app(model="nano")
        app.theme = theme

        async def prepare(pilot: Pilot[None]) -> None:
            await chatting.over(pilot)
            await before(pilot)
            for line in pilot.app.screen.query(Input):
                line.cursor_blink = False
            await paging.settled(pilot)

        assert snap_compare(app, terminal_size=SIZES[size], run_before=prepare)

    return compare


async def models(pilot: Pilot[None]) -> None:
    await paging.open_page(pilot, "models")


async def library(pilot: Pilot[None]) -> None:
    await paging.open_page(pilot, "library")


async def found(pilot: Pilot[None]) -> None:
    page = await paging.open_page(pilot, "library")
    await pilot.press("slash")
    page.query_one("#library-query", Input).value = "tough"
    await pilot.press("enter")


async def rows(pilot: Pilot[None]) -> None:
    await paging.open_page(pilot, "rows", Path("rows.jsonl"))


async def curves(pilot: Pilot[None]) -> None:
    page = await paging.open_page(pilot, "training")
    await chatting.until(pilot, lambda: len(page.query(Plot)) == 6)


async def samples(pilot: Pilot[None]) -> None:
    await curves(pilot)
    pilot.app.screen.query_one(TabbedContent).active = "training-samples"
    await chatting.until(pilot, lambda: "round 2, step 300" in chatting.shown(pilot))


async def in_words(pilot: Pilot[None]) -> None:
    await curves(pilot)
    await pilot.press("w")


async def settings(pilot: Pilot[None]) -> Page:
    return await paging.open_page(pilot, "settings")


async def wrong(pilot: Pilot[None]) -> None:
    page = await settings(pilot)
    page.query_one("#set-rounds", Input).value = "0"
    await pilot.pause()
    await pilot.press("ctrl+s")


async def keys(pilot: Pilot[None]) -> None:
    page = await settings(pilot)
    page.query_one(TabbedContent).active = "settings-keys"
    await pilot.pause()
    page.query_one(DataTable).focus()


async def palette(pilot: Pilot[None]) -> None:
    await pilot.press("ctrl+p")
    await chatting.until(pilot, lambda: "Open Models" in chatting.shown(pilot))
    for line in pilot.app.screen.query(Input):
        line.cursor_blink = False


@pytest.mark.parametrize(("size", "theme"), [("middle", "preflexor-dark"), ("small", "ansi-dark")])
def test_models(picture: Picture, monkeypatch: pytest.MonkeyPatch, size: str, theme: str) -> None:
    names = ("qwen3:4b", "nomic-embed-text:latest")
    with OllamaStub(*(StubModel(name=name, size=2_600_000_000) for name in names)) as stub:
        monkeypatch.setenv("OLLAMA_HOST", stub.host)
        picture(models, size=size, theme=theme)


@pytest.mark.parametrize(
    ("before", "size", "theme"),
    [(library, "middle", "preflexor-light"), (found, "large", "preflexor-dark"), (found, "small", "preflexor-dark")],
)
def test_library(picture: Picture, home: Path, before: Before, size: str, theme: str) -> None:
    paging.fill_store(home)
    picture(before, size=size, theme=theme)


def test_library_without_documents(picture: Picture) -> None:
    picture(library, size="small", theme="preflexor-light")


@pytest.mark.parametrize(("size", "theme"), [("middle", "preflexor-dark"), ("small", "ansi-light")])
def test_preference_rows(picture: Picture, home: Path, size: str, theme: str) -> None:
    paging.write_rows(home)
    picture(rows, size=size, theme=theme)


@pytest.mark.parametrize(
    ("before", "size", "theme"),
    [
        (curves, "large", "preflexor-dark"),
        (curves, "middle", "preflexor-light"),
        (curves, "small", "ansi-dark"),
        (in_words, "small", "preflexor-dark"),
        (samples, "middle", "preflexor-dark"),
    ],
)
def test_training(picture: Picture, home: Path, before: Before, size: str, theme: str) -> None:
    paging.write_run(home)
    picture(before, size=size, theme=theme)


@pytest.mark.parametrize(
    ("before", "size", "theme"),
    [(settings, "small", "preflexor-light"), (wrong, "middle", "preflexor-dark"), (keys, "large", "preflexor-dark")],
)
def test_settings(picture: Picture, before: Before, size: str, theme: str) -> None:
    picture(before, size=size, theme=theme)


def test_palette(picture: Picture) -> None:
    picture(palette, size="small")
