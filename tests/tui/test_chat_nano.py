"""A whole conversation with nano, driven by keys: asked, steered, stopped, ruled, branched, exported, replayed."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from preflexor_agents.backends.scripted import Gate
from preflexor_agents.events import Role, Ruled, Steered
from preflexor_agents.reflection.perform import Cast
from preflexor_agents.session import open_cast
from preflexor_agents.settings import Settings
from preflexor_agents.store.sessions import Sessions
from preflexor_agents.trace import read_trace
from preflexor_tui.app import PreflexorApp, Replay
from preflexor_tui.engine import Engine
from preflexor_tui.setup import Setup
from preflexor_tui.state.run import fold
from preflexor_tui.widgets.citations import Source
from preflexor_tui.widgets.round_card import RoundCard
from tests.tui import chatting
from tests.tui.chatting import Halting, chat, over, shown, type_in, until


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user without a store of their own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("preflexor_agents.settings.default_store", lambda: tmp_path / "none.db")
    yield tmp_path


def nano_app(home: Path, *, gates: Mapping[int, Gate] | None = None, **settings: object) -> PreflexorApp:
    """The app on nano, which halts in the calls that have a gate."""

    async def halting(model: str, others: Mapping[Role, str]) -> Cast:
        cast = await open_cast(model, others)
        return dict.fromkeys(cast, Halting(cast["thinker"], gates or {}))

    given = {"model": "nano", "store": home / "none.db", "rounds": 3} | settings
    setup = Setup(settings=Settings(**given))  # type: ignore[arg-type]
    engine = Engine(open_cast=halting)
    return PreflexorApp(setup=setup, engine=engine, sessions=home / "sessions.db", clock=lambda: 0.0)


async def test_a_conversation_with_nano(home: Path) -> None:
    gate = Gate()
    app = nano_app(home, gates={0: gate})
    async with app.run_test(size=(120, 40)) as pilot:
        await over(pilot)

        await type_in(pilot, "Why is nacre tough?")
        await gate.reached.wait()
        await type_in(pilot, "Name the mechanism.")
        gate.open.set()
        await over(pilot)
        first = app.chat.shown
        assert first.finished is not None and "sliding of tablets" in first.answer
        assert "you said: Name the mechanism." in first.acts
        assert len(app.query(Source)) >= 5 and "sliding of tablets" in shown(pilot)

        await type_in(pilot, "/more")
        await over(pilot)
        assert app.chat.conversation.turns[-1].failure == ""
        assert len(app.chat.shown.rounds) > len(first.rounds)

        await pilot.press("ctrl+o", *["up"] * (len(app.query(RoundCard)) - 1), "b")
        await over(pilot)
        await until(pilot, lambda: len(app.chat.conversation.runs) == 2)
        assert app.chat.shown.finished is not None

        await type_in(pilot, f"/export {home / 'run.jsonl'}")
        await type_in(pilot, f"/export {home / 'run.md'}")
        await until(pilot, (home / "run.md").exists)
        answer = app.chat.shown.answer
    assert "# Why is nacre tough?" in (home / "run.md").read_text(encoding="utf-8")

    with Sessions.open(home / "sessions.db") as sessions:
        (session,) = sessions.find("nacre")
        whole, branch = sessions.runs(session.id)
        assert (branch.forked_id, branch.forked_round) == (whole.id, 1)
        assert fold(t.event for t in sessions.events(branch.id)).answer == answer
        assert any(isinstance(t.event, Steered) for t in sessions.events(whole.id))

    events = list(read_trace(home / "run.jsonl"))
    replay = PreflexorApp(setup=app.setup, replay=Replay(events=events, speed=0), clock=lambda: 0.0)
    async with replay.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: bool(replay.chat.conversation.turns))
        await over(pilot)
        assert replay.chat.shown.answer == answer and replay.chat.shown.answer[:30] in shown(pilot)


async def test_escape_stops_a_round_of_nano_and_twice_the_run(home: Path) -> None:
    first, second = Gate(), Gate()
    app = nano_app(home, gates={0: first, 1: second})
    async with app.run_test(size=(100, 30)) as pilot:
        await over(pilot)
        await type_in(pilot, "What is bone made of?")
        await first.reached.wait()
        await pilot.press("escape")
        await second.reached.wait()
        app.chat.action_escape()
        app.chat.action_escape()
        await over(pilot)
        run = app.chat.shown
        assert run.rounds[0].stopped and run.rounds[0].thinking
        assert run.finished is not None and run.finished.stop_reason == "cancelled"


async def test_a_session_of_nano_is_resumed_and_its_answer_ruled_by_hand(home: Path) -> None:
    app = nano_app(home, rounds=1)
    async with app.run_test(size=(120, 40)) as pilot:
        await over(pilot)
        await chatting.ask(pilot, "How tough is nacre?")
        chat(pilot).query_one(chatting.Composer).load("half a question")
        await pilot.press("ctrl+q")
    again = nano_app(home, rounds=1)
    async with again.run_test(size=(120, 40)) as pilot:
        await over(pilot)
        await type_in(pilot, "/resume")
        await until(pilot, lambda: bool(again.chat.conversation.turns))
        await over(pilot)
        assert chat(pilot).query_one(chatting.Composer).text == "half a question"
        chat(pilot).query_one(chatting.Composer).load("")
        await type_in(pilot, "/accept 1")
        await over(pilot)
        assert any(isinstance(e, Ruled) for e in again.chat.conversation.turns[0].events)
        assert again.chat.shown.rounds[0].ruled is True
        assert "4.5 MPa" in again.chat.shown.answer
