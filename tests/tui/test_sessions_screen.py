"""Sessions on the screen: resumed, searched, renamed, deleted; branches visited."""

from pathlib import Path

import pytest
from textual.widgets import Input, OptionList

from preflexor_tui.app import PreflexorApp
from preflexor_tui.screens.sessions import SessionsScreen
from preflexor_tui.widgets.branches import Branches
from preflexor_tui.widgets.composer import Composer
from preflexor_tui.widgets.round_card import RoundCard
from tests.tui.chatting import ask, make_app, over, shown, type_in, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


def titles(app: PreflexorApp) -> str:
    return "\n".join(str(o.prompt) for o in app.screen.query_one("#found", OptionList).options)


async def test_a_session_is_searched_and_resumed_with_its_draft(path: Path) -> None:
    app = make_app(sessions=path, rounds=1)
    async with app.run_test(size=(100, 30)) as pilot:
        await over(pilot)
        await ask(pilot, "How tough is nacre?")
        app.chat.query_one(Composer).load("half a thought")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: isinstance(app.screen, SessionsScreen))
        await pilot.press("escape")
        await over(pilot)
        assert app.chat.query_one(Composer).text == "half a thought"
        app.chat.act("new")
        await over(pilot)
        assert not app.chat.conversation.turns
        app.chat.query_one(Composer).load("")
        await ask(pilot, "What is bone?")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: isinstance(app.screen, SessionsScreen) and "bone" in titles(app))
        await pilot.press(*"how")
        await until(pilot, lambda: "nacre" in titles(app) and "bone" not in titles(app))
        await pilot.press("enter")
        await over(pilot)
        assert [t.run.question for t in app.chat.conversation.turns] == ["How tough is nacre?"]
        assert "Nacre is tough because of its glue." in shown(pilot)
        assert app.chat.query_one(Composer).text == "half a thought"


async def test_a_session_is_renamed_and_deleted(path: Path) -> None:
    app = make_app(sessions=path, rounds=1)
    async with app.run_test(size=(100, 30)) as pilot:
        await over(pilot)
        await ask(pilot, "How tough is nacre?")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: isinstance(app.screen, SessionsScreen) and "nacre" in titles(app))
        await pilot.press("ctrl+n")
        app.screen.query_one(Input).value = "mother of pearl"
        await pilot.press("enter")
        await until(pilot, lambda: "mother of pearl" in titles(app))
        await pilot.press("down", "delete")
        await pilot.pause()
        assert "press delete again" in shown(pilot) and "mother of pearl" in titles(app)
        await pilot.press("delete")
        await until(pilot, lambda: "mother of pearl" not in titles(app))
        assert "no session found" in shown(pilot)
        await pilot.press("escape")
        await over(pilot)
        await ask(pilot, "still here?")
        assert app.chat.shown.answer


async def test_the_tree_shows_branches_and_goes_to_them(path: Path) -> None:
    app = make_app(sessions=path, rounds=2)
    async with app.run_test(size=(200, 40)) as pilot:
        await over(pilot)
        await ask(pilot, "one?")
        await ask(pilot, "two?")
        list(app.query(RoundCard))[-2].focus()
        await pilot.press("b")
        await over(pilot)
        assert [r.forked_round for r in app.chat.conversation.runs] == [None, None, 1]
        tree = app.query_one(Branches)
        assert "↰r1" in shown(pilot)
        second = app.chat.conversation.runs[1].id
        tree.post_message(Branches.Chosen(second))
        await until(pilot, lambda: app.chat.conversation.turns[-1].entry.run_id == second)
        await over(pilot)
        assert [t.run.question for t in app.chat.conversation.turns] == ["one?", "two?"]


async def test_a_run_that_was_cut_off_goes_on_from_its_last_whole_round(path: Path) -> None:
    app = make_app(sessions=path, rounds=3)
    async with app.run_test() as pilot:
        await over(pilot)
        await ask(pilot, "one?")
        events = app.chat.conversation.turns[0].driver.log.events
        whole = len(events)
    cut = make_app(sessions=path, rounds=3)
    async with cut.run_test() as pilot:
        await over(pilot)
        session = await cut.journal.call(lambda sessions: sessions.create("cut"))
        run = await cut.journal.call(lambda sessions: sessions.begin_run(session, question="one?", parent_id=None))
        await cut.journal.call(lambda sessions: sessions.append(run, events[: whole // 2]))
        await type_in(pilot, "/resume")
        await until(pilot, lambda: bool(cut.chat.conversation.turns))
        before = len([r for r in cut.chat.shown.rounds if r.finished])
        await type_in(pilot, "/more")
        await over(pilot)
        after = cut.chat.shown
        assert after.finished is not None and len(after.rounds) == before + 1
        runs = await cut.journal.call(lambda sessions: sessions.runs(session))
        assert len(runs) == 2 and runs[1].forked_id == run


async def test_a_store_that_cannot_be_opened_is_said_and_the_chat_works(tmp_path: Path) -> None:
    file = tmp_path / "no.db"
    file.write_text("this is no database", encoding="utf-8")
    app = make_app(sessions=file, rounds=1)
    async with app.run_test(size=(120, 30)) as pilot:
        await over(pilot)
        await ask(pilot, "one?")
        assert app.chat.shown.answer and "not saved yet" in shown(pilot)
        await type_in(pilot, "/sessions")
        await until(pilot, lambda: isinstance(app.screen, SessionsScreen))
        await until(pilot, lambda: "no knowledge store" in shown(pilot))
        assert file.read_text(encoding="utf-8") == "this is no database"
