"""Each known defect of AutoGen's own Ollama client: shown on that client, and absent from ours."""

import warnings
from collections.abc import AsyncIterator, Iterator

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_core import FunctionCall
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    ModelInfo,
)

from preflexor_agents.autogen import OllamaClient
from preflexor_agents.errors import BackendError
from tests.autogen.client_calls import ADD, MEASURE, QUESTION, answer, asked, sent, streamed
from tests.fakes.ollama_stub import Gate, OllamaStub, StubModel, says

upstream = pytest.importorskip(
    "autogen_ext.models.ollama", reason="AutoGen's Ollama client is not installed (autogen-ext[ollama])"
)

INFO = ModelInfo(vision=False, function_calling=True, json_output=True, family="r1", structured_output=True)
CALLS = [("add", {"x": 1, "y": 2}), ("add", {"x": 3, "y": 4})]
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["create", "stream"])


@pytest.fixture
def stub() -> Iterator[OllamaStub]:
    with OllamaStub(StubModel(), StubModel(name="plain:latest", tags=None)) as server:
        yield server


@pytest.fixture
async def stock(stub: OllamaStub) -> AsyncIterator[ChatCompletionClient]:
    client = upstream.OllamaChatCompletionClient(model="tiny:latest", host=f"http://{stub.host}", model_info=INFO)
    yield client
    await client._client.close()


@pytest.fixture
async def ours(stub: OllamaStub) -> AsyncIterator[OllamaClient]:
    client = OllamaClient("tiny:latest", host=stub.host, model_info=INFO)
    yield client
    await client.close()


async def test_an_answer_that_comes_in_one_chunk_is_kept(stub, stock, ours) -> None:
    stub.script.extend([sent(answer("Silk is strong.", done="stop"))] * 2)
    assert (await streamed(stock))[1].content == []
    chunks, result = await streamed(ours)
    assert (chunks, result.content) == (["Silk is strong."], "Silk is strong.")


async def test_an_agent_says_what_the_model_said_in_one_chunk(stub, stock, ours) -> None:
    stub.script.extend([sent(answer("Silk is strong.", done="stop"))] * 2)
    said = []
    for client in (stock, ours):
        agent = AssistantAgent("a", client, model_client_stream=True)
        said.append((await agent.run(task="Why?")).messages[-1].to_model_text())
    assert said == ["", "Silk is strong."]


@BOTH
async def test_the_thinking_field_becomes_the_thought(stub, stock, ours, stream) -> None:
    stub.script.extend([says("<|thinking|>Of beta sheets.<|/thinking|>It is strong.")] * 2)
    assert (await asked(stock, stream=stream)).thought is None
    result = await asked(ours, stream=stream)
    assert (result.thought, result.content) == ("Of beta sheets.", "It is strong.")


async def test_a_model_that_thinks_can_be_watched(stub, stock) -> None:
    thinks, gate = answer(thinking="Of beta sheets."), answer("Strong.", done="stop")
    stub.script.extend([sent(thinks, answer("It is "), gate)] * 2)
    assert not any("sheets" in chunk for chunk in (await streamed(stock))[0])
    watched = OllamaClient("tiny", host=stub.host, stream_thinking=True)
    chunks, result = await streamed(watched)
    await watched.close()
    assert chunks == ["<think>", "Of beta sheets.", "</think>", "It is ", "Strong."]
    assert result.content == "It is Strong."


@BOTH
async def test_think_tags_in_the_content_are_split_off(stub, stock, ours, stream) -> None:
    reply = sent(answer("<think>Of shee"), answer("ts.</think>\n\nIt is strong."), answer(done="stop"))
    whole = sent(answer("<think>Of sheets.</think>\n\nIt is strong.", done="stop"))
    stub.script.extend([reply if stream else whole] * 2)
    assert "<think>" in (await asked(stock, stream=stream)).content
    result = await asked(ours, stream=stream)
    assert (result.thought, result.content) == ("Of sheets.", "It is strong.")


@BOTH
async def test_a_reply_that_was_cut_says_so(stub, stock, ours, stream) -> None:
    stub.script.extend(
        [sent(answer("It "), answer("is", done="length")) if stream else sent(answer("It is", done="length"))] * 2
    )
    assert (await asked(stock, stream=stream)).finish_reason == "unknown"
    assert (await asked(ours, stream=stream)).finish_reason == "length"


@BOTH
async def test_parallel_calls_have_ids_of_their_own(stub, stock, ours, stream) -> None:
    stub.script.extend([sent(answer("Adding.", calls=CALLS, done="stop"))] * 3)
    shared = await asked(stock, stream=stream, tools=[ADD])
    assert len({call.id for call in shared.content}) == 1
    calls = [c for _ in range(2) for c in (await asked(ours, stream=stream, tools=[ADD])).content]
    assert len({call.id for call in calls}) == 4
    assert [(c.name, c.arguments) for c in calls[:2]] == [("add", '{"x": 1, "y": 2}'), ("add", '{"x": 3, "y": 4}')]


async def test_calls_in_a_stream_finish_as_calls(stub, stock, ours) -> None:
    stub.script.extend([sent(answer(calls=CALLS), answer(done="stop"))] * 2)
    result = await asked(stock, stream=True, tools=[ADD])
    assert (result.finish_reason, result.thought) == ("stop", "")
    result = await asked(ours, stream=True, tools=[ADD])
    assert (result.finish_reason, result.thought) == ("function_calls", None)


