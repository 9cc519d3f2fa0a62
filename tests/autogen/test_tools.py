"""The store's tools: called directly, and by the model of a stock assistant."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import ToolCallExecutionEvent
from autogen_core import CancellationToken
from autogen_core.models import FunctionExecutionResult
from autogen_core.tools import BaseTool, FunctionTool, StaticWorkbench

from preflexor_agents.autogen import AddFindingTool, KnowledgeMemory, SearchKnowledgeTool, load_component
from preflexor_agents.errors import ConfigError, InputError, StoreError
from preflexor_agents.store import Store, driver
from tests.autogen.hosts import client, tool_call
from tests.autogen.shelf import HeldEmbedder, cancelled, make_store

LIMPET = "Limpet teeth reach a tensile strength of 4.9 GPa."


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_store(tmp_path / "library.db")


@pytest.fixture
async def search(path: Path) -> AsyncIterator[SearchKnowledgeTool]:
    made = SearchKnowledgeTool(path)
    yield made
    await made.close()


@pytest.fixture
async def add(path: Path) -> AsyncIterator[AddFindingTool]:
    made = AddFindingTool(path, author="critic")
    yield made
    await made.close()


async def run(tool: BaseTool, **arguments: object) -> str:
    return tool.return_value_as_string(await tool.run_json(arguments, CancellationToken()))


async def result_of(tool: BaseTool, name: str, **arguments: str) -> FunctionExecutionResult:
    """What a stock assistant's model is told after it called the tool."""
    agent = AssistantAgent("assistant", client(tool_call(name, **arguments)), tools=[tool])
    messages = (await agent.run(task="Go on.")).messages
    (event,) = [m for m in messages if isinstance(m, ToolCallExecutionEvent)]
    return event.content[0]


async def test_a_search_gives_numbered_passages_with_source_and_words(search, path):
    lines = (await run(search, query="toughness of nacre")).splitlines()
    source = path.with_suffix(".notes") / "nacre.md"
    assert lines[0] == "<passages>" and lines[-1] == "</passages>"
    assert lines[2].startswith(f'[1] Nacre ({source}): "') and "4.5 MPa m^0.5" in lines[2]
    assert [line[:3] for line in lines[2:-1]] == ["[1]", "[2]", "[3]"]


async def test_a_search_names_the_page_where_there_is_one(search, path):
    db = driver.connect(path, mode="rw")
    db.conn.execute("UPDATE chunk SET page = 12")
    db.close()
    assert "nacre.md, page 12): " in await run(search, query="nacre")


async def test_a_search_in_vain_says_so(search):
    assert await run(search, query="?!") == "No passage fits this query; try other words."


async def test_the_number_of_passages_is_set_by_whoever_makes_the_tool(path):
    tool = SearchKnowledgeTool(path, k=1)
    assert (await run(tool, query="nacre silk gecko")).count("\n[") == 1
    await tool.close()


async def test_a_stock_assistant_searches(search):
    result = await result_of(search, "search_knowledge", query="spider silk strength")
    assert "[1] Spider silk" in result.content and "1100 MPa" in result.content and not result.is_error


async def test_a_finding_is_kept_and_found_as_noted_by_its_author(search, add, path):
    told = await result_of(add, "add_finding", text=LIMPET, basis="measured")
    with Store.open(path) as store:
        (finding,) = store.findings(owner="critic")
    assert told.content == f"Kept; its source is {finding.source}." and finding.metadata == {"basis": "measured"}
    lines = (await run(search, query="limpet teeth")).splitlines()
    day = finding.added_at[:10]
    assert lines[2] == f'[1] Finding ({finding.source}, noted by critic on {day}): "{LIMPET}"'


async def test_a_finding_told_twice_is_kept_once(add, path):
    assert await run(add, text=LIMPET) == await run(add, text=LIMPET)
    with Store.open(path) as store:
        assert len(store.findings()) == 1


async def test_a_memory_of_the_same_name_clears_what_the_tool_added(add, path):
    await run(add, text=LIMPET)
    memory = KnowledgeMemory(path, name="critic")
    await memory.clear()
    await memory.close()
    with Store.open(path) as store:
        assert store.findings() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "query: Field required; arguments: query"),
        ({"query": " "}, "query: it is empty; say what to look for"),
        ({"query": ["nacre"]}, "query: Input should be a valid string; arguments: query"),
    ],
)
async def test_wrong_arguments_come_back_to_the_model_as_one_line(search, arguments, says):
    result = await result_of(search, "search_knowledge", **arguments)
    assert (result.content, result.is_error) == (says, True)


