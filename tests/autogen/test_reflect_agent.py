"""The agent by itself; in other people's teams: test_hosts.py."""

import asyncio
import json
from collections import Counter
from contextlib import aclosing
from dataclasses import replace

import pytest
from autogen_agentchat.base import Response, TaskResult
from autogen_agentchat.messages import (
    BaseAgentEvent,
    BaseChatMessage,
    MemoryQueryEvent,
    ModelClientStreamingChunkEvent,
    TextMessage,
    ThoughtEvent,
)
from autogen_core import CancellationToken

from preflexor_agents.autogen.reflect_agent import ReflectAgent
from preflexor_agents.autogen.transcript import watched
from preflexor_agents.config import ReflectConfig
from preflexor_agents.errors import BackendError, InputError, PreflexorError
from preflexor_agents.events import Cited, Event, StepFinished, TextDelta
from preflexor_agents.reflection import engine
from preflexor_agents.store import Store
from tests.autogen.voices import (
    ANSWER,
    CITED_ANSWER,
    CONFIG,
    QUESTION,
    Gate,
    Shelf,
    Voices,
    cast_of,
    told,
    with_ids,
    written,
)


def agent(voices: Voices | None = None, *, config: ReflectConfig = CONFIG, **given) -> ReflectAgent:
    return ReflectAgent("reflect", voices or Voices(), config=config, **given)


def asked(text: str = QUESTION) -> list[TextMessage]:
    return [TextMessage(content=text, source="user")]


async def stream(made: ReflectAgent, messages, token: CancellationToken | None = None):
    items = [item async for item in made.on_messages_stream(messages, token or CancellationToken())]
    return items[:-1], items[-1]


@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize("shelf", [None, Shelf()], ids=["alone", "library"])
async def test_the_agent_tells_the_same_events_as_the_engine(candidates, shelf):
    config = replace(CONFIG, candidates=candidates)
    store = "s" if shelf else None
    alone = [e async for e in engine.run(QUESTION, cast=cast_of(Voices()), config=config, library=shelf, store=store)]
    items, response = await stream(agent(config=config, library=shelf, store=store), asked())
    events: list[Event] = [e for e in map(watched, [*items, response.chat_message]) if e is not None]
    assert told(events) == told(alone)
    assert written(events) == {place: text for place, text in written(alone).items() if place[2] == 0}


async def test_peers_get_one_message_with_the_answer_and_what_it_took():
    _, response = await stream(agent(), asked())
    assert response.chat_message.content == ANSWER
    assert response.chat_message.source == "reflect" and response.chat_message.models_usage is None
    data = response.chat_message.metadata
    assert data["stop_reason"] == "rounds" and data["rounds"] == "2" and int(data["tokens_generated"]) > 0


async def test_stages_are_built_in_events_with_labels():
    items, response = await stream(agent(library=Shelf()), asked())
    kinds = {type(item) for item in items}
    assert kinds == {ThoughtEvent, MemoryQueryEvent, ModelClientStreamingChunkEvent}
    drafted = next(i for i in items if isinstance(i, ThoughtEvent) and isinstance(watched(i), StepFinished))
    assert {k: drafted.metadata[k] for k in ("stage", "role", "round", "candidate")} == {
        "stage": "draft",
        "role": "thinker",
        "round": "1",
        "candidate": "0",
    }
    assert "1.0" in [i.metadata.get("score") for i in items]
    assert all(isinstance(v, str) for i in items for v in i.metadata.values())
    assert response.inner_messages == [i for i in items if not isinstance(i, ModelClientStreamingChunkEvent)]


async def test_found_passages_come_as_a_memory_event_with_scores():
    items, _ = await stream(agent(library=Shelf()), asked())
    found = next(i for i in items if isinstance(i, MemoryQueryEvent))
    assert [m.metadata["score"] for m in found.content] == [0.5, 0.5]
    assert found.content[0].metadata["source"] == "note1.md" and "4.5 MPa" in found.content[0].content


