"""The driver: folds, paints at a bounded rate, keeps a small log; and the journal behind it."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import pytest

from preflexor_agents.errors import BackendError
from preflexor_agents.events import Event, RoundsAdded, Ruled, RunFinished, TextDelta, Timed
from preflexor_agents.store import driver as sqlite
from preflexor_agents.store.sessions import Sessions
from preflexor_tui.driver import Driver, replayed
from preflexor_tui.journal import Entry, Journal
from preflexor_tui.log import Log, up_to_last_round, up_to_round
from tests.tui import chatting


async def given(events: Iterable[Event]) -> AsyncGenerator[Event, None]:
    for event in events:
        yield event


class Paints:
    """Counts how often it was asked to paint, and keeps what there was to see."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.seen: list[str] = []

    async def __call__(self) -> None:
        self.seen.append(self.driver.run.answer)


async def test_a_fast_model_is_painted_far_less_often_than_it_speaks() -> None:
    events = chatting.story(until_round=1, ended=False)
    at = next(n for n, e in enumerate(events) if isinstance(e, TextDelta) and e.channel == "answer")
    driver = Driver("q")
    paints = Paints(driver)
    await driver.follow(given([*events[:at], *[events[at]] * 5000]), paints)
    assert len(paints.seen) < 50
    assert len(driver.run.rounds[0].steps[1].answer) > 5000


async def test_the_end_is_always_painted() -> None:
    driver = Driver("q")
    paints = Paints(driver)
    await driver.follow(given(chatting.story()), paints)
    assert paints.seen[-1] == driver.run.answer != ""


async def test_a_failure_is_raised_when_everything_before_it_is_painted() -> None:
    async def failing() -> AsyncGenerator[Event, None]:
        for event in chatting.story(until_round=1, ended=False):
            yield event
        raise BackendError("the server is gone")

    driver = Driver("q")
    paints = Paints(driver)
    with pytest.raises(BackendError, match="gone"):
        await driver.follow(failing(), paints)
    assert paints.seen[-1] == chatting.ANSWERS[0]


def test_one_escape_stops_the_round_and_two_the_run() -> None:
    now = [100.0]
    driver = Driver("q")
    assert driver.escape(clock=lambda: now[0]) == "round"
    assert driver.control.stop_round.is_set() and not driver.control.stop.is_set()
    now[0] += 2.5
    assert driver.escape(clock=lambda: now[0]) == "round"
    now[0] += 1.9
    assert driver.escape(clock=lambda: now[0]) == "run"
    assert driver.control.stop.is_set()


def test_what_was_said_can_be_taken_back_last_first() -> None:
    driver = Driver("q")
    driver.say("one")
    driver.say("two")
    assert driver.waiting == ("one", "two")
    assert [driver.take_back(), driver.take_back(), driver.take_back()] == ["two", "one", None]


def test_a_ruling_replaces_an_earlier_one_on_the_same_round() -> None:
    driver = Driver("q")
    driver.rule(2, accepted=True)
    driver.add_round()
    driver.rule(2, accepted=False)
    assert driver.control.orders == [RoundsAdded(rounds=1), Ruled(round=2, accepted=False)]
    assert driver.orders == ("one more round", "refuse round 2")


async def test_a_replay_keeps_the_pace_of_the_trace() -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    end = chatting.story()[-1]
    began = loop.time()
    events = [e async for e in replayed([Timed(0.0, end), Timed(2.0, end)], speed=20, stop=stop)]
    assert len(events) == 2 and loop.time() - began >= 0.09


async def test_a_stopped_replay_gives_the_rest_at_once() -> None:
    stop = asyncio.Event()
    stop.set()
    end = chatting.story()[-1]
    assert len([e async for e in replayed([Timed(0.0, end), Timed(9e9, end)], speed=1, stop=stop)]) == 2


def test_a_log_joins_neighbouring_pieces_of_a_text() -> None:
    log = Log()
    piece = TextDelta(round=1, role="thinker", stage="draft", channel="answer", text="ab")
    for n in range(100):
        log.add(n / 100, piece)
    log.add(1.0, chatting.story()[-1])
    assert 3 <= len(log.events) <= 6 and log.settled == len(log.events)
    assert "".join(t.event.text for t in log.events if isinstance(t.event, TextDelta)) == "ab" * 100


def test_a_joined_log_folds_into_the_same_run() -> None:
    driver = Driver("q")
    for event in chatting.story():
        driver.take(event, 0.0)
    again = Driver("q", before=driver.log.events)
    assert again.run == driver.run and len(driver.log.events) < len(chatting.story())


def test_logs_are_cut_at_rounds() -> None:
    events = [Timed(0.0, e) for e in chatting.story()]
    ends = [getattr(up_to_round(events, n)[-1].event, "round", None) for n in (1, 2, 3)]
    assert ends == [1, 2, 3]
    assert up_to_last_round(events) == events
    assert up_to_last_round(events[:-3]) == up_to_round(events, 3)
    assert up_to_last_round(events[:5]) == events[:1]


async def test_a_locked_store_is_said_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.01)
    path = tmp_path / "store.db"
    Sessions.open(path).close()
    other = sqlite.connect(path)
    other.conn.execute("BEGIN IMMEDIATE")
    journal = Journal(path)
    entry = Entry(question="q", log=Log(Timed(0.0, e) for e in chatting.story()[:5]))
    assert not await journal.save(entry)
    assert "locked" in journal.trouble and entry.run_id is None
    other.close()
    for event in chatting.story()[5:]:
        entry.log.add(1.0, event)
    assert await journal.save(entry) and journal.trouble == ""
    assert entry.run_id is not None
    run_id = entry.run_id
    assert await journal.call(lambda sessions: sessions.events(run_id)) == entry.log.events
    await journal.close()


async def test_a_run_is_saved_after_the_one_it_follows(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "store.db")
    first = Entry(question="one", log=Log([Timed(0.0, chatting.story()[0])]))
    second = Entry(question="two", log=Log([Timed(0.0, RunFinished(answer="a", stop_reason="rounds"))]), parent=first)
    assert await journal.save(second)
    assert first.run_id is not None and second.run_id is not None
    session_id = journal.session_id or 0
    runs = await journal.call(lambda sessions: sessions.runs(session_id))
    assert [(r.question, r.parent_id) for r in runs] == [("one", None), ("two", first.run_id)]
    await journal.close()


async def test_a_replay_is_not_saved(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "store.db")
    entry = Entry(question="q", log=Log([Timed(0.0, chatting.story()[0])]), kept=False)
    assert await journal.save(entry) and not (tmp_path / "store.db").exists()
