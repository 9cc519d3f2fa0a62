"""Each known defect of AutoGen's own llama.cpp client: shown on that client, and absent from ours.

AutoGen's client is given a stand-in for `llama_cpp.Llama`, ours a real model.
"""

import asyncio
import json
import logging
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("gguf", reason="needs the quantize extra")

from autogen_agentchat.agents import AssistantAgent
from autogen_core import CancellationToken, FunctionCall
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    SystemMessage,
    UserMessage,
)

from preflexor_agents.autogen import LlamaCppClient
from preflexor_agents.autogen.clients.llamacpp import _chat
from tests.autogen.client_calls import ADD, MEASURE, QUESTION, streamed
from tests.autogen.local_models import CALLS, DROP, ENDLESS, PICK, RANDOM, TALKS, Counts

upstream = pytest.importorskip(
    "autogen_ext.models.llama_cpp", reason="AutoGen's llama.cpp client is not installed (autogen-ext[llama-cpp])"
)

Make = Callable[..., LlamaCppClient]


class FakeLlama:
    """Answers as llama-cpp-python does, with `message` and `finish`; waits at `gate` if there is one."""

    message: dict[str, Any] = {"role": "assistant", "content": "yes it holds"}  # noqa: RUF012
    finish = "stop"
    gate: threading.Event | None = None
    together: threading.Barrier | None = None

    def __init__(self, model_path: str, **settings: Any) -> None:
        self.loaded_in = threading.current_thread()
        self.asked: list[dict[str, Any]] = []
        self.running = 0

    def n_ctx(self) -> int:
        return 512

    def tokenize(self, text: bytes) -> list[int]:
        return list(text)

    def create_chat_completion(self, **call: Any) -> dict[str, Any]:
        self.asked.append(call)
        self.running += 1
        if self.together:
            self.together.wait(timeout=10)
        if self.gate:
            self.gate.wait(timeout=10)
        self.running -= 1
        choice = {"index": 0, "message": self.message, "finish_reason": self.finish}
        return {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}

    def close(self) -> None: ...


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Makes AutoGen's client on a stand-in with the given properties."""
    clients: list[Any] = []

    def make(**properties: Any) -> Any:
        fake = type("Fake", (FakeLlama,), properties)
        monkeypatch.setattr(upstream._llama_cpp_completion_client, "Llama", fake)
        clients.append(upstream.LlamaCppChatCompletionClient(model_path="model.gguf"))
        return clients[-1]

    yield make
    for client in clients:
        if client.llm.gate:
            client.llm.gate.set()


@pytest.fixture
async def make(write_model: Callable[..., str], counts: Counts) -> AsyncIterator[Make]:
    made: list[LlamaCppClient] = []

    def make(properties: dict[str, Any], template: str = "", **options: Any) -> LlamaCppClient:
        path = write_model(properties, **({"chat_template": template} if template else {}))
        made.append(LlamaCppClient(path, n_threads=1, options={"temperature": 0, **options}))
        return made[-1]

    yield make
    for client in made:
        await client.close()


async def test_replies_can_be_streamed(stock, make: Make) -> None:
    with pytest.raises(NotImplementedError):
        await streamed(stock())
    assert "".join((await streamed(make(TALKS)))[0]) == "yes it holds"


async def test_an_agent_can_stream(stock, make: Make) -> None:
    with pytest.raises(NotImplementedError):
        await AssistantAgent("a", stock(), model_client_stream=True).run(task="Why?")
    agent = AssistantAgent("a", make(TALKS), model_client_stream=True)
    assert (await agent.run(task="Why?")).messages[-1].to_model_text() == "yes it holds"


async def test_calls_of_tools_are_parsed(stock, make: Make) -> None:
    function = {"name": "add", "arguments": '{"x": 1, "y": 2}'}
    message = {"content": None, "tool_calls": [{"id": "a", "type": "function", "function": function}]}
    old = await stock(message=message, finish="tool_calls").create(QUESTION, tools=[ADD])
    assert (old.content, old.finish_reason, old.usage.completion_tokens) == ("", "stop", 0)
    new = await make(CALLS).create(QUESTION, tools=[ADD])
    assert [(c.name, json.loads(c.arguments)) for c in new.content] == [("add", {"x": 1, "y": 2})]
    assert new.usage.completion_tokens > 0


