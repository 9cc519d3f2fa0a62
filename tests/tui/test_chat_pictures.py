"""How the chat looks: pictures at the sizes and in the themes that people use."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import TabbedContent

from preflexor_agents.errors import BackendError
from preflexor_agents.events import TextDelta
from preflexor_agents.graph.values import Entity, Evidence, Run
from preflexor_tui.app import PreflexorApp
from preflexor_tui.engine import Engine
from preflexor_tui.state.facts import Facts, InPlay, Statement
from preflexor_tui.widgets.graph_tree import GraphTree
from tests.tui import chatting

Compare = Callable[..., bool]
Before = Callable[[Pilot[None]], Awaitable[None]]
QUOTE = Evidence(
    relation_id=1,
    chunk_id=7,
    source="papers/nacre-review.pdf",
    title="Toughness of nacre: a review",
    page=4,
    start=100,
    end=150,
    quote="Cracks in nacre are deflected along the weak interfaces",
    run=Run(kind="extract"),
)
FACTS = Facts(
    has_graph=True,
    entities=(
        InPlay(
            entity=Entity(id=1, name="nacre", type="material"),
            statements=(
                Statement(text="deflects cracks along → weak interfaces", evidence=(QUOTE, QUOTE)),
                Statement(text="consists of → aragonite", evidence=(QUOTE,)),
            ),
        ),
        InPlay(
            entity=Entity(id=2, name="aragonite", type="mineral"),
            statements=(Statement(text="← nacre consists of", evidence=(QUOTE,)),),
        ),
    ),
    paths=("nacre -consists of→ aragonite",),
)
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


async def graph(pilot: Pilot[None]) -> None:
    """The graph beside the rounds, its first relation opened."""
    await whole(pilot)
    chatting.chat(pilot).query_one(TabbedContent).active = "graph-tab"
    tree = chatting.chat(pilot).query_one(GraphTree)
    tree.show(FACTS)
    await pilot.pause()
    tree.root.children[0].children[0].expand()
    await pilot.pause(0.1)


async def failure(pilot: Pilot[None]) -> None:
    """A run that could not begin, below one that went well."""
    await whole(pilot)
    chatting.chat(pilot).app.engine = Engine(open_cast=_gone, open_store=lambda *_: None)
    await chatting.ask(pilot, "And when it is wet?")


async def _gone(model: str, others: object) -> Any:
    raise BackendError("Ollama does not answer at 127.0.0.1:11434; start it with: ollama serve")


async def sessions(pilot: Pilot[None]) -> None:
    await chatting.ask(pilot, "Why does nacre resist cracks?")
    chatting.chat(pilot).act("new")
    await chatting.over(pilot)
    await chatting.ask(pilot, "What is bone made of?")
    await pilot.press("ctrl+r")
    await chatting.until(pilot, lambda: "2 sessions" in chatting.shown(pilot))


@pytest.mark.parametrize("size", ["small", "middle"])
def test_picture_of_an_empty_conversation(picture: Callable[..., None], size: str) -> None:
    picture(nothing, size=size)


@pytest.mark.parametrize("size", SIZES)
def test_picture_of_three_rounds(picture: Callable[..., None], size: str) -> None:
    picture(whole, size=size)


@pytest.mark.parametrize("theme", ["preflexor-light", "ansi-dark", "ansi-light"])
def test_picture_in_other_themes(picture: Callable[..., None], theme: str) -> None:
    picture(opened, theme=theme)


@pytest.mark.parametrize("size", ["small", "large"])
def test_picture_of_an_answer_being_written(picture: Callable[..., None], size: str) -> None:
    picture(streaming, size=size)


def test_picture_of_thinking(picture: Callable[..., None]) -> None:
    picture(thinking)


def test_picture_of_a_diff(picture: Callable[..., None]) -> None:
    picture(diff, size="small")


def test_picture_of_candidates(picture: Callable[..., None]) -> None:
    picture(candidates, size="small")


def test_picture_of_the_graph(picture: Callable[..., None]) -> None:
    picture(graph)


def test_picture_of_a_failure(picture: Callable[..., None]) -> None:
    picture(failure)


def test_picture_of_the_sessions(picture: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = (f"2026-11-21T10:00:{second:02d}.000+00:00" for second in count())
    monkeypatch.setattr("preflexor_agents.store.sessions._now", lambda: next(times))
    picture(sessions, sessions=tmp_path / "sessions.db", rounds=1)


def test_picture_of_candidates_side_by_side(picture: Callable[..., None]) -> None:
    picture(side_by_side)


def test_picture_of_an_open_round(picture: Callable[..., None]) -> None:
    picture(opened)


def test_picture_of_commands_offered(picture: Callable[..., None]) -> None:
    picture(commands, size="small")
