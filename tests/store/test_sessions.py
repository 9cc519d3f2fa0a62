"""Conversations in a store: trees of runs, whole logs, search."""

import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from preflexor_agents.config import ReflectConfig
from preflexor_agents.errors import InputError, StoreError
from preflexor_agents.events import Event, RoundFinished, RoundStarted, RunFinished, RunStarted, TextDelta, Timed
from preflexor_agents.store import Store, driver, upkeep
from preflexor_agents.store.sessions import Sessions, branch_of

ODD = 'a\x00b \ud800 \x1b[31m "quoted" % _ é 漢'


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    with Sessions.open(tmp_path / "store.db") as opened:
        yield opened


def log(question: str, answer: str) -> list[Timed]:
    events: list[Event] = [
        RunStarted(question=question, models={"thinker": "nano"}, config=asdict(ReflectConfig()), started_at=1.0),
        RoundStarted(round=1),
        TextDelta(round=1, role="thinker", stage="draft", channel="answer", text=answer),
        RoundFinished(round=1, answer=answer, accepted=True, reason="first draft"),
        RunFinished(answer=answer, stop_reason="rounds", best_round=1),
    ]
    return [Timed(float(n), event) for n, event in enumerate(events)]


def asked(sessions: Sessions, session: int, question: str, answer: str, parent: int | None = None) -> int:
    run = sessions.begin_run(session, question=question, parent_id=parent)
    sessions.append(run, log(question, answer))
    return run


def test_a_log_comes_back_as_it_was_written(sessions: Sessions) -> None:
    run = asked(sessions, sessions.create("first"), ODD, ODD)
    assert sessions.events(run) == log(ODD, ODD)


def test_a_run_knows_its_answer_rounds_and_end(sessions: Sessions) -> None:
    session = sessions.create("first")
    asked(sessions, session, "How tough is nacre?", "4.5")
    (run,) = sessions.runs(session)
    assert (run.question, run.answer, run.rounds, run.stop_reason) == ("How tough is nacre?", "4.5", 1, "rounds")


def test_a_run_that_was_cut_off_keeps_what_was_written(sessions: Sessions) -> None:
    session = sessions.create("first")
    run = sessions.begin_run(session, question="q", parent_id=None)
    sessions.append(run, log("q", "half")[:3])
    assert sessions.runs(session)[0].stop_reason == ""
    assert sessions.events(run) == log("q", "half")[:3]


def test_a_branch_takes_over_events_and_shares_the_parent(sessions: Sessions) -> None:
    session = sessions.create("first")
    first = asked(sessions, session, "one", "1")
    second = asked(sessions, session, "two", "2", first)
    fork = sessions.begin_run(session, question="two", parent_id=first, forked_id=second, before=log("two", "2")[:4])
    runs = sessions.runs(session)
    assert runs[2].forked_round == 1 and sessions.events(fork) == log("two", "2")[:4]
    assert [r.id for r in branch_of(runs, sessions.get(session).head_id)] == [first, fork]
    assert [r.id for r in branch_of(runs, second)] == [first, second]


def test_rewinding_keeps_the_runs_after_the_head(sessions: Sessions) -> None:
    session = sessions.create("first")
    first = asked(sessions, session, "one", "1")
    asked(sessions, session, "two", "2", first)
    sessions.set_head(session, first)
    assert sessions.get(session).head_id == first
    assert len(sessions.runs(session)) == 2


@pytest.mark.parametrize("text", ["nacre", "NACR", "mussels sticky", "résumé", "resume", "100% sure", "mine 1"])
def test_search_finds_names_questions_and_answers(sessions: Sessions, text: str) -> None:
    wanted = sessions.create("mine 1 résumé")
    asked(sessions, wanted, "How tough is Nacre?", "As sticky as mussels, résumé says, 100% sure.")
    asked(sessions, sessions.create("other"), "What is bone?", "A composite.")
    assert [s.id for s in sessions.find(text)] == [wanted]