async def test_stages_can_be_text_messages():
    items, response = await stream(agent(emit="messages", library=Shelf()), asked())
    texts = [i for i in items if isinstance(i, TextMessage)]
    stages = [i.metadata["stage"] for i in texts if "stage" in i.metadata]
    assert stages[:3] == ["draft", "critique", "revise"] and {i.source for i in texts} == {"reflect"}
    assert any(i.content.startswith("Found [1] Note 1") for i in texts)
    assert response.chat_message.content == CITED_ANSWER


async def test_each_call_has_its_usage_on_exactly_one_message():
    voices = Voices()
    result = await agent(voices, config=replace(CONFIG, candidates=2)).run(task=QUESTION)
    used = [m.models_usage for m in result.messages if m.models_usage is not None]
    assert len(used) == len(voices.requests)
    generated = int(result.messages[-1].metadata["tokens_generated"])
    assert sum(u.completion_tokens for u in used) == generated


@with_ids
async def test_chunks_name_the_message_that_will_hold_their_text():
    items, _ = await stream(agent(), asked())
    texts: Counter[str] = Counter()
    whole = {i.id: watched(i) for i in items if isinstance(i, ThoughtEvent)}
    for chunk in (i for i in items if isinstance(i, ModelClientStreamingChunkEvent)):
        step = whole[chunk.full_message_id]
        assert isinstance(step, StepFinished) and step.stage == chunk.metadata["stage"]
        texts[chunk.full_message_id] += 1
    assert len(texts) == sum(isinstance(e, StepFinished) and e.candidate == 0 for e in whole.values())


async def test_run_gives_the_answer_last():
    result = await agent().run(task=QUESTION)
    assert isinstance(result, TaskResult) and result.messages[-1].content == ANSWER


async def test_the_first_question_reaches_the_model_as_it_is():
    voices = Voices()
    await agent(voices).run(task=QUESTION)
    assert voices.requests[0].messages[-1].content.startswith(f"Question: {QUESTION}\n")


async def test_a_follow_up_question_comes_with_the_conversation():
    voices = Voices()
    made = agent(voices)
    await made.run(task=QUESTION)
    before = len(voices.requests)
    await made.run(task="And bone?")
    prompt = voices.requests[before].messages[-1].content
    assert f"user: {QUESTION}\nreflect: {ANSWER}\nuser: And bone?" in prompt


async def test_a_long_conversation_is_cut_to_a_part_of_the_context():
    voices = Voices(context_tok=100)
    made = agent(voices)
    await made.run(task="old " * 29)
    before = len(voices.requests)
    await made.run(task="And bone?")
    prompt = voices.requests[before].messages[-1].content
    assert "old old" not in prompt and "And bone?" in prompt


async def test_messages_of_several_sources_are_one_question():
    voices = Voices()
    await stream(agent(voices), [*asked(), TextMessage(content="I say 87.", source="writer")])
    assert f"user: {QUESTION}\nwriter: I say 87." in voices.requests[0].messages[-1].content


@with_ids
async def test_a_message_delivered_again_is_not_asked_again():
    voices, messages = Voices(), asked()
    made = agent(voices)
    first = await made.on_messages(messages, CancellationToken())
    calls = len(voices.requests)
    second = await made.on_messages(messages, CancellationToken())
    assert len(voices.requests) == calls and second.chat_message == first.chat_message


async def test_without_any_message_it_says_that_nothing_was_asked():
    response = await agent().on_messages([], CancellationToken())
    assert response.chat_message.content == "Nothing was asked."


async def test_a_cancelled_token_gives_the_best_answer_so_far():
    token = CancellationToken()
    made, items = agent(), []
    async for item in made.on_messages_stream(asked(), token):
        items.append(item)
        if isinstance(item, BaseAgentEvent) and item.metadata.get("stage") == "critique":
            token.cancel()
    assert isinstance(items[-1], Response)
    assert items[-1].chat_message.content == "It is 87."
    assert items[-1].chat_message.metadata["stop_reason"] == "cancelled"


