"""Many whole runs at once on one model in this process."""

import asyncio
import threading

import pytest

pytest.importorskip("gguf", reason="needs the quantize extra")

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import TextMessage

from preflexor_agents.autogen import LlamaCppClient, ReflectAgent
from preflexor_agents.backends.model_cache import MODELS
from preflexor_agents.config import ReflectConfig
from tests.autogen.conftest import Writer
from tests.autogen.local_models import TALKS, Counts


async def test_fifty_agents_that_run_at_once_share_one_model_and_all_answer(
    write_model: Writer, counts: Counts
) -> None:
    path = write_model(TALKS)
    clients = [LlamaCppClient(path) for _ in range(50)]
    threads = threading.active_count()

    async def run(n: int) -> str:
        agent = AssistantAgent(f"agent{n}", clients[n])
        last = (await agent.run(task=f"silk {n}")).messages[-1]
        assert isinstance(last, TextMessage)
        return last.content

    assert await asyncio.gather(*(run(n) for n in range(50))) == ["yes it holds"] * 50
    assert (counts.loads, counts.contexts) == (1, 1)
    for client in clients:
        await client.close()
    MODELS.free_idle()
    assert (counts.contexts, threading.active_count()) == (0, threads)


async def test_reflecting_agents_at_once_share_one_model_and_all_answer(write_model: Writer, counts: Counts) -> None:
    config = ReflectConfig(rounds=2, integrate="never")
    agents = [ReflectAgent(f"reflect{n}", f"gguf:{write_model(TALKS)}", config=config) for n in range(10)]
    results = await asyncio.gather(*(agent.run(task="Is silk a protein?") for agent in agents))
    assert [r.messages[-1].to_model_text() for r in results] == ["yes it holds"] * 10
    assert counts.loads == 1
    for agent in agents:
        await agent.close()
    MODELS.free_idle()
    assert counts.contexts == 0
