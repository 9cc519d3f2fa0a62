"""A thousand runs, each broken off at a random moment in a random way: nothing is stuck, nothing is left behind."""

import asyncio
import gc
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import pytest
from autogen_agentchat.base import TaskRunner, TerminationCondition
from autogen_agentchat.conditions import SourceMatchTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import CancellationToken

from preflexor_agents.autogen.group_chat import ReflectionGroupChat
from preflexor_agents.autogen.reflect_agent import ReflectAgent
from preflexor_agents.reflection.perform import Control
from tests.autogen.hosts import Peer
from tests.autogen.voices import ANSWER, CONFIG, QUESTION, Shelf, Voices, with_teams

Made = tuple[TaskRunner, Control]
pytestmark = pytest.mark.slow


def heard(name: str) -> TerminationCondition:
    return SourceMatchTermination([name])


def agent(voices: Voices) -> Made:
    made = ReflectAgent("reflect", voices, config=CONFIG, library=Shelf())
    return made, made.control


def group_chat(voices: Voices) -> Made:
    made = ReflectionGroupChat(model=voices, config=CONFIG, library=Shelf())
    return made, made.control


def agent_in_a_team(voices: Voices) -> Made:
    made = ReflectAgent("reflect", voices, config=CONFIG)
    return RoundRobinGroupChat([made, Peer("peer")], termination_condition=heard(made.name)), made.control


def group_chat_in_a_team(voices: Voices) -> Made:
    made = ReflectionGroupChat(model=voices, config=CONFIG)
    return RoundRobinGroupChat([made, Peer("peer")], termination_condition=heard(made.name)), made.control


async def ticks(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def by_token(made: TaskRunner, control: Control, n: int) -> None:
    token = CancellationToken()
    task = asyncio.create_task(made.run(task=QUESTION, cancellation_token=token))
    await ticks(n)
    token.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def by_task(made: TaskRunner, control: Control, n: int) -> None:
    task = asyncio.create_task(made.run(task=QUESTION))
    await ticks(n)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def by_stop(made: TaskRunner, control: Control, n: int) -> None:
    task = asyncio.create_task(made.run(task=QUESTION))
    await ticks(n)
    control.stop.set()
    await task


async def by_leaving(made: TaskRunner, control: Control, n: int) -> None:
    async with aclosing(made.run_stream(task=QUESTION)) as items:
        async for _ in items:
            n -= 10
            if n < 0:
                return


@pytest.mark.parametrize(
    ("make", "ways", "cycles", "most_ticks"),
    [
        (agent, (by_token, by_task, by_stop, by_leaving), 450, 180),
        pytest.param(group_chat, (by_token, by_task, by_stop, by_leaving), 250, 320, marks=with_teams),
        (agent_in_a_team, (by_token, by_stop), 200, 200),
        pytest.param(group_chat_in_a_team, (by_token, by_stop), 100, 320, marks=with_teams),
    ],
)
async def test_runs_broken_off_at_any_moment_leave_nothing_behind(make, ways, cycles, most_ticks):
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))  # a pool would grow with the load
    rng = random.Random(f"{make.__name__}")
    voices = Voices()
    made, control = make(voices)
    await made.run(task=QUESTION)  # starts the threads that library searches run in
    gc.collect()
    tasks, threads = len(asyncio.all_tasks()), threading.active_count()
    answered = 0
    for cycle in range(cycles):
        voices.requests.clear()
        await asyncio.wait_for(rng.choice(ways)(made, control, rng.randrange(most_ticks)), timeout=20)
        assert voices.open_streams == 0
        if cycle % 10 == 0:
            result = await asyncio.wait_for(made.run(task="And bone?"), timeout=20)
            answered += ANSWER in [m.to_text() for m in result.messages]
    gc.collect()
    await ticks(3)
    assert len(asyncio.all_tasks()) == tasks and threading.active_count() == threads
    assert answered == cycles // 10
