"""The Ollama clients, AutoGen's own and ours, on traffic that was recorded from real servers."""

import json
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from autogen_core import FunctionCall
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    ModelInfo,
    UserMessage,
)

from preflexor_agents.autogen import OllamaClient
from preflexor_agents.errors import ModelError
from tests.autogen.client_calls import asked, streamed
from tests.fakes.ollama_stub import THINK_TAGS, OllamaStub, StubModel

yaml = pytest.importorskip("yaml")

TRAFFIC = Path(__file__).resolve().parents[3] / "shared" / "data" / "cassettes-ollama"
NEW = TRAFFIC / "openinference" / "test_instrumentor"
OLD = TRAFFIC / "openllmetry" / "test_chat"
INFO = ModelInfo(vision=False, function_calling=True, json_output=True, family="unknown", structured_output=True)
pytestmark = pytest.mark.skipif(not TRAFFIC.is_dir(), reason="the recorded traffic is not here")


@pytest.fixture
def stub() -> Iterator[OllamaStub]:
    models = [StubModel(name="qwen3.6:latest", tags=THINK_TAGS)]
    models += [StubModel(name=f"{name}:latest", tags=None) for name in ("llama3", "llama3.1")]
    with OllamaStub(*models) as server:
        yield server


@pytest.fixture
async def clients(stub: OllamaStub) -> AsyncIterator[Callable[[str], list[ChatCompletionClient]]]:
    """AutoGen's client, if it is installed, and ours."""
    made: list[Any] = []

    def both(model: str) -> list[ChatCompletionClient]:
        upstream = pytest.importorskip("autogen_ext.models.ollama", reason="AutoGen's Ollama client is not installed")
        stock = upstream.OllamaChatCompletionClient(model=model, host=f"http://{stub.host}", model_info=INFO)
        made.extend([stock._client, ours := OllamaClient(model, host=stub.host)])
        return [stock, ours]

    yield both
    for client in made:
        await client.close()


def interaction(cassette: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The recorded request, and the objects of the recorded response."""
    (turn,) = yaml.safe_load(cassette.read_text(encoding="utf-8"))["interactions"]
    lines = turn["response"]["body"]["string"].splitlines()
    return json.loads(turn["request"]["body"]), [json.loads(line) for line in lines if line.strip()]


def turns(request: dict[str, Any]) -> list[LLMMessage]:
    made: list[LLMMessage] = []
    for message in request["messages"]:
        match message["role"]:
            case "user":
                made.append(UserMessage(content=message["content"], source="user"))
            case "assistant":
                calls = [
                    FunctionCall(id="a", name=c["function"]["name"], arguments=json.dumps(c["function"]["arguments"]))
                    for c in message["tool_calls"]
                ]
                made.append(AssistantMessage(content=calls, source="assistant"))
            case "tool":
                result = FunctionExecutionResult(content=message["content"], name="weather", call_id="a")
                made.append(FunctionExecutionResultMessage(content=[result]))
    return made


async def test_a_recorded_reply_with_thinking_is_split(stub, clients) -> None:
    cassette = NEW / "test_async_chat.yaml"
    request, (told,) = interaction(cassette)
    for client, thought in zip(clients("qwen3.6:latest"), (None, told["message"]["thinking"].strip()), strict=True):
        stub.replay(cassette, yaml.safe_load)
        result = await client.create(turns(request))
        assert (result.content, result.thought) == (told["message"]["content"], thought)
        assert (result.usage.prompt_tokens, result.finish_reason) == (told["prompt_eval_count"], "stop")


async def test_a_recorded_stream_with_thinking_is_split(stub, clients) -> None:
    cassette = NEW / "test_async_chat_stream.yaml"
    request, pieces = interaction(cassette)
    thinking = "".join(p["message"].get("thinking", "") for p in pieces)
    content = "".join(p["message"]["content"] for p in pieces)
    stock, ours = clients("qwen3.6:latest")
    stub.replay(cassette, yaml.safe_load)
    assert (await streamed(stock, messages=turns(request)))[1].thought is None
    stub.replay(cassette, yaml.safe_load)
    chunks, result = await streamed(ours, messages=turns(request))
    assert "".join(chunks) == result.content == content.lstrip()
    assert result.thought == thinking.strip()
    assert result.usage.completion_tokens == pieces[-1]["eval_count"]


async def test_a_recorded_tool_call_keeps_its_thinking(stub, clients) -> None:
    cassette = NEW / "test_chat_with_tool_call.yaml"
    request, (told,) = interaction(cassette)
    tools = [tool["function"] for tool in request["tools"]]
    results = []
    for client in clients("qwen3.6:latest"):
        stub.replay(cassette, yaml.safe_load)
        results.append(await client.create(turns(request), tools=tools))
    old, new = results
    assert (old.content[0].id, old.thought) == ("0", None)
    assert (new.content[0].name, json.loads(new.content[0].arguments)) == ("get_current_weather", {"city": "Paris"})
    assert new.thought == told["message"]["thinking"].strip()
    assert new.finish_reason == "function_calls"
    sent = stub.bodies("/api/chat")[-1]["tools"][0]["function"]
    assert sent["parameters"] == request["tools"][0]["function"]["parameters"]


@pytest.mark.parametrize("stream", [False, True], ids=["create", "stream"])
async def test_a_recorded_reply_of_an_older_server_is_read(stub, clients, stream) -> None:
    cassette = OLD / ("test_ollama_streaming_chat_legacy.yaml" if stream else "test_ollama_chat_legacy.yaml")
    request, pieces = interaction(cassette)
    for client in clients("llama3:latest"):
        stub.replay(cassette, yaml.safe_load)
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            result = await asked(client, stream=stream, messages=turns(request))
        assert result.content == "".join(p["message"]["content"] for p in pieces)


async def test_a_recorded_turn_with_the_result_of_a_tool_is_answered(stub, clients) -> None:
    cassette = OLD / "test_ollama_chat_tool_calls_legacy.yaml"
    request, (told,) = interaction(cassette)
    _, client = clients("llama3.1:latest")
    stub.replay(cassette, yaml.safe_load)
    result = await client.create(turns(request))
    assert result.content == told["message"]["content"]
    sent = stub.bodies("/api/chat")[-1]["messages"]
    assert [m["role"] for m in sent] == [m["role"] for m in request["messages"]]
    assert sent[0]["tool_calls"] == request["messages"][0]["tool_calls"]


async def test_a_recorded_refusal_names_the_model_and_the_remedy(stub) -> None:
    cassette = NEW / "test_chat_error_records_model_name.yaml"
    (request,) = stub.replay(cassette, yaml.safe_load)
    stub.models["ghost:latest"] = StubModel(name="ghost:latest")
    client = OllamaClient("ghost", host=stub.host)
    with pytest.raises(ModelError, match="Ollama has no model 'ghost'; get it with: ollama pull ghost"):
        await client.create(turns(request))
    await client.close()
