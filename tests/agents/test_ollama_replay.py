"""The Ollama backend on traffic that was recorded from real servers."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.backends.ollama import UNCOUNTED, OllamaBackend
from preflexor_agents.errors import ModelError
from preflexor_agents.prompts import Message
from tests.fakes.ollama_stub import THINK_TAGS, OllamaStub, StubModel

yaml = pytest.importorskip("yaml")

TRAFFIC = Path(__file__).resolve().parents[3] / "shared" / "data" / "cassettes-ollama"
NEW = TRAFFIC / "openinference" / "test_instrumentor"
OLD = TRAFFIC / "openllmetry" / "test_chat"
pytestmark = pytest.mark.skipif(not TRAFFIC.is_dir(), reason="the recorded traffic is not here")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[OllamaStub]:
    models = [
        StubModel(name="qwen3.6:latest", tags=THINK_TAGS, parser="qwen3.5"),
        StubModel(name="llama3:latest", tags=None),
    ]
    with OllamaStub(*models) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        yield server


async def replayed(stub: OllamaStub, cassette: Path) -> tuple[list[Delta], Completion]:
    (recorded,) = stub.replay(cassette, yaml.safe_load)
    messages = tuple(Message(m["role"], m["content"]) for m in recorded["messages"])
    backend = await OllamaBackend.open(recorded["model"])
    try:
        items = [item async for item in backend.generate(Request(messages=messages))]
    finally:
        await backend.aclose()
    deltas = [item for item in items if isinstance(item, Delta)]
    (done,) = [item for item in items if isinstance(item, Completion)]
    assert items[-1] is done
    return deltas, done


def whole(cassette: Path, key: str) -> str:
    """All text of one kind in a recorded stream, put together without the code under test."""
    body = yaml.safe_load(cassette.read_text(encoding="utf-8"))["interactions"][0]["response"]["body"]["string"]
    pieces = re.findall(rf'"{key}":"((?:[^"\\]|\\.)*)"', body)
    return "".join(yaml.safe_load(f'"{piece}"') for piece in pieces if piece)


async def test_a_long_stream_of_a_thinking_model_is_told_apart(stub: OllamaStub) -> None:
    cassette = NEW / "test_async_chat_stream.yaml"
    deltas, done = await replayed(stub, cassette)
    assert done.answer == "1\n2\n3\n4\n5"
    assert done.thinking == whole(cassette, "thinking").strip()
    assert len(done.thinking) > 1000
    assert "".join(d.text for d in deltas if d.channel == "thinking").strip() == done.thinking
    assert (done.usage.prompt, done.usage.generated, done.finish_reason) == (21, 889, "stop")


@pytest.mark.parametrize("name", ["test_chat", "test_async_chat", "test_suppress_tracing", "test_trace_config_masking"])
async def test_a_reply_in_one_piece_has_thinking_and_answer(stub: OllamaStub, name: str) -> None:
    cassette = NEW / f"{name}.yaml"
    _, done = await replayed(stub, cassette)
    assert done.answer == whole(cassette, "content").strip()
    assert done.thinking == whole(cassette, "thinking").strip()
    assert len(done.answer) > 100
    assert done.usage.prompt in (14, 21)


async def test_an_older_stream_without_thinking_is_all_answer(stub: OllamaStub) -> None:
    cassette = OLD / "test_ollama_async_streaming_chat_legacy.yaml"
    deltas, done = await replayed(stub, cassette)
    assert done.answer == whole(cassette, "content").strip()
    assert {d.channel for d in deltas} == {"answer"}
    assert (done.thinking, done.usage.prompt, done.usage.generated) == ("", 17, 63)


async def test_an_older_reply_without_a_prompt_count_is_estimated(stub: OllamaStub) -> None:
    _, done = await replayed(stub, OLD / "test_ollama_async_chat_legacy.yaml")
    assert done.answer.startswith("A joke about OpenTelemetry!")
    assert UNCOUNTED in done.notes
    assert 0 < done.usage.prompt < 30
    assert done.usage.generated == 79


async def test_the_recorded_refusal_of_an_unknown_model_is_a_model_error(stub: OllamaStub) -> None:
    stub.models["nonexistent-model:latest"] = StubModel(name="nonexistent-model:latest", tags=None)
    with pytest.raises(ModelError, match="no model 'nonexistent-model:latest'; get it with: ollama pull"):
        await replayed(stub, NEW / "test_chat_error_records_model_name.yaml")