async def test_tools_are_sent_with_their_whole_schemas(stub, stock, ours) -> None:
    stub.script.extend([sent(answer("No.", done="stop"))] * 4)
    for client in (stock, ours):
        await asked(client, stream=False, tools=[MEASURE])
        await asked(client, stream=True, tools=[MEASURE])
    old, _, *new = (body["tools"][0]["function"]["parameters"]["properties"] for body in stub.bodies("/api/chat"))
    assert "enum" not in old["unit"] and "items" not in old["rates"] and "default" not in old["repeats"]
    assert "properties" not in old["sample"]
    for properties in new:
        assert properties == MEASURE.schema["parameters"]["properties"]
        assert properties["sample"]["properties"]["layers"]["items"] == {"type": "integer"}
        assert (properties["unit"]["enum"], properties["repeats"]["default"]) == (["Pa", "psi"], 3)


def test_a_client_of_a_model_that_no_table_knows_can_be_written_and_read(stub, stock, ours) -> None:
    client = upstream.OllamaChatCompletionClient(model="hf.co/us/nano:Q8_0", model_info=INFO)
    with pytest.raises(ValueError, match="model_info is required"):
        ChatCompletionClient.load_component(client.dump_component())
    client = ChatCompletionClient.load_component(OllamaClient("hf.co/us/nano:Q8_0", model_info=INFO).dump_component())
    assert client.model_info == INFO


async def test_think_and_keep_alive_survive_writing_and_reading(stub) -> None:
    settings = {"model": "tiny", "host": f"http://{stub.host}", "think": True, "keep_alive": "10m", "model_info": INFO}
    assert "think" not in upstream.OllamaChatCompletionClient(**settings).dump_component().config
    client = ChatCompletionClient.load_component(OllamaClient(**settings).dump_component())
    await client.create(QUESTION)
    await client.close()
    (body,) = stub.bodies("/api/chat")
    assert (body["think"], body["keep_alive"]) == (True, "10m")


async def test_headers_and_timeout_reach_the_server(stub) -> None:
    gate = Gate()
    settings = {"model": "tiny", "host": f"http://{stub.host}", "headers": {"X-Team": "silk"}, "timeout": 0.05}
    old = upstream.OllamaChatCompletionClient(**settings, model_info=INFO)
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        await old.create(QUESTION)
    assert old._client._client.timeout.read is None
    await old._client.close()
    client = OllamaClient(**settings)
    stub.script.append(says(gate, "late"))
    with pytest.raises(BackendError, match=r"Ollama sent nothing for 0.05 s before the first token"):
        await client.create(QUESTION)
    await client.close()
    assert [request.headers.get("x-team") for request in stub.requests] == [None, "silk"]


@pytest.mark.parametrize("follow", [True, False])
async def test_redirects_are_followed_only_if_wanted(stub, follow) -> None:
    old = upstream.OllamaChatCompletionClient(
        model="tiny", host=f"http://{stub.host}", follow_redirects=follow, model_info=INFO
    )
    assert old._client._client.follow_redirects is True
    await old._client.close()
    client = OllamaClient("tiny", host=stub.host, follow_redirects=follow)
    assert client._connected()._client.follow_redirects is follow
    await client.close()


def test_tokens_are_counted_without_a_network(stock, ours, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str) -> None:
        raise ConnectionError(f"{address} cannot be reached")

    monkeypatch.setattr("requests.get", refuse)
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    with pytest.raises(ConnectionError):
        stock.count_tokens(QUESTION)
    assert 8 <= ours.count_tokens(QUESTION) <= 16
    assert ours.count_tokens(QUESTION, tools=[MEASURE]) > ours.count_tokens(QUESTION) + 50


def test_remaining_tokens_come_from_num_ctx(stub, stock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream._ollama_client, "count_tokens_ollama", lambda *_, **__: 10)
    with pytest.raises(KeyError):
        stock.remaining_tokens(QUESTION)
    options = {"num_ctx": 2048}
    known = upstream.OllamaChatCompletionClient(model="llama3.1", options=options)
    assert known.remaining_tokens(QUESTION) > 2048
    client = OllamaClient("llama3.1", options=options)
    assert client.remaining_tokens(QUESTION) == 2048 - client.count_tokens(QUESTION)


async def test_a_model_named_without_its_tag_brings_no_warning(stub) -> None:
    stub.script.extend([sent(answer("Yes.", done="stop"))] * 2)
    old = upstream.OllamaChatCompletionClient(model="tiny", host=f"http://{stub.host}", model_info=INFO)
    with pytest.warns(UserWarning, match="Resolved model mismatch"):
        await old.create(QUESTION)
    await old._client.close()
    client = OllamaClient("tiny", host=stub.host)
    assert (await client.create(QUESTION)).content == "Yes."
    await client.close()


async def test_results_of_tools_go_back_with_the_name_of_the_tool(stub, stock, ours) -> None:
    stub.script.extend([sent(answer("3", done="stop"))] * 2)
    call = FunctionCall(id="a", name="add", arguments='{"x": 1, "y": 2}')
    result = FunctionExecutionResult(content="3", name="add", call_id="a", is_error=False)
    turns = [
        *QUESTION,
        AssistantMessage(content=[call], source="a"),
        FunctionExecutionResultMessage(content=[result]),
    ]
    await stock.create(turns)
    await ours.create(turns)
    old, new = (body["messages"][-1] for body in stub.bodies("/api/chat"))
    assert "tool_name" not in old
    assert new == {"role": "tool", "tool_name": "add", "content": "3"}


async def test_close_gives_the_connections_back(stub, stock, ours) -> None:
    for client in (stock, ours):
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            await client.create(QUESTION)
    connection = ours._connected()._client
    await stock.close()
    await ours.close()
    assert (stock._client._client.is_closed, connection.is_closed) == (False, True)
    assert (await ours.create(QUESTION)).content
