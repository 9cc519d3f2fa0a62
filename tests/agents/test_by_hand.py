"""The user's hand in the protocol: a stopped round, a ruling, more rounds, a run that goes on."""

from dataclasses import asdict, replace

import pytest

from preflexor_agents import session
from preflexor_agents.backends.scripted import ScriptedBackend
from preflexor_agents.config import ReflectConfig
from preflexor_agents.errors import TraceError
from preflexor_agents.events import (
    Event,
    Resumed,
    RoundFinished,
    RoundsAdded,
    RoundStarted,
    RoundStopped,
    Ruled,
    RunFinished,
    RunStarted,
    StepFinished,
    TextDelta,
    from_json,
    to_json,
)
from preflexor_agents.reflection.perform import Control
from preflexor_agents.reflection.protocol import next_step
from preflexor_agents.reflection.state import State, advance, start
from preflexor_agents.reflection.steps import Generate, OpenRound
from preflexor_agents.report import report

CONFIG = ReflectConfig(rounds=2)
AT = {"round": 1, "role": "thinker", "stage": "draft"}


def state_after(*events: Event, config: ReflectConfig = CONFIG) -> State:
    state = start(RunStarted(question="q", models={}, config=asdict(config), started_at=0.0))
    for event in events:
        state = advance(state, event)
    return state


def round_of(n: int, answer: str, *, accepted: bool = True) -> list[Event]:
    finished = RoundFinished(round=n, thinking=f"t{n}", answer=answer, accepted=accepted, reason="")
    return [RoundStarted(round=n), finished]


def best(state: State) -> str:
    assert state.best is not None
    return state.best.answer


@pytest.mark.parametrize(
    "event",
    [
        RoundStopped(round=2),
        Ruled(round=1, accepted=False),
        RoundsAdded(rounds=2),
        Resumed(models={"thinker": "nano"}, config=asdict(CONFIG), resumed_at=1.5, spent_s=2.0),
        RunStarted(question="q", models={}, config={}, started_at=0.0, earlier=("user: a", "you: b")),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_the_user_does_goes_through_a_trace(event: Event) -> None:
    assert from_json(to_json(event)) == event


def test_a_trace_from_before_says_nothing_of_a_conversation() -> None:
    old = to_json(RunStarted(question="q", models={}, config={}, started_at=0.0))
    del old["earlier"]
    assert from_json(old) == RunStarted(question="q", models={}, config={}, started_at=0.0)


def test_a_stopped_draft_counts_as_far_as_it_came() -> None:
    partial = StepFinished(**AT, thinking="half a", answer="", finish_reason="cancelled")
    step = next_step(state_after(RoundStarted(round=1), partial, RoundStopped(round=1)))
    assert isinstance(step, RoundFinished) and step.accepted and step.thinking == "half a"


def test_a_round_stopped_before_anything_was_written_is_drafted_anew_in_the_next() -> None:
    state = state_after(RoundStarted(round=1), RoundStopped(round=1))
    step = next_step(state)
    assert isinstance(step, RoundFinished) and not step.accepted
    state = advance(state, step)
    opened = next_step(state)
    assert isinstance(opened, OpenRound) and opened.round == 2
    draft = next_step(advance(state, RoundStarted(round=2)))
    assert isinstance(draft, Generate) and (draft.stage, draft.round) == ("draft", 2)


def test_a_stopped_merging_is_left_out() -> None:
    state = state_after(*round_of(1, "one"), *round_of(2, "two"))
    merging = next_step(state)
    assert isinstance(merging, Generate) and merging.stage == "integrate"
    step = next_step(advance(state, RoundStopped(round=2)))
    assert isinstance(step, RunFinished) and step.answer == "two"


def test_the_answer_that_was_taken_last_stands() -> None:
    events = [*round_of(1, "one"), *round_of(2, "two", accepted=False)]
    assert best(state_after(*events)) == "one"
    assert best(state_after(*events, Ruled(round=2, accepted=True))) == "two"
    both = [*events, Ruled(round=2, accepted=True)]
    assert best(state_after(*both, Ruled(round=1, accepted=True))) == "one"
    assert best(state_after(*both, Ruled(round=2, accepted=False))) == "one"


@pytest.mark.parametrize("ruled", [Ruled(round=1, accepted=False), Ruled(round=9, accepted=True)])
def test_a_ruling_that_leaves_no_answer_or_names_no_round_changes_nothing(ruled: Ruled) -> None:
    before = state_after(*round_of(1, "one"))
    assert advance(before, ruled) == before


def test_answers_are_not_merged_once_the_user_has_chosen() -> None:
    state = state_after(*round_of(1, "one"), *round_of(2, "two", accepted=False), Ruled(round=2, accepted=True))
    step = next_step(state)
    assert isinstance(step, RunFinished) and (step.answer, step.best_round) == ("two", 2)


def test_more_rounds_come_even_after_there_was_nothing_left_to_improve() -> None:
    converged = replace(round_of(2, "two")[1], converged=True)
    state = state_after(*round_of(1, "one"), RoundStarted(round=2), converged, RoundsAdded(rounds=1))
    step = next_step(state)
    assert isinstance(step, OpenRound) and step.round == 3


def test_a_run_that_ended_goes_on_with_what_holds_from_then_on() -> None:
    ended = RunFinished(answer="one", stop_reason="rounds", best_round=1)
    config = asdict(replace(CONFIG, rounds=2, seed=7))
    state = state_after(
        *round_of(1, "one"), ended, Resumed(models={}, config=config, resumed_at=1.0), config=ReflectConfig(rounds=1)
    )
    step = next_step(state)
    assert isinstance(step, OpenRound) and step.round == 2 and state.config.seed == 7


def test_the_report_tells_what_was_ruled_by_hand() -> None:
    rounds = report([*round_of(1, "one"), *round_of(2, "two", accepted=False), Ruled(round=2, accepted=True)])["rounds"]
    assert rounds[1]["accepted"] and rounds[1]["reason"] == "taken by hand"


def script(request: object) -> str:
    return "<|thinking|>t<|/thinking|>It is 4.5."


async def test_a_session_resumes_a_finished_run_and_ends_it_again() -> None:
    cast = dict.fromkeys(session.MODEL_ROLES, ScriptedBackend(script))
    before = [e async for e in session.ask("q", cast=cast, config=ReflectConfig(rounds=1))]
    assert isinstance(before[-1], RunFinished)
    config = ReflectConfig(rounds=2, converge=False)
    after = [e async for e in session.resume(before, cast=cast, config=config)]
    assert isinstance(after[0], Resumed) and isinstance(after[-1], RunFinished)
    assert [e.round for e in after if isinstance(e, RoundStarted)] == [2]


async def test_a_ruling_after_the_end_needs_no_model() -> None:
    backend = ScriptedBackend(script)
    cast = dict.fromkeys(session.MODEL_ROLES, backend)
    config = ReflectConfig(rounds=1)
    before = [e async for e in session.ask("q", cast=cast, config=config)]
    calls = len(backend.requests)
    control = Control(orders=[Ruled(round=1, accepted=True)])
    after = [e async for e in session.resume(before, cast=cast, config=config, control=control)]
    assert [type(e) for e in after if not isinstance(e, TextDelta)] == [Resumed, Ruled, RunFinished]
    assert len(backend.requests) == calls


async def test_only_a_run_can_go_on() -> None:
    with pytest.raises(TraceError, match="no run to go on with"):
        await anext(session.resume([], cast={}, config=CONFIG))
