"""Models on the screen: which are here, pulling from Ollama, memory."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from textual.widgets import DataTable, Input

from preflexor_tui.ollama_jobs import Pulled
from tests.fakes.ollama_stub import OllamaStub, StubModel
from tests.tui import chatting, paging


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return paging.at_home(monkeypatch, tmp_path)


@pytest.fixture
def ollama(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OllamaStub]:
    with OllamaStub(StubModel(name="qwen3:4b")) as stub:
        monkeypatch.setenv("OLLAMA_HOST", stub.host)
        yield stub


async def test_models_of_all_places_are_listed_and_the_one_in_use_is_marked(ollama: OllamaStub) -> None:
    async with chatting.make_app(model="nano").run_test(size=(120, 40)) as pilot:
        await paging.open_page(pilot, "models")
        lines = chatting.shown(pilot).splitlines()
    nano = next(line for line in lines if line.lstrip().startswith("nano"))
    assert "bundled" in nano and "● next run" in nano
    assert any("qwen3:4b" in line and "Ollama" in line for line in lines)


async def test_a_place_that_does_not_answer_is_one_line_and_spoils_nothing(home: Path) -> None:
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        await paging.open_page(pilot, "models")
        text = chatting.shown(pilot)
    assert "no Ollama server answers" in text and "nano" in text


async def test_enter_uses_the_model_from_the_next_run_on(ollama: OllamaStub) -> None:
    app = chatting.make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        page = await paging.open_page(pilot, "models")
        page.query_one(DataTable).move_cursor(row=1)
        await pilot.press("enter")
        await paging.settled(pilot)
        assert app.setup.model == "ollama:qwen3:4b"
        assert "the next run uses ollama:qwen3:4b" in chatting.shown(pilot)


async def test_a_model_is_loaded_and_unloaded(ollama: OllamaStub) -> None:
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        page = await paging.open_page(pilot, "models")
        page.query_one(DataTable).move_cursor(row=1)
        await pilot.press("l")
        await paging.settled(pilot)
        assert "qwen3:4b is in memory" in chatting.shown(pilot)
        assert "in memory (" in chatting.shown(pilot)
        await pilot.press("u")
        await paging.settled(pilot)
        assert "qwen3:4b is out of memory" in chatting.shown(pilot)
    keeps = [body.get("keep_alive") for body in ollama.bodies("/api/generate")]
    assert keeps == ["30m", 0]


async def test_a_model_is_pulled_and_listed(ollama: OllamaStub) -> None:
    ollama.registry["smollm2:135m"] = StubModel(name="smollm2:135m")
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        page = await paging.open_page(pilot, "models")
        await pilot.press("p")
        page.query_one("#models-name", Input).value = "smollm2:135m"
        await pilot.press("enter")
        await paging.settled(pilot)
        assert "smollm2:135m is here" in chatting.shown(pilot)
        assert page.query_one(DataTable).row_count == 3


@pytest.mark.parametrize("name", ["no-such-model", "a\u202eb"])
async def test_a_pull_that_fails_is_said_and_the_screen_stays(ollama: OllamaStub, name: str) -> None:
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        page = await paging.open_page(pilot, "models")
        await pilot.press("p")
        page.query_one("#models-name", Input).value = name
        await pilot.press("enter")
        await paging.settled(pilot)
        text = " ".join(chatting.shown(pilot).split())
        assert "✗" in text and ("check the name" in text or "is no model's name" in text)
        assert not page.query_one("#models-pulling").display


async def test_a_model_with_hostile_words_is_shown_inert(home: Path) -> None:
    folder = home / ".local" / "share" / "preflexor" / "models"
    folder.mkdir(parents=True)
    (folder / "evil[red]\x1b[2J.gguf").write_bytes(b"GGUF")
    async with chatting.make_app().run_test(size=(160, 40)) as pilot:
        await paging.open_page(pilot, "models")
        text = chatting.shown(pilot)
    assert "\x1b" not in text and "evil[red]␛[2J.gguf" in text


async def test_a_pull_is_stopped_and_says_that_it_can_go_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = asyncio.Event()

    async def endless(name: str) -> AsyncGenerator[Pulled, None]:
        try:
            yield Pulled("pulling abc", 500_000_000, 2_000_000_000)
            await asyncio.Event().wait()
        finally:
            left.set()

    monkeypatch.setattr("preflexor_tui.ollama_jobs.pull", endless)
    async with chatting.make_app().run_test(size=(120, 40)) as pilot:
        page = await paging.open_page(pilot, "models")
        await pilot.press("p")
        page.query_one("#models-name", Input).value = "big"
        await pilot.press("enter")
        await chatting.until(pilot, lambda: "500 MB of 2.0 GB" in chatting.shown(pilot))
        await pilot.press("x")
        await paging.settled(pilot)
        assert left.is_set()
        assert "stopped; what came of big is kept" in chatting.shown(pilot)
