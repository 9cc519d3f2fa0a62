"""Clients, memory, tools and conditions with a stock assistant in every host construct of AutoGen."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from autogen_agentchat.agents import AssistantAgent, SocietyOfMindAgent
from autogen_agentchat.base import ChatAgent, Handoff, TaskResult, TaskRunner, TerminationCondition
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import (
    DiGraphBuilder,
    GraphFlow,
    MagenticOneGroupChat,
    RoundRobinGroupChat,
    SelectorGroupChat,
    Swarm,
)
from autogen_agentchat.tools import AgentTool, TeamTool
from autogen_core.models import ChatCompletionClient

from preflexor_agents.autogen import (
    AddFindingTool,
    BudgetTermination,
    KnowledgeMemory,
    LlamaCppClient,
    OllamaClient,
    SearchKnowledgeTool,
)
from preflexor_agents.store import Store
from tests.autogen.hosts import Peer, caller, client, ledger, tool_call
from tests.autogen.shelf import make_store
from tests.fakes.ollama_stub import OllamaStub, StubModel, says

QUESTION = "How tough is nacre?"
ANSWER = "About 4.5 MPa m^0.5."
Host = Callable[[ChatAgent, TerminationCondition | None], TaskRunner]


def round_robin(agent: ChatAgent, end: TerminationCondition | None = None) -> TaskRunner:
    return RoundRobinGroupChat([agent], termination_condition=end, max_turns=None if end else 1)


def selector(
    agent: ChatAgent, end: TerminationCondition | None = None, model: ChatCompletionClient | None = None
) -> TaskRunner:
    return SelectorGroupChat(
        [agent, Peer("peer")],
        model_client=model or client("helper"),
        termination_condition=end,
        max_turns=None if end else 1,
    )


def swarm(agent: ChatAgent, end: TerminationCondition | None = None) -> TaskRunner:
    first = AssistantAgent(
        "first", client(tool_call("transfer_to_helper")), handoffs=[Handoff(target="helper", message=QUESTION)]
    )
    return Swarm([first, agent], termination_condition=end, max_turns=None if end else 2)


def magentic_one(
    agent: ChatAgent, end: TerminationCondition | None = None, model: ChatCompletionClient | None = None
) -> TaskRunner:
    return MagenticOneGroupChat(
        [agent, Peer("peer")], model_client=model or client(*ORCHESTRATION), termination_condition=end
    )


ORCHESTRATION = (
    "facts",
    "plan",
    ledger(done=False, speaker="helper", task=QUESTION),
    ledger(done=True, speaker="helper", task=""),
    "The final word.",
)


def graph(agent: ChatAgent, end: TerminationCondition | None = None) -> TaskRunner:
    first, last = Peer("first", "Think of nacre."), Peer("last")
    nodes = DiGraphBuilder()
    nodes.add_node(first).add_node(agent).add_node(last).add_edge(first, agent).add_edge(agent, last)
    return GraphFlow(nodes.get_participants(), nodes.build(), termination_condition=end)


def society(
    agent: ChatAgent, end: TerminationCondition | None = None, model: ChatCompletionClient | None = None
) -> TaskRunner:
    return SocietyOfMindAgent("society", round_robin(agent, end), model_client=model or client("In one voice."))


def agent_tool(agent: ChatAgent, end: TerminationCondition | None = None) -> TaskRunner:
    return caller(AgentTool(agent), "helper", QUESTION)


def team_tool(agent: ChatAgent, end: TerminationCondition | None = None) -> TaskRunner:
    tool = TeamTool(round_robin(agent, end), name="helpers", description="Helps.")
    return caller(tool, "helpers", QUESTION)


TEAMS = [round_robin, selector, swarm, magentic_one, graph]
HOSTS = [*TEAMS, society, agent_tool, team_tool]
everywhere = pytest.mark.parametrize("host", HOSTS)


async def said(host: TaskRunner) -> str:
    """All that is said in the host and inside it, its stop reason last."""
    texts = []
    async for item in host.run_stream(task=QUESTION):
        texts.append(str(item.stop_reason) if isinstance(item, TaskResult) else item.to_text())
    return "\n".join(texts)


@pytest.fixture
def stub() -> Iterator[OllamaStub]:
    with OllamaStub(StubModel()) as server:
        yield server


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("hosts") / "store.db")


@everywhere
async def test_an_assistant_answers_with_the_ollama_client(host: Host, stub: OllamaStub) -> None:
    stub.script.append(says(ANSWER))
    model = OllamaClient(StubModel().name, host=stub.host)
    helper = AssistantAgent("helper", model, model_client_stream=True)
    assert ANSWER in await said(host(helper, None))
    await model.close()


@everywhere
async def test_an_assistant_answers_with_the_llama_cpp_client(host: Host, write_model, counts) -> None:
    from tests.autogen.local_models import TALKS

    model = LlamaCppClient(write_model(TALKS), n_threads=1)
    assert "yes it holds" in await said(host(AssistantAgent("helper", model, model_client_stream=True), None))
    await model.close()


@everywhere
async def test_an_assistant_is_shown_what_its_memory_knows(host: Host, notes: Path) -> None:
    model, memory = client(ANSWER), KnowledgeMemory(notes, k=2)
    assert ANSWER in await said(host(AssistantAgent("helper", model, memory=[memory]), None))
    seen = str(model.create_calls[0]["messages"])
    assert seen.count("<passages>") == 1 and "aragonite tablets" in seen
    await memory.close()


@pytest.mark.skipif(
    "max_tool_iterations" not in inspect.signature(AssistantAgent).parameters,
    reason="assistants call tools once before AutoGen 0.7",
)
@everywhere
async def test_an_assistant_searches_and_keeps_a_finding(host: Host, tmp_path: Path) -> None:
    path = make_store(tmp_path / "store.db")
    tools = [SearchKnowledgeTool(path), AddFindingTool(path, author="helper")]
    model = client(
        tool_call("search_knowledge", query="nacre toughness"), tool_call("add_finding", text="Nacre is tough."), ANSWER
    )
    helper = AssistantAgent("helper", model, tools=tools, max_tool_iterations=3)
    assert ANSWER in await said(host(helper, None))
    assert "aragonite tablets" in str(model.create_calls[1]["messages"])
    with Store.open(path) as store:
        assert [finding.author for finding in store.findings()] == ["helper"]
    for tool in tools:
        await tool.close()


@pytest.mark.parametrize("host", TEAMS)
async def test_a_budget_ends_a_team(host: Host) -> None:
    end = BudgetTermination(tokens=4) | MaxMessageTermination(30)
    said_there = await said(host(AssistantAgent("helper", client(*[ANSWER] * 9)), end))
    assert ANSWER in said_there and "of 4 tokens are generated" in said_there


@pytest.mark.parametrize(
    ("host", "script"), [(selector, ("helper",)), (magentic_one, ORCHESTRATION), (society, ("In one voice.",))]
)
async def test_the_ollama_client_is_the_hosts_own_model(host, script: tuple[str, ...], stub: OllamaStub) -> None:
    stub.script.extend(says(text) for text in script)
    model = OllamaClient(StubModel().name, host=stub.host)
    assert ANSWER in await said(host(AssistantAgent("helper", client(ANSWER)), None, model))
    assert not stub.script
    await model.close()