async def test_calls_finish_as_calls(stock, make: Make) -> None:
    old = stock(message={"content": "Adding."}, finish="tool_calls")
    assert (await old.create(QUESTION, tools=[ADD])).finish_reason == "unknown"
    assert (await make(CALLS).create(QUESTION, tools=[ADD])).finish_reason == "function_calls"


async def test_results_of_tools_can_go_back(stock, make: Make) -> None:
    call = FunctionCall(id="a", name="add", arguments='{"x": 1, "y": 2}')
    asked = AssistantMessage(content=[call], source="a")
    result = FunctionExecutionResult(content="3", name="add", call_id="a", is_error=False)
    turns = [*QUESTION, asked, FunctionExecutionResultMessage(content=[result])]
    with pytest.raises(ValueError, match="not supported"):
        await stock().create(turns[:2])
    with pytest.raises(ValueError, match="Unsupported message type"):
        await stock().create([*QUESTION, turns[-1]])
    assert (await make(TALKS).create(turns, tools=[ADD])).content == "yes it holds"


async def test_a_client_and_an_agent_that_holds_it_can_be_written(stock, make: Make) -> None:
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        for held in (stock(), AssistantAgent("a", stock())):
            with pytest.raises((AttributeError, NotImplementedError)):
                held.dump_component()
    client = make(TALKS)
    again = ChatCompletionClient.load_component(client.dump_component())
    assert again.dump_component() == client.dump_component()
    agent = AssistantAgent.load_component(AssistantAgent("a", client).dump_component())
    assert (await agent.run(task="Why?")).messages[-1].to_model_text() == "yes it holds"
    await agent._model_client.close()


async def test_calls_at_once_share_one_thread_and_each_has_the_reply_it_has_alone(
    stock, make: Make, counts: Counts
) -> None:
    old = stock(together=threading.Barrier(2))
    await asyncio.gather(old.create(QUESTION), old.create(QUESTION))  # each waits for the other: both run
    client = make(TALKS)
    alone = await client.create(QUESTION)
    together = await asyncio.gather(*(client.create(QUESTION) for _ in range(8)))
    assert [result.content for result in together] == [alone.content] * 8
    assert 1 < counts.most_running <= 8 and counts.contexts == 1


async def test_cancelling_stops_the_thread_before_the_next_call(stock, make: Make, counts: Counts) -> None:
    old, token = stock(gate=threading.Event()), CancellationToken()
    call = asyncio.ensure_future(old.create(QUESTION, cancellation_token=token))
    while not old.llm.running:
        await asyncio.sleep(0)
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert old.llm.running == 1
    another = asyncio.ensure_future(old.create(QUESTION))
    while len(old.llm.asked) < 2:
        await asyncio.sleep(0)
    assert old.llm.running == 2
    old.llm.gate.set()
    await another

    client, token = make(ENDLESS), CancellationToken()
    call = asyncio.ensure_future(client.create(QUESTION, cancellation_token=token))
    while counts.decoded < 40:
        await asyncio.sleep(0)
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await client.create(QUESTION, extra_create_args={"max_tokens": 1, "seed": 1})
    assert counts.jobs == ["begin 0", "end 0", "begin 1", "end 1"]
    assert counts.decoded < 7000


async def test_thinking_is_split_from_the_content(stock, make: Make) -> None:
    old = await stock(message={"content": "<think>silk is</think>yes"}).create(QUESTION)
    assert (old.content, old.thought) == ("<think>silk is</think>yes", None)
    tagged = {"chain": TALKS["chain"] | {"Ċ": "<|thinking|>"}, "context": 2048}
    new = await make(tagged).create(QUESTION)
    assert (new.content, new.thought) == ("yes it holds", "silk is\n\nso")


async def test_counted_tokens_hold_the_template_and_the_tools(stock, make: Make) -> None:
    old = stock()
    assert old.count_tokens(QUESTION) == len("Why is silk strong?")
    with pytest.raises(TypeError):
        old.count_tokens(QUESTION, [ADD])
    assert old.count_tokens(QUESTION, tools=[ADD]) == old.count_tokens(QUESTION)
    client = make(TALKS)
    plain, with_tools = (client.count_tokens(QUESTION, tools=tools) for tools in ([], [ADD]))
    assert plain == (await client.create(QUESTION)).usage.prompt_tokens
    assert with_tools == (await client.create(QUESTION, tools=[ADD])).usage.prompt_tokens
    assert with_tools > plain
    assert client.remaining_tokens(QUESTION, tools=[ADD]) == 2048 - with_tools


