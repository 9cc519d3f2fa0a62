import asyncio
import json
from contextlib import aclosing
from dataclasses import replace

import pytest
from autogen_agentchat.conditions import SourceMatchTermination
from autogen_agentchat.messages import BaseChatMessage, ModelClientStreamingChunkEvent, TextMessage
from autogen_core import CancellationToken, SingleThreadedAgentRuntime

from preflexor_agents.autogen.group_chat import ReflectionGroupChat, reflection_team
from preflexor_agents.autogen.transcript import watched
from preflexor_agents.errors import InputError
from preflexor_agents.events import Event, RoundStarted, RunStarted, StepFinished, StepStarted
from preflexor_agents.reflection import engine
from preflexor_agents.reflection.perform import Control
from tests.autogen.voices import (
    ANSWER,
    CONFIG,
    QUESTION,
    Gate,
    Shelf,
    Voices,
    cast_of,
    end_of,
    told,
    with_teams,
    written,
)

pytestmark = with_teams


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
    gate, control = Gate("revise"), Control()
    team = reflection_team(cast_of(Voices(hold=gate)), config=CONFIG, control=control)
    task = asyncio.create_task(chat(team))
    await gate.reached.wait()
    control.stop.set()
    end = end_of(await task)
    assert end.stop_reason == "cancelled" and end.answer == "It is 87."


async def test_a_cancelled_token_ends_the_run_with_the_best_answer_so_far():
    gate, token = Gate("revise"), CancellationToken()
    team = reflection_team(cast_of(Voices(hold=gate)), config=CONFIG)
    task = asyncio.create_task(team.run(task=QUESTION, cancellation_token=token))
    await gate.reached.wait()
    token.cancel()
    result = await task
    assert result.stop_reason == "cancelled" and result.messages[-1].to_text() == "It is 87."


async def test_a_cancelled_team_answers_the_next_question():
    gate, token = Gate("revise"), CancellationToken()
    team = reflection_team(cast_of(Voices(hold=gate)), config=CONFIG)
    task = asyncio.create_task(team.run(task=QUESTION, cancellation_token=token))
    await gate.reached.wait()
    token.cancel()
    await task
    gate.open.set()
    assert end_of(await chat(team, "And bone?")).stop_reason == "rounds"


async def test_a_cancelled_task_leaves_nothing_open_and_the_team_goes_on_where_it_was():
    gate = Gate("revise")
    voices = Voices(hold=gate)
    team = reflection_team(cast_of(voices), config=CONFIG)
    task = asyncio.create_task(team.run(task=QUESTION))
    await gate.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert voices.open_streams == 0
    gate.open.set()
    assert end_of(await chat(team, "And bone?")).answer == ANSWER


async def test_leaving_the_stream_early_ends_the_run_and_the_team_can_run_again():
    voices = Voices()
    team = reflection_team(cast_of(voices), config=CONFIG)
    async with aclosing(team.run_stream(task=QUESTION)) as stream:
        async for message in stream:
            if isinstance(message, ModelClientStreamingChunkEvent):
                break
    assert voices.open_streams == 0 and "integrate" not in voices.stages
    assert end_of(await chat(team, "And bone?")).answer == ANSWER


async def test_a_second_question_is_answered_in_the_same_team():
    team = reflection_team(cast_of(Voices()), config=CONFIG)
    await chat(team)
    events = await chat(team, "How tough is bone?")
    started = [e for e in events if isinstance(e, RunStarted)]
    assert [e.question for e in started] == ["How tough is bone?"]
    assert end_of(events).stop_reason == "rounds"


async def test_a_reset_team_answers_as_a_new_one():
    team = reflection_team(cast_of(Voices()), config=CONFIG)
    first = await chat(team)
    await team.reset()
    assert told(await chat(team)) == told(first)


@pytest.mark.parametrize("stage", ["draft", "critique", "revise", "answer", "judge", "integrate"])
async def test_a_run_saved_in_the_middle_goes_on_in_another_team(stage):
    gate = Gate(stage)
    config = replace(CONFIG, candidates=2)
    team = reflection_team(cast_of(Voices(hold=gate)), config=config, library=Shelf())
    task = asyncio.create_task(chat(team))
    await gate.reached.wait()
    state = json.loads(json.dumps(await team.save_state()))
    gate.open.set()
    whole = await task
    other = reflection_team(cast_of(Voices()), config=config, library=Shelf())
    await other.load_state(state)
    events = await chat(other, None)
    assert told(events)[-1] == told(whole)[-1]
    rest = [e for e in told(events) if isinstance(e, StepFinished)]
    assert rest and all(e in told(whole) for e in rest)
    assert len(rest) < sum(isinstance(e, StepFinished) for e in whole) or stage == "draft"


async def test_a_run_saved_at_any_moment_comes_to_the_same_end():
    """In between, a turn may have been told to some of the participants and not to others."""
    whole = told(await chat(reflection_team(cast_of(Voices()), config=CONFIG)))
    saved = []
    team = reflection_team(cast_of(Voices()), config=CONFIG)
    task = asyncio.create_task(chat(team))
    while not task.done():
        await asyncio.sleep(0)
        if team._manager is not None:
            saved.append(json.dumps(await team.save_state()))
    await task
    states = [state for n, state in enumerate(dict.fromkeys(saved)) if '"RunFinished"' not in state and n % 3 == 0]
    for state in states:
        other = reflection_team(cast_of(Voices()), config=CONFIG)
        await other.load_state(json.loads(state))
        if other._manager.transcript.question is not None:
            assert told(await chat(other, None))[-1] == whole[-1]
    assert len(states) > 10


