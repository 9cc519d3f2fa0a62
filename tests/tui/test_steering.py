"""Taking part in a run: stop the round, say something, take it back, rule by hand, one more round, other settings."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from textual.events import Key
from textual.pilot import Pilot

from preflexor_agents.backends.scripted import Gate, ScriptedBackend
from preflexor_agents.errors import BackendError
from preflexor_agents.events import Resumed, RoundFinished, RoundStopped, Ruled, RunStarted
from preflexor_tui.app import PreflexorApp
from preflexor_tui.widgets.composer import Composer
from preflexor_tui.widgets.notice import Notice
from preflexor_tui.widgets.round_card import RoundCard
from preflexor_tui.widgets.turn_view import TurnView
from tests.tui import chatting
from tests.tui.chatting import ask, make_app, over, shown, type_in, until, voices


def gated(call: int) -> tuple[Gate, PreflexorApp, ScriptedBackend]:
    """An app whose model halts in the middle of one call."""
    gate = Gate()
    backend = voices(gates={call: gate})
    return gate, make_app(backend), backend


@asynccontextmanager
async def halted(app: PreflexorApp, gate: Gate, question: str = "How tough is nacre?") -> AsyncIterator[Pilot[None]]:
    """The app in the middle of a run: the question was asked, and the model stands at the gate."""
    async with app.run_test() as pilot:
        await over(pilot)
        await type_in(pilot, question)
        await gate.reached.wait()
        yield pilot


async def test_escape_keeps_what_is_written_and_goes_on_with_the_next_round() -> None:
    gate, app, _ = gated(0)
    async with halted(app, gate) as pilot:
        await pilot.press("escape")
        await over(pilot)
        first, second = app.chat.shown.rounds
        assert first.stopped and first.accepted and first.thinking
        assert chatting.WORDS["draft"].startswith("<|thinking|>" + first.thinking[:20])
        assert second.accepted and app.chat.shown.answer == chatting.WORDS["answer"]


async def test_escape_in_a_later_round_keeps_the_partial_revision_which_can_then_be_accepted() -> None:
    gate, app, _ = gated(3)
    async with halted(app, gate) as pilot:
        await pilot.press("escape")
        await over(pilot)
        partial = app.chat.shown.rounds[1]
        assert partial.stopped and partial.accepted is False
        assert partial.answer and chatting.WORDS["answer"].startswith(partial.answer)
        assert app.chat.shown.answer == "Nacre is tough because of its glue."
        await type_in(pilot, "/accept 2")
        await over(pilot)
        assert app.chat.shown.answer == partial.answer
        assert any(isinstance(e, Ruled) for e in app.chat.conversation.turns[-1].events)


async def test_escape_twice_ends_the_run_with_the_best_answer() -> None:
    gate, app, backend = gated(1)
    async with halted(app, gate) as pilot:
        app.chat.action_escape()
        app.chat.action_escape()
        await over(pilot)
        finished = app.chat.shown.finished
        assert finished is not None and finished.stop_reason == "cancelled"
        assert finished.answer == "Nacre is tough because of its glue."
        assert "stopped by the user" in shown(pilot) and backend.unfinished


async def test_what_is_typed_while_it_runs_counts_from_the_next_round() -> None:
    gate, app, backend = gated(0)
    async with halted(app, gate) as pilot:
        await type_in(pilot, "Name the mechanism.")
        assert "for the next round: Name the mechanism." in shown(pilot)
        gate.open.set()
        await over(pilot)
        assert app.chat.shown.rounds[1].steering == ("Name the mechanism.",)
        assert "Name the mechanism." in backend.requests[1].messages[-1].content
        assert "for the next round" not in shown(pilot)


async def test_up_takes_back_what_waits() -> None:
    gate, app, _ = gated(0)
    async with halted(app, gate) as pilot:
        await type_in(pilot, "Name the mechanism.")
        await pilot.press("up")
        await pilot.pause()
        assert app.chat.query_one(Composer).text == "Name the mechanism."
        assert "for the next round" not in shown(pilot)
        gate.open.set()
        await over(pilot)
        assert all(not r.steering for r in app.chat.shown.rounds)


async def test_what_no_round_took_in_comes_back_into_the_composer() -> None:
    gate, app, _ = gated(0)
    async with halted(app, gate) as pilot:
        await type_in(pilot, "Name the mechanism.")
        app.chat.query_one(Composer).load("and the number")
        app.chat.action_escape()
        app.chat.action_escape()
        await over(pilot)
        assert app.chat.query_one(Composer).text == "Name the mechanism.\nand the number"


async def test_a_queued_question_is_asked_when_the_run_is_over() -> None:
    gate, app, _ = gated(0)
    async with halted(app, gate, "one?") as pilot:
        await type_in(pilot, "/next two?")
        assert "when this is over: two?" in shown(pilot)
        gate.open.set()
        await until(pilot, lambda: len(app.chat.conversation.turns) == 2)
        await over(pilot)
        assert app.chat.shown.question == "two?" and app.chat.shown.finished is not None


async def test_a_ruling_while_it_runs_counts_at_the_end_of_the_round() -> None:
    gate, app, _ = gated(4)
    async with halted(app, gate) as pilot:
        await type_in(pilot, "/accept 2")
        assert "at the end of the round: take round 2" in shown(pilot)
        gate.open.set()
        await over(pilot)
        run = app.chat.shown
        assert run.rounds[1].finished is not None and not run.rounds[1].finished.accepted
        assert run.rounds[1].accepted and run.answer == chatting.WORDS["answer"]


async def test_a_taken_answer_can_be_refused_afterwards() -> None:
    app = make_app(voices(judge="Better: A"), preset="paper", rounds=2)
    async with app.run_test() as pilot:
        await over(pilot)
        await ask(pilot, "How tough is nacre?")
        assert app.chat.shown.taken == (1, 2)
        await pilot.press("ctrl+o", "x")
        await over(pilot)
        assert app.chat.shown.taken == (1,) and app.chat.shown.rounds[1].accepted is False


async def test_the_only_answer_is_not_refused_and_that_is_said() -> None:
    app = make_app(rounds=1)
    async with app.run_test() as pilot:
        await over(pilot)
        await ask(pilot, "How tough is nacre?")
        await type_in(pilot, "/reject")
        await over(pilot)
        assert "is the only one" in shown(pilot)


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "after the end"])
async def test_one_more_round(running: bool) -> None:
    gate, app, _ = gated(0)
    async with halted(app, gate) as pilot:
        if running:
            await type_in(pilot, "/more")
        gate.open.set()
        await over(pilot)
        if not running:
            await type_in(pilot, "/more")
            await over(pilot)
        assert len(app.chat.shown.rounds) == 3 and app.chat.shown.finished is not None
        assert len(app.chat.conversation.turns) == 1 and len(app.query(TurnView)) == 1


async def test_one_more_round_after_the_budget_was_spent_gets_a_budget_of_its_own() -> None:
    app = make_app(budget_tokens=20, rounds=3)
    async with app.run_test() as pilot:
        await over(pilot)
        await ask(pilot, "How tough is nacre?")
        finished = app.chat.shown.finished
        assert finished is not None and finished.stop_reason == "budget_tokens"
        before = app.chat.shown.usage.generated
        await type_in(pilot, "/more")
        await over(pilot)
        assert app.chat.shown.usage.generated > before


async def test_the_next_run_is_done_with_what_was_set() -> None:
    made: list[str] = []

    def backend(model: str) -> ScriptedBackend:
        made.append(model)
        return voices()

    app = make_app(backend)
    async with app.run_test() as pilot:
        await over(pilot)
        for line in ("/model gguf:other", "/rounds 1", "/candidates 2", "/temperature 0.3", "/seed 9"):
            await type_in(pilot, line)
            await over(pilot)
        await ask(pilot, "How tough is nacre?")
        started = app.chat.conversation.turns[0].events[0]
        assert isinstance(started, RunStarted) and made == ["scripted", "gguf:other"]
        config = started.config
        assert (config["rounds"], config["candidates"], config["seed"]) == (1, 2, 9)
        assert config["thinker"]["temperature"] == 0.3


WRONG = (
    ("/rounds 0", "/rounds"),
    ("/rounds many", "/rounds"),
    ("/rounds", "needs a value, as: /rounds 3"),
    ("/temperature -1", "/temperature"),
    ("/store nowhere.db", "is no file"),
    ("/role cook=nano", "must be ROLE=SPEC"),
    ("/variant both", "critic or self"),
    ("/modle x", "did you mean /model?"),
    ("/accept", "nothing was asked yet"),
    ("/branch x", "nothing was asked yet"),
    ("/more", "nothing was asked yet"),
    ("/copy", "no answer to copy"),
    ("/next", "needs the question"),
    ("/export", "needs a file"),
    ("/replay", "needs a trace file"),
    ("/stop", "nothing is running"),
    ("/rename x", "ask something first"),
)


async def test_a_wrong_command_says_what_is_wrong() -> None:
    app = make_app()
    async with app.run_test(size=(120, 30)) as pilot:
        await over(pilot)
        for line, words in WRONG:
            await type_in(pilot, line)
            await over(pilot)
            assert app.chat.query_one(Notice).display and words in shown(pilot), line


async def test_a_branch_goes_on_from_a_round_with_what_is_typed() -> None:
    app = make_app(rounds=3)
    async with app.run_test() as pilot:
        await over(pilot)
        await ask(pilot, "How tough is nacre?")
        before = app.chat.conversation.turns[0]
        app.chat.query_one(Composer).load("Only the mechanism.")
        cards = list(app.query(RoundCard))
        cards[0].focus()
        await pilot.press("b")
        await over(pilot)
        (turn,) = app.chat.conversation.turns
        assert turn is not before and turn.entry.forked is before.entry
        events = turn.events
        at = next(n for n, e in enumerate(events) if isinstance(e, Resumed))
        last = events[at - 1]
        assert isinstance(last, RoundFinished) and last.round == 1
        assert turn.run.rounds[1].steering == ("Only the mechanism.",)
        assert events[at].config["seed"] != 0 and turn.run.finished is not None


async def test_an_edited_question_is_a_branch_in_its_place() -> None:
    app = make_app(rounds=1)
    async with app.run_test() as pilot:
        await over(pilot)
        await ask(pilot, "How tough is nacre?")
        await type_in(pilot, "/edit")
        await over(pilot)
        composer = app.chat.query_one(Composer)
        assert composer.text == "How tough is nacre?" and "begins a branch" in shown(pilot)
        await ask(pilot, "How tough is bone?")
        (turn,) = app.chat.conversation.turns
        assert turn.run.question == "How tough is bone?" and turn.entry.forked is not None
        assert "nacre?" not in shown(pilot)


async def test_rewinding_gives_the_question_back() -> None:
    app = make_app(rounds=1)
    async with app.run_test() as pilot:
        await over(pilot)
        await ask(pilot, "one?")
        await ask(pilot, "two?")
        await type_in(pilot, "/rewind")
        await over(pilot)
        assert [t.run.question for t in app.chat.conversation.turns] == ["one?"]
        assert app.chat.query_one(Composer).text == "two?"


async def test_escape_while_the_round_ends_does_no_harm() -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await over(pilot)
        await type_in(pilot, "How tough is nacre?")
        for _ in range(3):
            app.chat.action_escape()
            await asyncio.sleep(0)
        await over(pilot)
        assert app.chat.shown.finished is not None or app.chat.conversation.turns[0].failure == ""


async def test_a_stopped_round_is_an_event() -> None:
    gate, app, _ = gated(0)
    async with halted(app, gate, "q") as pilot:
        await pilot.press("escape")
        await over(pilot)
        assert RoundStopped(round=1) in app.chat.conversation.turns[0].events


async def test_a_critic_that_fails_leaves_the_draft() -> None:
    app = make_app(voices(critique=BackendError("model gone")))
    async with app.run_test() as pilot:
        await over(pilot)
        await ask(pilot, "q")
        assert app.chat.shown.answer == "Nacre is tough because of its glue."


async def test_enter_does_not_overtake_the_letters_before_it_nor_take_those_behind_it() -> None:
    app = make_app(rounds=1)
    async with app.run_test() as pilot:
        await over(pilot)
        for key in (*"one", "enter", *"two"):
            app.post_message(Key(key, "\r" if key == "enter" else key))
        await until(pilot, lambda: bool(app.chat.conversation.turns))
        await over(pilot)
        assert app.chat.shown.question == "one" and app.chat.query_one(Composer).text == "two"


async def test_ctrl_j_breaks_the_line_and_up_goes_back_in_history() -> None:
    app = make_app(rounds=1)
    async with app.run_test() as pilot:
        await over(pilot)
        await pilot.press("a", "ctrl+j", "b", "enter")
        await over(pilot)
        assert app.chat.shown.question == "a\nb"
        composer = app.chat.query_one(Composer)
        await pilot.press("c", "up")
        assert composer.text == "a\nb"
        await pilot.press("down")
        assert composer.text == "c"


async def test_tab_completes_a_command() -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await over(pilot)
        await pilot.press(*"/se", "tab")
        assert app.chat.query_one(Composer).text == "/se"
        await pilot.press("t", "tab")
        assert app.chat.query_one(Composer).text == "/setup"
        await pilot.press("enter")
        await over(pilot)
        assert app.chat.query_one(Composer).text == ""


async def test_a_follow_up_question_is_asked_with_what_was_said_before() -> None:
    backend = voices()
    app = make_app(backend, rounds=1)
    async with app.run_test() as pilot:
        await over(pilot)
        await ask(pilot, "How tough is nacre?")
        assert "Earlier" not in backend.requests[0].messages[-1].content
        await ask(pilot, "And bone?")
        prompt = backend.requests[-1].messages[-1].content
        assert "user: How tough is nacre?\nyou: Nacre is tough because of its glue.\n\nQuestion: And bone?" in prompt
        started = app.chat.conversation.turns[1].events[0]
        assert isinstance(started, RunStarted) and len(started.earlier) == 2
        await type_in(pilot, "/more")
        await over(pilot)
        assert "user: How tough is nacre?" in backend.requests[-1].messages[-1].content
