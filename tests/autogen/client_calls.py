"""What the tests of the clients share: the stub's replies by the piece, tools, and a call taken whole or streamed."""

import json
from collections.abc import Sequence
from contextlib import aclosing
from enum import StrEnum
from typing import Annotated, Any

from autogen_core.models import ChatCompletionClient, CreateResult, LLMMessage, UserMessage
from autogen_core.tools import FunctionTool
from pydantic import BaseModel, Field

from tests.fakes.ollama_stub import Replay

QUESTION: list[LLMMessage] = [UserMessage(content="Why is silk strong?", source="user")]


class Unit(StrEnum):
    PASCAL = "Pa"
    PSI = "psi"


class Sample(BaseModel):
    name: str
    layers: list[int] = Field(description="Thicknesses in nm")


class Verdict(BaseModel):
    better: str
    score: int


def measure(
    sample: Annotated[Sample, "what to pull"],
    unit: Annotated[Unit, "of the result"],
    rates: Annotated[list[float], "strain rates"],
    repeats: Annotated[int, "how often"] = 3,
) -> str:
    return "87"


def add(x: int, y: int) -> int:
    return x + y


MEASURE = FunctionTool(measure, description="Pull a sample.")
ADD = FunctionTool(add, description="Add two numbers.")


def answer(
    content: str = "", *, thinking: str = "", calls: Sequence[tuple[str, dict[str, Any]]] = (), done: str = ""
) -> dict[str, Any]:
    """One piece of /api/chat, as a real server writes it; `done` is the reason of the last one."""
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = [
            {"id": f"call_{n}", "function": {"index": n, "name": name, "arguments": arguments}}
            for n, (name, arguments) in enumerate(calls)
        ]
    piece = {"model": "tiny:latest", "created_at": "2026-08-07T06:08:09.335586Z", "message": message}
    if not done:
        return {**piece, "done": False}
    counts = {"prompt_eval_count": 17, "eval_count": 5, "eval_duration": 1_000_000}
    return {**piece, "done": True, "done_reason": done, **counts}


def sent(*pieces: dict[str, Any]) -> Replay:
    return Replay(body="".join(json.dumps(piece) + "\n" for piece in pieces))


async def streamed(client: ChatCompletionClient, **call: Any) -> tuple[list[str], CreateResult]:
    """The chunks of a streamed call, and its result."""
    call = {"messages": QUESTION, **call}
    async with aclosing(client.create_stream(**call)) as stream:
        items = [item async for item in stream]
    *chunks, result = items
    assert isinstance(result, CreateResult)
    assert all(type(chunk) is str for chunk in chunks)
    return [chunk for chunk in chunks if isinstance(chunk, str)], result


async def asked(client: ChatCompletionClient, *, stream: bool, **call: Any) -> CreateResult:
    """The result of a call, made in one way or the other."""
    call = {"messages": QUESTION, **call}
    return (await streamed(client, **call))[1] if stream else await client.create(**call)