async def test_the_time_between_save_and_load_is_not_of_the_budget():
    gate, config = Gate("revise"), replace(CONFIG, budget_s=60)
    team = reflection_team(cast_of(Voices(hold=gate)), config=config)
    task = asyncio.create_task(chat(team))
    await gate.reached.wait()
    text = json.dumps(await team.save_state())
    gate.open.set()
    await task
    state = json.loads(text)
    began = state["agent_states"]["ReflectionGroupChatManager"]["transcript"]["heard"][0]["started_at"]
    state = json.loads(text.replace(repr(began), repr(began - 3600)))
    state["saved_at"] -= 3600
    other = reflection_team(cast_of(Voices()), config=config)
    await other.load_state(state)
    assert end_of(await chat(other, None)).stop_reason == "rounds"


async def test_a_paused_team_waits_before_its_next_step():
    gate = Gate("critique")
    voices = Voices(hold=gate)
    team = reflection_team(cast_of(voices), config=CONFIG)
    task = asyncio.create_task(chat(team))
    await gate.reached.wait()
    await team.pause()
    gate.open.set()
    for _ in range(300):
        await asyncio.sleep(0)
    assert voices.stages == ["draft", "critique"] and not task.done()
    await team.resume()
    assert end_of(await task).answer == ANSWER


async def test_a_run_without_a_task_and_without_a_run_to_go_on_with_is_refused():
    team = reflection_team(cast_of(Voices()), config=CONFIG)
    with pytest.raises(InputError, match="give the team a task"):
        await team.run()
    await chat(team)
    with pytest.raises(InputError, match="give the team a task"):
        await team.run()


async def test_a_team_that_broke_off_answers_the_next_question():
    def broken(stage: str) -> None:
        if stage == "critique":
            raise ZeroDivisionError("a defect")  # no failure of ours: nobody makes it an event

    voices = Voices(hold=broken)
    team = reflection_team(cast_of(voices), config=CONFIG)
    with pytest.raises(RuntimeError, match="a defect"):
        await team.run(task=QUESTION)
    voices.hold = lambda stage: None
    assert end_of(await chat(team, "And bone?")).answer == ANSWER


async def test_a_condition_of_the_user_ends_the_chat_with_the_best_answer_so_far_and_it_can_go_on():
    voices = Voices()
    team = ReflectionGroupChat(model=voices, config=CONFIG, termination_condition=SourceMatchTermination(["reviser"]))
    result = await team.run(task=QUESTION)
    assert result.messages[-1].to_text() == "It is 87." and result.messages[-1].source == "reflection"
    assert "reviser" in str(result.stop_reason)
    result = await team.run()
    assert result.messages[-1].to_text() == ANSWER and voices.stages.count("draft") == 1


async def test_max_turns_ends_the_chat():
    team = ReflectionGroupChat(model=Voices(), config=CONFIG, max_turns=1)
    result = await team.run(task=QUESTION)
    assert "Maximum number of turns 1" in str(result.stop_reason)
    assert result.messages[-1].to_text() == "It is 87."


async def test_the_result_has_the_answer_once_and_no_notes_among_participants():
    team = ReflectionGroupChat(model=Voices(), config=CONFIG, name="team")
    result = await team.run(task=QUESTION)
    chat_messages = [(m.source, m.to_text()) for m in result.messages if isinstance(m, BaseChatMessage)]
    assert chat_messages == [("user", QUESTION), ("team", ANSWER)]


async def test_stages_can_be_text_messages_in_the_names_of_the_roles():
    team = ReflectionGroupChat(model=Voices(), config=CONFIG, emit="messages")
    result = await team.run(task=QUESTION)
    said = [(m.source, m.to_text()) for m in result.messages if isinstance(m, TextMessage)]
    assert ("critic", "Wrong number. Verdict: revise") in said and said[-1] == ("reflection", ANSWER)


async def test_each_call_has_its_usage_on_exactly_one_message():
    voices = Voices()
    result = await ReflectionGroupChat(model=voices, config=CONFIG).run(task=QUESTION)
    used = [m.models_usage for m in result.messages if m.models_usage is not None]
    assert len(used) == len(voices.requests)


async def test_the_last_words_of_another_agent_are_a_question_like_any_other():
    """Their metadata says how a run ended, which is no concern of this one."""
    earlier = (await ReflectionGroupChat(model=Voices(), config=CONFIG).run(task=QUESTION)).messages[-1]
    result = await ReflectionGroupChat(model=Voices(), config=CONFIG, name="second").run(task=earlier)
    assert result.messages[-1].source == "second" and result.messages[-1].to_text() == ANSWER


async def test_a_state_of_another_team_is_refused():
    with pytest.raises(InputError, match="only what a ReflectionGroupChat has saved"):
        await ReflectionGroupChat(model=Voices()).load_state({"type": "TeamState", "agent_states": {}})


async def test_it_lives_in_a_runtime_of_the_users():
    runtime = SingleThreadedAgentRuntime()
    team = ReflectionGroupChat(model=Voices(), config=CONFIG, runtime=runtime)
    runtime.start()
    for question in (QUESTION, "And bone?"):
        assert end_of(await chat(team, question)).answer == ANSWER
    await runtime.stop_when_idle()


async def test_a_run_cancelled_in_a_pause_ends_and_the_next_one_is_not_paused():
    gate, token = Gate("critique"), CancellationToken()
    team = reflection_team(cast_of(Voices(hold=gate)), config=CONFIG)
    task = asyncio.create_task(team.run(task=QUESTION, cancellation_token=token))
    await gate.reached.wait()
    await team.pause()
    gate.open.set()
    token.cancel()
    assert (await task).stop_reason == "cancelled"
    assert end_of(await chat(team)).answer == ANSWER
