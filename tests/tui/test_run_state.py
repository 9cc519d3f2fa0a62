"""The state of the screen as a fold over events: recorded ones of nano, and a story of three rounds."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflexor_agents.events import Resumed, RoundsAdded, RoundStopped, Ruled, RunFinished, StepFailed, TextDelta
from preflexor_agents.word_diff import change, word_diff
from preflexor_tui.state.candidates import candidates
from preflexor_tui.state.run import Run, apply, fold
from tests.tui import chatting

PACKAGE = Path(__file__).parents[2] / "tui" / "preflexor_tui"


def test_a_recorded_run_of_nano_folds_into_what_it_came_to() -> None:
    events = [t.event for t in chatting.nano_events()]
    run, end = fold(events), events[-1]
    assert isinstance(end, RunFinished)
    assert run.answer == end.answer and run.usage == end.usage and run.taken == (1,)
    assert [r.accepted for r in run.rounds] == [True, False, False]
    assert run.rounds[2].steering == ("Name the mechanism and give a number.",)
    assert [c.number for c in run.citations] == [2]


def test_text_as_it_is_written_and_the_finished_step_agree() -> None:
    events = [t.event for t in chatting.nano_events()]
    last = max(n for n, e in enumerate(events) if isinstance(e, TextDelta))
    before, after = fold(events[: last + 1]), fold(events[: last + 2])
    written, finished = before.rounds[-1].steps[-1], after.rounds[-1].steps[-1]
    assert written.answer.strip() == finished.answer.strip() and written.status == "running"


@pytest.mark.parametrize("events", [chatting.story(), [t.event for t in chatting.nano_events()]], ids=["story", "nano"])
def test_every_beginning_of_a_run_can_be_shown(events: list[chatting.Event]) -> None:
    run = Run()
    for event in events:
        run = apply(run, event)
        assert run.written_tok >= 0 and [r.number for r in run.rounds] == list(range(1, len(run.rounds) + 1))
        for round in run.rounds:
            candidates(round)
            assert isinstance(round.answer + round.thinking + round.critique, str)


@pytest.mark.parametrize("start", range(0, 60, 7))
def test_a_trace_that_begins_in_the_middle_can_be_shown(start: int) -> None:
    run = fold(chatting.story()[start:])
    assert run.finished is not None


def test_the_drafts_of_a_round_have_their_scores() -> None:
    one, two, three = candidates(fold(chatting.story()).rounds[0])
    assert (one.score, two.score, two.against, three.score, three.against) == (None, 1.0, 1, 0.0, 2)
    assert [c.chosen for c in (one, two, three)] == [False, True, False]


def test_drafts_that_say_the_same_are_not_scored() -> None:
    run = fold([t.event for t in chatting.nano_events()])
    assert [c.same_as for c in candidates(run.rounds[0])] == [None, 1, 1]


def test_the_word_of_the_user_stands_above_the_gate() -> None:
    run = fold(chatting.story(ended=False))
    assert run.best is not None and run.best.number == 2
    taken = apply(run, Ruled(round=3, accepted=True))
    assert taken.best is not None and taken.best.number == 3 and taken.rounds[2].accepted
    refused = apply(run, Ruled(round=2, accepted=False))
    assert refused.best is not None and refused.best.number == 1 and refused.rounds[1].accepted is False


def test_the_only_answer_can_not_be_refused() -> None:
    run = fold(chatting.story(until_round=1, ended=False))
    assert apply(run, Ruled(round=1, accepted=False)) == fold([Ruled(round=1, accepted=False)], run)
    assert apply(run, Ruled(round=1, accepted=False)).best == run.best


def test_a_resumed_run_is_open_again_and_keeps_its_rounds() -> None:
    run = fold(chatting.story())
    config = {"rounds": 5, "budget_tok": 99, "budget_s": 9.0, "preset": "default"}
    again = apply(run, Resumed(models={"thinker": "nano"}, config=config, resumed_at=1.0))
    assert again.finished is None and len(again.rounds) == 3
    assert (again.model, again.rounds_planned, again.budget_tok) == ("nano", 5, 99)


def test_what_the_user_did_is_kept_in_words() -> None:
    run = fold([RoundStopped(round=1), RoundsAdded(rounds=1)], fold(chatting.story(until_round=1, ended=False)))
    assert run.acts == ("you stopped round 1", "you asked for 1 more")
    assert run.rounds[0].stopped and run.rounds_planned == 4


def test_a_failed_step_keeps_what_was_written_before() -> None:
    events = chatting.story(until_round=1, ended=False)
    at = next(n for n, e in enumerate(events) if isinstance(e, TextDelta))
    failed = StepFailed(round=1, role="thinker", stage="draft", candidate=0, error="gone")
    step = fold([*events[: at + 1], failed]).rounds[0].steps[1]
    assert (step.status, step.error, step.thinking) == ("failed", "gone", chatting.THINKING)


texts = st.lists(st.sampled_from(["nacre", "is", "tough", ".", " ", "\n", "4.5", "tablets", "漢", "*"])).map("".join)


@given(texts, texts)
def test_a_diff_gives_both_texts_back(old: str, new: str) -> None:
    pieces = word_diff(old, new)
    assert "".join(p.text for p in pieces if p.kind != "gone") == new
    assert "".join(p.text for p in pieces if p.kind != "new") == old


def test_a_diff_counts_words() -> None:
    assert change(word_diff("nacre is tough", "nacre is very tough indeed")) == (0, 2)


def test_a_long_diff_is_made_by_lines() -> None:
    old = "\n".join(f"line {n} of a long answer" for n in range(2000))
    pieces = word_diff(old, old.replace("line 7 ", "LINE 7 "))
    assert [p.text for p in pieces if p.kind == "new"] == ["LINE 7 of a long answer\n"]


def test_the_state_and_the_driver_know_nothing_of_textual() -> None:
    modules = [f"preflexor_tui.state.{p.stem}" for p in (PACKAGE / "state").glob("*.py") if p.stem != "__init__"]
    modules += [
        f"preflexor_tui.{name}" for name in ("driver", "log", "journal", "engine", "conversation", "setup", "slash")
    ]
    code = f"import sys, {', '.join(modules)}; print([m for m in sys.modules if m == 'textual' or m == 'torch'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
