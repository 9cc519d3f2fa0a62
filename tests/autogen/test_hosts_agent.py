"""The agent in every host construct of AutoGen."""

import asyncio
import inspect
import json

import pytest
from autogen_agentchat.agents import AssistantAgent, SocietyOfMindAgent
from autogen_agentchat.conditions import (
    MaxMessageTermination,
    SourceMatchTermination,
    TokenUsageTermination,
)
from autogen_agentchat.messages import BaseChatMessage, ThoughtEvent
from autogen_agentchat.teams import (
    DiGraphBuilder,
    GraphFlow,
    MagenticOneGroupChat,
    RoundRobinGroupChat,
    SelectorGroupChat,
    Swarm,
)
from autogen_agentchat.tools import AgentTool
from autogen_core import CancellationToken

from preflexor_agents.autogen.reflect_agent import ReflectAgent
from tests.autogen.hosts import Peer, caller, client, ledger, texts, tool_call
from tests.autogen.voices import ANSWER, CONFIG, QUESTION, Gate, Voices


def reflect(voices: Voices | None = None) -> ReflectAgent:
    return ReflectAgent("reflect", voices or Voices(), config=CONFIG)


async def test_in_a_round_robin_the_peers_hear_the_answer_only():
    peer = Peer("peer")
    team = RoundRobinGroupChat([reflect(), peer], max_turns=2)
    assert await texts(team.run_stream(task=QUESTION)) == [("reflect", ANSWER), ("peer", "I see.")]
    assert [m.to_text() for m in peer.heard] == [QUESTION, ANSWER]


async def test_a_selector_picks_it_by_its_description():
    model = client("reflect")
    team = SelectorGroupChat([reflect(), Peer("peer")], model_client=model, max_turns=1)
    assert await texts(team.run_stream(task=QUESTION)) == [("reflect", ANSWER)]
    assert "rounds of thinking" in str(model.create_calls[0]["messages"])


async def test_in_a_swarm_it_takes_over_by_a_handoff():
    voices = Voices()
    first = AssistantAgent("first", client(tool_call("transfer_to_reflect")), handoffs=["reflect"])
    team = Swarm([first, reflect(voices)], termination_condition=SourceMatchTermination(["reflect"]))
    said = await texts(team.run_stream(task=QUESTION))
    assert said[-1] == ("reflect", ANSWER)
    assert voices.requests[0].messages[-1].content.startswith(f"Question: {QUESTION}\n")


async def test_in_magentic_one_it_answers_the_orchestrator():
    orchestrator = client(
        "facts",
        "plan",
        ledger(done=False, speaker="reflect", task="Say how tough nacre is."),
        ledger(done=True, speaker="reflect", task=""),
        "The final word.",
    )
    voices = Voices()
    team = MagenticOneGroupChat([reflect(voices), Peer("peer")], model_client=orchestrator)
    said = await texts(team.run_stream(task=QUESTION))
    assert ("reflect", ANSWER) in said and said[-1][1] == "The final word."
    assert "Say how tough nacre is." in voices.requests[0].messages[-1].content


async def test_in_a_graph_it_is_a_node_and_the_next_node_hears_the_answer():
    first, last = Peer("first", "Think of nacre."), Peer("last")
    middle = reflect()
    graph = DiGraphBuilder()
    for node in (first, middle, last):
        graph.add_node(node)
    graph.add_edge(first, middle).add_edge(middle, last)
    flow = GraphFlow(participants=graph.get_participants(), graph=graph.build())
    said = await texts(flow.run_stream(task=QUESTION))
    assert said[:3] == [("first", "Think of nacre."), ("reflect", ANSWER), ("last", "I see.")]
    assert ANSWER in [m.to_text() for m in last.heard]


async def test_a_graph_loops_through_it_until_a_peer_is_content():
    peer = Peer("peer", "Once more.")
    middle = reflect()
    graph = DiGraphBuilder()
    graph.add_node(middle).add_node(peer).add_edge(middle, peer, condition=ANSWER)
    graph.add_edge(peer, middle, condition="Once more.")
    graph.set_entry_point(middle)
    end = Peer("end")
    graph.add_node(end).add_edge(peer, end, condition="APPROVE")
    flow = GraphFlow(graph.get_participants(), graph.build(), termination_condition=MaxMessageTermination(5))
    said = await texts(flow.run_stream(task=QUESTION))
    assert [who for who, _ in said] == ["reflect", "peer", "reflect", "peer"]


