"""Candidates through Ollama: as many calls at once as the server takes, and the waiting told."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from preflexor_agents.backends import ollama as backend_module
from preflexor_agents.backends.base import Completion, Request
from preflexor_agents.backends.ollama import OllamaBackend
from preflexor_agents.backends.ollama_server import PARALLEL, most_parallel
from preflexor_agents.errors import ConfigError
from preflexor_agents.prompts import Message
from tests.fakes.ollama_stub import Gate, OllamaStub, says

QUESTION = (Message("user", "Why is silk strong?"),)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[OllamaStub]:
    with OllamaStub() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        monkeypatch.delenv("OLLAMA_NUM_PARALLEL", raising=False)
        yield server


async def said(backend: OllamaBackend, seed: int) -> Completion:
    async with aclosing(backend.generate(Request(messages=QUESTION, seed=seed))) as items:
        reply = [item async for item in items][-1]
    assert isinstance(reply, Completion)
    return reply


def seeds(stub: OllamaStub) -> list[int]:
    return [body["options"]["seed"] for body in stub.bodies("/api/chat")]


async def test_no_more_calls_are_sent_than_the_server_takes(stub: OllamaStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_NUM_PARALLEL", "2")
    gates = [Gate() for _ in range(5)]
    stub.script.extend(says(f"reply {n}", gate) for n, gate in enumerate(gates))
    backend = await OllamaBackend.open("tiny")
    asked = [asyncio.create_task(said(backend, seed)) for seed in range(5)]
    for n, gate in enumerate(gates):
        assert await asyncio.to_thread(gate.reached.wait, 10)
        assert len(seeds(stub)) <= n + 2
        gate.release()
    await asyncio.gather(*asked)
    assert sorted(seeds(stub)) == [0, 1, 2, 3, 4]
    await backend.aclose()


async def test_a_call_that_is_cancelled_gives_its_turn_to_the_next(
    stub: OllamaStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_NUM_PARALLEL", "1")
    gate = Gate()
    stub.script.extend((says("half", gate), says("whole")))
    backend = await OllamaBackend.open("tiny")
    first, second, third = (asyncio.create_task(said(backend, seed)) for seed in range(3))
    assert await asyncio.to_thread(gate.reached.wait, 10)
    second.cancel()
    first.cancel()
    assert (await third).answer == "whole"
    assert seeds(stub) == [0, 2]
    await backend.aclose()


async def test_waiting_for_the_server_is_told(stub: OllamaStub, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = await OllamaBackend.open("tiny")
    assert not any("waited" in note for note in (await said(backend, 0)).notes)
    monkeypatch.setattr(backend_module, "WAITED_S", 0.0)
    assert any(
        note.startswith("waited 0.") and note.endswith("s for the server") for note in (await said(backend, 1)).notes
    )
    await backend.aclose()


@pytest.mark.parametrize(("given", "most"), [("", PARALLEL), ("0", PARALLEL), (" 8 ", 8), ("1", 1)])
def test_the_bound_is_the_servers_own_variable(given: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_NUM_PARALLEL", given)
    assert most_parallel() == most


@pytest.mark.parametrize("given", ["many", "-1", "1.5", "1000", "²", "\x1b[31m4"])
def test_a_bound_that_is_no_number_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_NUM_PARALLEL", given)
    with pytest.raises(ConfigError, match="must be a number like 4"):
        most_parallel()