async def test_a_token_cancelled_before_the_start_gives_an_answer_message_at_once():
    token = CancellationToken()
    token.cancel()
    voices = Voices()
    response = await agent(voices).on_messages(asked(), token)
    assert response.chat_message.content == "No answer." and not voices.requests


async def test_cancelling_the_token_of_an_earlier_run_does_not_touch_this_one():
    token, made = CancellationToken(), agent()
    await made.run(task=QUESTION, cancellation_token=token)
    items = []
    async for item in made.run_stream(task="And bone?"):
        items.append(item)
        if len(items) == 3:
            token.cancel()
            await asyncio.sleep(0)
    assert items[-1].messages[-1].metadata["stop_reason"] == "rounds"


async def test_a_cancelled_task_leaves_no_call_open_and_the_run_can_go_on():
    voices = Voices(hold=(gate := Gate("critique")))
    made, messages = agent(voices), asked()
    task = asyncio.create_task(made.on_messages(messages, CancellationToken()))
    await gate.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert voices.open_streams == 0
    gate.open.set()
    response = await made.on_messages(messages, CancellationToken())
    assert response.chat_message.content == ANSWER
    assert voices.stages.count("draft") == 1 and voices.stages.count("critique") == 2


async def test_two_runs_at_once_are_refused():
    gate = Gate("draft")
    made = agent(Voices(hold=gate))
    task = asyncio.create_task(made.run(task=QUESTION))
    await gate.reached.wait()
    with pytest.raises(PreflexorError, match="reflect is answering already"):
        await made.run(task="And bone?")
    gate.open.set()
    assert (await task).messages[-1].content == ANSWER


async def test_a_run_saved_in_the_middle_of_a_round_goes_on_from_its_last_finished_step():
    gate = Gate("revise")
    first = agent(Voices(hold=gate))
    task = asyncio.create_task(first.run(task=QUESTION))
    await gate.reached.wait()
    state = json.loads(json.dumps(await first.save_state()))
    gate.open.set()
    expected = (await task).messages[-1]
    voices = Voices()
    second = agent(voices)
    await second.load_state(state)
    response = await second.on_messages([], CancellationToken())
    assert response.chat_message.content == expected.content
    assert voices.stages[0] == "revise" and "draft" not in voices.stages
    assert response.chat_message.metadata["tokens_generated"] == expected.metadata["tokens_generated"]


async def test_the_time_between_save_and_load_is_not_of_the_budget(monkeypatch):
    gate = Gate("revise")
    first = agent(Voices(hold=gate), config=replace(CONFIG, budget_s=60))
    task = asyncio.create_task(first.run(task=QUESTION))
    await gate.reached.wait()
    state = dict(await first.save_state())
    gate.open.set()
    await task
    hour_s = 3600.0
    state["saved_at"] -= hour_s
    state["transcript"]["heard"][0]["started_at"] -= hour_s
    second = agent(config=replace(CONFIG, budget_s=60))
    await second.load_state(state)
    response = await second.on_messages([], CancellationToken())
    assert response.chat_message.metadata["stop_reason"] == "rounds"


async def test_a_state_of_something_else_is_refused():
    with pytest.raises(InputError, match="AssistantAgentState"):
        await agent().load_state({"type": "AssistantAgentState", "version": "1.0.0"})


async def test_a_paused_run_waits_before_its_next_step_and_its_time_does_not_count():
    gate = Gate("draft")
    voices = Voices(hold=gate)
    made = agent(voices)
    task = asyncio.create_task(made.run(task=QUESTION))
    await gate.reached.wait()
    await made.on_pause(CancellationToken())
    gate.open.set()
    for _ in range(200):
        await asyncio.sleep(0)
    assert voices.stages == ["draft"] and not task.done()
    await made.on_resume(CancellationToken())
    assert (await task).messages[-1].content == ANSWER
    assert len(made._table.pauses.spans) == 1