async def test_without_tools_no_tools_are_offered(stock, make: Make) -> None:
    old = stock()
    await old.create(QUESTION)
    assert old.llm.asked[0]["tools"] == []
    asks_for_tools = "{{ 'tools' if tools is not none }}{% for m in messages %}{{ m.content }}{% endfor %}{{ '\n' }}"
    client = make(TALKS, asks_for_tools)
    assert client.count_tokens(QUESTION) == client.count_tokens(QUESTION, tools=[])
    prompt = client._held().text().chat_prompt(_chat(QUESTION, ()), constrained=False, context_tok=99)
    assert prompt.tokens == client._held().text().vocabulary.tokenize("Why is silk strong?\n")


async def test_what_model_info_claims_holds_for_any_file(stock, make: Make) -> None:
    old = stock()
    assert old.model_info["function_calling"]
    assert isinstance((await old.create(QUESTION, tools=[PICK])).content, str)
    client = make(RANDOM)
    assert client.model_info["function_calling"]
    assert (await client.create(QUESTION, tools=[PICK], tool_choice=PICK)).content[0].name == "pick"


async def test_the_model_is_not_loaded_on_the_event_loop(stock, make: Make, counts: Counts) -> None:
    assert stock().llm.loaded_in is threading.current_thread()
    client = make(TALKS)
    assert (counts.loads, counts.vocabularies) == (0, 0)
    await client.create(QUESTION)
    assert (counts.loads, counts.vocabularies) == (1, 0)
    assert threading.current_thread() not in counts.loaded_in


async def test_sampling_belongs_to_the_client(stock, make: Make) -> None:
    assert "temperature" not in upstream._llama_cpp_completion_client.LlamaCppParams.__annotations__
    assert (await make(ENDLESS, max_tokens=3).create(QUESTION)).content == "abc"


async def test_tool_choice_is_heeded(stock, make: Make) -> None:
    old = stock()
    with pytest.warns(UserWarning, match="does not support it"):
        assert isinstance((await old.create(QUESTION, tools=[PICK], tool_choice="required")).content, str)
    with warnings.catch_warnings(action="error"):
        for choice, names in (("required", {"pick", "drop"}), (DROP, {"drop"})):
            result = await make(RANDOM).create(QUESTION, tools=[PICK, DROP], tool_choice=choice)
            assert {call.name for call in result.content} <= names
        none = await make(CALLS).create(QUESTION, tools=[ADD], tool_choice="none")
    assert isinstance(none.content, str)


async def test_text_in_parts_is_taken(stock, make: Make) -> None:
    turn = UserMessage(content=["Why is", "silk strong?"], source="user")
    with pytest.raises(ValueError, match="not supported"):
        await stock().create([turn])
    assert (await make(TALKS).create([turn])).content == "yes it holds"


async def test_the_log_tells_the_tools(stock, make: Make, caplog) -> None:
    logged = []
    for client in (stock(), make(CALLS)):
        with caplog.at_level(logging.INFO, "autogen_core.events"):
            await client.create(QUESTION, tools=[MEASURE])
        logged.append(json.loads(str(caplog.records[-1].msg)))
    old, new = logged
    assert "tools" not in old
    assert new["tools"][0]["function"]["parameters"] == MEASURE.schema["parameters"]


async def test_an_empty_reply_is_logged_and_counted(stock, make: Make, caplog) -> None:
    silent = {"chain": {"Ċ": "<|end|>"}}
    with caplog.at_level(logging.INFO, "autogen_core.events"):
        old = await stock(message={"content": ""}).create([SystemMessage(content="Hush."), *QUESTION])
        assert (len(caplog.records), old.usage.prompt_tokens) == (0, 0)
        client = make(silent)
        new = await client.create(QUESTION)
    assert (new.content, new.finish_reason) == ("", "stop")
    assert new.usage.prompt_tokens == client.count_tokens(QUESTION)
    assert len(caplog.records) == 1