async def test_an_empty_finding_comes_back_as_one_line(add):
    result = await result_of(add, "add_finding", text="")
    assert (result.content, result.is_error) == ("the finding is empty; give the text to keep", True)


async def test_a_locked_store_comes_back_as_one_line(add, path, monkeypatch):
    monkeypatch.setattr(driver, "BUSY_TIMEOUT_S", 0.01)
    other = driver.connect(path, mode="rw")
    other.conn.execute("BEGIN IMMEDIATE")
    result = await result_of(add, "add_finding", text=LIMPET)
    assert "is locked by another process; try again" in result.content and "\n" not in result.content
    assert result.is_error
    other.conn.execute("ROLLBACK")
    other.close()
    assert not (await result_of(add, "add_finding", text=LIMPET)).is_error


async def test_a_damaged_store_comes_back_as_one_line(tmp_path):
    (tmp_path / "bad.db").write_text("no database", encoding="utf-8")
    tool = SearchKnowledgeTool(tmp_path / "bad.db")
    with pytest.raises(StoreError, match="is no SQLite file"):
        await run(tool, query="nacre")
    result = await result_of(tool, "search_knowledge", query="nacre")
    assert "is no SQLite file" in result.content and "\n" not in result.content


async def test_a_cancelled_call_does_nothing(search, add, path):
    for tool, arguments in ((search, {"query": "nacre"}), (add, {"text": LIMPET})):
        with pytest.raises(asyncio.CancelledError):
            await tool.run_json(arguments, cancelled())
    with Store.open(path) as store:
        assert store.findings() == []


async def test_a_cancel_ends_the_waiting_for_a_slow_store(path):
    held, token = HeldEmbedder(), CancellationToken()
    with Store.open(path, embedder=held) as store:
        call = asyncio.create_task(SearchKnowledgeTool(store).run_json({"query": "nacre"}, token))
        await asyncio.to_thread(held.reached.wait, 20)
        token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        held.go_on.set()


async def test_both_tools_survive_a_dump_of_their_workbench(search, add):
    dumped = json.loads(StaticWorkbench([search, add]).dump_component().model_dump_json())
    for load in (StaticWorkbench.load_component, lambda config: load_component(config, expected=StaticWorkbench)):
        workbench = load(dumped)
        assert json.loads(workbench.dump_component().model_dump_json()) == dumped
        found = await workbench.call_tool("search_knowledge", {"query": "nacre"})
        assert "[1] Nacre" in found.to_text() and not found.is_error


def test_a_function_tool_in_a_config_is_refused():
    def search_knowledge(query: str) -> str:
        return query

    dumped = FunctionTool(search_knowledge, description="Searches.").dump_component()
    with pytest.raises(ConfigError, match="runs the source code in its config"):
        load_component(dumped, expected=FunctionTool)


@pytest.mark.parametrize("name", ["SearchKnowledgeTool", "AddFindingTool"])
def test_the_dumped_provider_is_the_public_name(path, name):
    tool = {"SearchKnowledgeTool": SearchKnowledgeTool, "AddFindingTool": AddFindingTool}[name](path)
    dumped = tool.dump_component()
    assert (dumped.provider, dumped.component_type) == (f"preflexor_agents.autogen.{name}", "tool")


def test_the_schema_asks_for_little(search, add):
    wanted = {tool.name: tool.schema["parameters"] for tool in (search, add)}
    assert [list(p["properties"]) for p in wanted.values()] == [["query"], ["text", "basis"]]
    assert [p["required"] for p in wanted.values()] == [["query"], ["text"]]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: SearchKnowledgeTool("none.db"), "store: there is no file none.db"),
        (lambda path: SearchKnowledgeTool(path, k=0), "k is 0; it must be 1 to"),
        (lambda path: AddFindingTool(path, author=" "), "author is empty"),
    ],
)
def test_a_wrong_setting_gives_one_line_that_names_it(path, make, says):
    with pytest.raises(ConfigError, match=says):
        make(path)


async def test_a_store_that_cannot_be_written_can_still_be_searched(path):
    with Store.open(path) as store:
        store._db.conn.execute("PRAGMA query_only = ON")
        reading, writing = SearchKnowledgeTool(store), AddFindingTool(store)
        assert "[1] Nacre" in await run(reading, query="nacre")
        with pytest.raises(InputError, match="read-only"):
            await run(writing, text=LIMPET)