async def test_a_paused_run_can_be_cancelled():
    gate, token = Gate("draft"), CancellationToken()
    made = agent(Voices(hold=gate))
    task = asyncio.create_task(made.run(task=QUESTION, cancellation_token=token))
    await gate.reached.wait()
    await made.on_pause(CancellationToken())
    gate.open.set()
    token.cancel()
    assert (await task).messages[-1].metadata["stop_reason"] == "cancelled"


async def test_a_token_may_be_cancelled_from_another_thread():
    gate, token = Gate("critique"), CancellationToken()
    task = asyncio.create_task(agent(Voices(hold=gate)).run(task=QUESTION, cancellation_token=token))
    await gate.reached.wait()
    await asyncio.to_thread(token.cancel)
    assert (await task).messages[-1].metadata["stop_reason"] == "cancelled"


async def test_a_store_named_by_its_path_is_opened_searched_and_closed(tmp_path):
    note = tmp_path / "nacre.md"
    note.write_text("# Nacre\n\nNacre has a fracture toughness of 4.5 MPa m^0.5.\n", encoding="utf-8")
    path = tmp_path / "store.db"
    store = Store.open(path, embedder="hash")
    store.ingest([note])
    store.close()
    made = agent(store=str(path))
    items, _ = await stream(made, asked())
    assert any("fracture toughness" in m.content for i in items if isinstance(i, MemoryQueryEvent) for m in i.content)
    cited = next(e for e in map(watched, items) if isinstance(e, Cited))
    assert cited.citations and cited.citations[0].source.endswith("nacre.md")
    await made.close()
    assert (await made.run(task="And bone?")).messages[-1].to_text() == CITED_ANSWER
    await made.close()


async def test_a_reset_agent_knows_nothing_of_the_conversation():
    voices = Voices()
    made = agent(voices)
    await made.run(task=QUESTION)
    await made.on_reset(CancellationToken())
    before = len(voices.requests)
    await made.run(task="And bone?")
    assert voices.requests[before].messages[-1].content.startswith("Question: And bone?\n")


async def test_a_failing_model_gives_a_message_that_says_so():
    response = await agent(Voices({"draft": BackendError("server gone")})).on_messages(asked(), CancellationToken())
    assert response.chat_message.content == "No answer: server gone"
    assert response.chat_message.metadata["stop_reason"] == "failed"


async def test_what_the_user_says_in_between_is_heeded():
    voices = Voices()
    made = agent(voices)
    async for item in made.run_stream(task=QUESTION):
        if isinstance(item, BaseAgentEvent | BaseChatMessage) and item.metadata.get("stage") == "draft":
            made.control.said[:] = ["use SI units"] if not made.control.said else made.control.said
    assert any("The user adds: use SI units" in r.messages[-1].content for r in voices.requests[1:])


async def test_leaving_the_stream_early_leaves_no_call_open():
    voices = Voices()
    made = agent(voices)
    async with aclosing(made.run_stream(task=QUESTION)) as items:
        async for item in items:
            if isinstance(item, ModelClientStreamingChunkEvent):
                break
    assert voices.open_streams == 0
    assert (await made.run(task="And bone?")).messages[-1].content == ANSWER


async def test_given_backends_stay_open_when_the_agent_is_closed():
    voices = Voices()
    made = agent(voices)
    await made.run(task=QUESTION)
    await made.close()
    assert voices.closed == 0


async def test_text_is_given_out_at_most_every_25_ms_and_the_first_piece_at_once():
    from preflexor_agents.autogen.playing import coalesced

    async def pieces():
        for n in range(100):
            yield TextDelta(round=1, role="thinker", stage="draft", channel="answer", text=f"{n} ")

    now = iter(n / 1000 for n in range(1000))
    joined = [e async for e in coalesced(pieces(), clock=lambda: next(now))]
    assert joined[0].text == "0 " and len(joined) < 12
    assert "".join(e.text for e in joined) == "".join(f"{n} " for n in range(100))