async def test_a_society_of_mind_has_it_as_its_inner_team():
    model = client("In one voice: 4.5.", "And again: 4.5.")
    society = SocietyOfMindAgent("society", RoundRobinGroupChat([reflect()], max_turns=1), model_client=model)
    outer = RoundRobinGroupChat([society, Peer("peer")], max_turns=3)
    said = await texts(outer.run_stream(task=QUESTION))
    assert ("society", "In one voice: 4.5.") in said
    assert ANSWER in str(model.create_calls[0]["messages"])


async def test_it_is_a_tool_of_another_agent():
    last_only = "return_value_as_last_message" in inspect.signature(AgentTool).parameters  # since AutoGen 0.6
    tool = AgentTool(reflect(), return_value_as_last_message=True) if last_only else AgentTool(reflect())
    boss = caller(tool, "reflect", QUESTION)
    result = await boss.run(task="Ask reflect.")
    assert result.messages[-1].to_text() == (ANSWER if last_only else f"reflect: {ANSWER}")
    assert await tool.save_state_json()


async def test_a_cancelled_team_can_run_again():
    gate, token = Gate("critique"), CancellationToken()
    voices = Voices(hold=gate)
    team = RoundRobinGroupChat([reflect(voices), Peer("peer")], max_turns=3)
    task = asyncio.create_task(team.run(task=QUESTION, cancellation_token=token))
    await gate.reached.wait()
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open.set()
    assert voices.open_streams == 0
    said = await texts(team.run_stream(task="And bone?"))
    assert said == [("peer", "I see."), ("reflect", ANSWER)]  # goes on with the turn after the cancelled one
    assert "And bone?" in voices.requests[-1].messages[-1].content


async def test_a_team_whose_task_was_cancelled_can_run_again_after_a_reset():
    gate = Gate("critique")
    voices = Voices(hold=gate)
    team = RoundRobinGroupChat([reflect(voices)], max_turns=1)
    token = CancellationToken()
    task = asyncio.create_task(team.run(task=QUESTION, cancellation_token=token))
    await gate.reached.wait()
    token.cancel()
    await asyncio.wait([task])
    gate.open.set()
    await team.reset()
    assert await texts(team.run_stream(task=QUESTION)) == [("reflect", ANSWER)]


async def test_a_team_saved_in_the_middle_of_a_round_goes_on_in_another_one():
    gate = Gate("revise")
    team = RoundRobinGroupChat([reflect(Voices(hold=gate)), Peer("peer")], max_turns=2)
    task = asyncio.create_task(team.run(task=QUESTION))
    await gate.reached.wait()
    state = json.loads(json.dumps(await team.save_state()))
    gate.open.set()
    await task
    voices = Voices()
    other = RoundRobinGroupChat([reflect(voices), Peer("peer")], max_turns=1)
    for manager in (v for k, v in state["agent_states"].items() if k.endswith("Manager")):
        manager["next_speaker_index"] = 0
    await other.load_state(state)
    assert await texts(other.run_stream()) == [("reflect", ANSWER)]
    assert voices.stages[0] == "revise"


async def test_conditions_of_others_count_each_call_once():
    team = RoundRobinGroupChat([reflect()], max_turns=1)
    result = await team.run(task=QUESTION)
    used = int(result.messages[-1].metadata["tokens_generated"])
    assert await TokenUsageTermination(max_completion_token=used)(result.messages) is not None
    assert await TokenUsageTermination(max_completion_token=used + 1)(result.messages) is None


async def test_thoughts_stay_out_of_the_selectors_prompt():
    model = client("reflect", "peer")
    team = SelectorGroupChat([reflect(), Peer("peer")], model_client=model, max_turns=2, allow_repeated_speaker=True)
    result = await team.run(task=QUESTION)
    assert any(isinstance(m, ThoughtEvent) for m in result.messages)
    prompt = str(model.create_calls[1]["messages"])
    assert ANSWER in prompt and "Wrong number" not in prompt


async def test_two_in_one_team_answer_one_another():
    team = RoundRobinGroupChat([reflect(), ReflectAgent("other", Voices(), config=CONFIG)], max_turns=2)
    result = await team.run(task=QUESTION)
    said = [m.source for m in result.messages if isinstance(m, BaseChatMessage)]
    assert said == ["user", "reflect", "other"]
