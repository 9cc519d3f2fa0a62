"""How the chat looks: pictures at the sizes and in the themes that people use."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from preflexor_agents.events import TextDelta
from preflexor_tui.app import PreflexorApp
from tests.tui import chatting

Compare = Callable[..., bool]
Before = Callable[[Pilot[None]], Awaitable[None]]
SIZES = {"small": (80, 24), "middle": (120, 40), "large": (220, 60)}


@pytest.fixture
def picture(snap_compare: Compare, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Compare what is on the screen with the picture that was looked at."""
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")

    def compare(before: Before, *, size: str = "middle", theme: str = "preflexor-dark", **settings: Any) -> None:
        app: PreflexorApp = chatting.make_app(**settings)
        app.theme = theme

        async def prepare(pilot: Pilot[None]) -> None:
            await chatting.over(pilot)
            chatting.chat(pilot).query_one(chatting.Composer).cursor_blink = False
            await before(pilot)

        assert snap_compare(app, terminal_size=SIZES[size], run_before=prepare)

    return compare


async def nothing(_: Pilot[None]) -> None:
    pass


async def whole(pilot: Pilot[None]) -> None:
    await chatting.play(pilot, chatting.story())


async def streaming(pilot: Pilot[None]) -> None:
    """The second round while its answer is written, one more word waiting."""
    events = chatting.story(until_round=2, ended=False)
    at = max(n for n, e in enumerate(events) if isinstance(e, TextDelta))
    await chatting.play(pilot, events[:at], gate=asyncio.Event())
    await chatting.type_in(pilot, "And for wet nacre?")


async def thinking(pilot: Pilot[None]) -> None:
    """The first round while it thinks."""
    events = chatting.story(until_round=1, ended=False)
    at = next(n for n, e in enumerate(events) if isinstance(e, TextDelta))
    await chatting.play(pilot, events[: at + 1], gate=asyncio.Event())


async def to_card(pilot: Pilot[None], *keys: str) -> None:
    await whole(pilot)
    await pilot.press("ctrl+o", *keys)
    await pilot.pause(0.1)


async def candidates(pilot: Pilot[None]) -> None:
    await to_card(pilot, "up", "up", "n")


async def side_by_side(pilot: Pilot[None]) -> None:
    await to_card(pilot, "up", "up", "s")


async def diff(pilot: Pilot[None]) -> None:
    await to_card(pilot, "up", "d")


async def opened(pilot: Pilot[None]) -> None:
    await to_card(pilot, "up", "enter", "t", "c")


async def commands(pilot: Pilot[None]) -> None:
    await whole(pilot)
    chatting.chat(pilot).query_one(chatting.Composer).load("/re")
    await pilot.pause()


@pytest.mark.parametrize("size", SIZES)
def test_picture_of_an_empty_conversation(picture: Callable[..., None], size: str) -> None:
    picture(nothing, size=size)


@pytest.mark.parametrize("size", SIZES)
def test_picture_of_three_rounds(picture: Callable[..., None], size: str) -> None:
    picture(whole, size=size)


@pytest.mark.parametrize("theme", ["preflexor-light", "ansi-dark", "ansi-light"])
def test_picture_in_other_themes(picture: Callable[..., None], theme: str) -> None:
    picture(opened, theme=theme)


@pytest.mark.parametrize("size", SIZES)
def test_picture_of_an_answer_being_written(picture: Callable[..., None], size: str) -> None:
    picture(streaming, size=size)


def test_picture_of_thinking(picture: Callable[..., None]) -> None:
    picture(thinking)


@pytest.mark.parametrize("size", ["small", "middle"])
def test_picture_of_a_diff(picture: Callable[..., None], size: str) -> None:
    picture(diff, size=size)


@pytest.mark.parametrize("size", SIZES)
def test_picture_of_candidates(picture: Callable[..., None], size: str) -> None:
    picture(candidates, size=size)


def test_picture_of_candidates_side_by_side(picture: Callable[..., None]) -> None:
    picture(side_by_side)


def test_picture_of_an_open_round(picture: Callable[..., None]) -> None:
    picture(opened)


def test_picture_of_commands_offered(picture: Callable[..., None]) -> None:
    picture(commands, size="small")
