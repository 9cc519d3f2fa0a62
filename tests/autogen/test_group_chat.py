from dataclasses import replace

import pytest

from preflexor_agents.autogen.group_chat import ReflectionGroupChat, reflection_team
from preflexor_agents.autogen.transcript import watched
from preflexor_agents.events import Event, RoundStarted, RunStarted, StepFinished, StepStarted
from preflexor_agents.reflection import engine
from preflexor_agents.reflection.perform import Control
from tests.autogen.voices import CONFIG, QUESTION, Shelf, Voices, cast_of, end_of, told, written


async def chat(team: ReflectionGroupChat, task: str | None = QUESTION) -> list[Event]:
    events = []
    async for message in team.run_stream(task=task):
        event = watched(message)
        if event is not None:
            events.append(event)
    return events


@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize("variant", ["critic", "self"])
@pytest.mark.parametrize("shelf", [None, Shelf()], ids=["alone", "library"])
async def test_the_group_chat_tells_the_same_events_as_the_engine(candidates, variant, shelf):
    config = replace(CONFIG, candidates=candidates, variant=variant, rounds=3)
    cast = cast_of(Voices())
    run = engine.run(QUESTION, cast=cast, config=config, library=shelf, store="s" if shelf else None)
    alone = [event async for event in run]
    store = "s" if shelf else None
    events = await chat(reflection_team(cast, config=config, library=shelf, store=store))
    assert told(events) == told(alone)
    assert written(events) == written(alone)


async def test_what_the_user_says_counts_from_the_next_round_on():
    control = Control()
    team = reflection_team(cast_of(Voices()), config=CONFIG, control=control)
    events = []
    async for message in team.run_stream(task=QUESTION):
        event = watched(message)
        if event is not None:
            events.append(event)
            if isinstance(event, StepStarted) and event.stage == "draft":
                control.said.append("use SI units")
    rounds = [e for e in events if isinstance(e, RoundStarted)]
    assert [r.steering for r in rounds] == [(), ("use SI units",)]


async def test_a_stop_ends_the_run_with_the_best_answer_so_far():
    control = Control()
    team = reflection_team(cast_of(Voices()), config=CONFIG, control=control)
    events = []
    async for message in team.run_stream(task=QUESTION):
        event = watched(message)
        if event is not None:
            events.append(event)
            if isinstance(event, StepFinished) and event.stage == "critique":
                control.stop.set()
    assert end_of(events).stop_reason == "cancelled" and end_of(events).answer == "It is 87."


async def test_a_second_question_is_answered_in_the_same_team():
    team = reflection_team(cast_of(Voices()), config=CONFIG)
    await chat(team)
    events = await chat(team, "How tough is bone?")
    started = [e for e in events if isinstance(e, RunStarted)]
    assert [e.question for e in started] == ["How tough is bone?"]
    assert end_of(events).stop_reason == "rounds"


async def test_a_reset_team_answers_as_a_new_one():
    voices = Voices()
    team = reflection_team(cast_of(voices), config=CONFIG)
    first = await chat(team)
    await team.reset()
    assert told(await chat(team)) == told(first)