@pytest.mark.parametrize("text", ['"', "OR", "a AND", "*", "NEAR(", "-", "\x00", "%"])
def test_search_takes_any_text(sessions: Sessions, text: str) -> None:
    asked(sessions, sessions.create("x"), "q", "a")
    sessions.find(text)


def test_the_latest_session_comes_first_and_is_counted(sessions: Sessions) -> None:
    old, new = sessions.create("old"), sessions.create("new")
    asked(sessions, new, "q", "a")
    asked(sessions, old, "q", "a")
    assert [(s.id, s.runs, s.question) for s in sessions.find()] == [(old, 1, "q"), (new, 1, "q")]


def test_names_are_one_line_and_not_empty(sessions: Sessions) -> None:
    session = sessions.create("  two\nlines " + "x" * 500)
    assert sessions.get(session).name.startswith("two lines x") and len(sessions.get(session).name) == 120
    sessions.rename(session, "better")
    assert sessions.get(session).name == "better"
    with pytest.raises(InputError, match="empty"):
        sessions.rename(session, " ")


def test_a_draft_is_kept(sessions: Sessions) -> None:
    session = sessions.create("x")
    sessions.keep_draft(session, "half a question\nsecond line")
    assert sessions.get(session).draft == "half a question\nsecond line"


def test_a_deleted_session_leaves_nothing_and_takes_no_more_events(sessions: Sessions) -> None:
    session = sessions.create("x")
    run = asked(sessions, session, "How tough is nacre?", "4.5")
    sessions.delete(session)
    assert sessions.find("nacre") == [] and sessions.events(run) == []
    with pytest.raises(InputError, match="deleted"):
        sessions.append(run, log("q", "a"))
    with pytest.raises(InputError, match="deleted"):
        sessions.begin_run(session, question="q", parent_id=None)


def test_events_are_written_all_or_none(sessions: Sessions) -> None:
    session = sessions.create("x")
    run = asked(sessions, session, "q", "a")
    bad = Timed(float("nan"), log("q", "a")[0].event)
    with pytest.raises(StoreError):
        sessions.append(run, [log("q", "b")[1], bad])  # NaN is NULL to SQLite
    assert sessions.events(run) == log("q", "a")


def test_a_locked_store_says_so_and_loses_nothing(sessions: Sessions) -> None:
    run = asked(sessions, sessions.create("x"), "q", "a")
    other = driver.connect(sessions.path)
    other.conn.execute("BEGIN IMMEDIATE")
    sessions._db.conn.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(StoreError, match="locked"):
        sessions.append(run, log("q", "b"))
    other.close()
    sessions.append(run, log("q", "b"))
    assert len(sessions.events(run)) == 10


def test_threads_may_write_at_once(sessions: Sessions) -> None:
    session = sessions.create("x")
    runs = [sessions.begin_run(session, question=str(n), parent_id=None) for n in range(4)]
    threads = [threading.Thread(target=sessions.append, args=(run, log("q", "a") * 20)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(sessions.events(run)) for run in runs] == [100] * 4


def test_documents_and_sessions_share_a_file_that_stays_sound(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    note = tmp_path / "note.md"
    note.write_text("# Nacre\n\nNacre is tough.\n", encoding="utf-8")
    with Store.open(path) as store, Sessions.open(path) as sessions:
        session = sessions.create("x")
        asked(sessions, session, "How tough is nacre?", "very")
        store.ingest([note])
        sessions.delete(session)
    assert upkeep.check(path) == []


def test_an_older_store_gets_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    Store.open(path).close()
    db = driver.connect(path)
    for table in ("session_event", "session_run", "session", "session_fts"):
        db.conn.execute(f"DROP TABLE {table}")
    db.conn.execute("PRAGMA user_version = 5")
    db.conn.execute("DELETE FROM _sqlite_migrations WHERE name = 'm006_sessions'")
    db.close()
    with Sessions.open(path) as sessions:
        assert sessions.find() == []
