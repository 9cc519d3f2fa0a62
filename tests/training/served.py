"""A server that speaks OpenAI's protocol with the words of `forging.speak`, for runs in other processes."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from preflexor_agents.backends.base import Completion, Request
from preflexor_agents.errors import PreflexorError
from preflexor_agents.prompts import Message
from tests.fakes.http_stub import Answer, HttpStub, Recorded, Stream
from tests.training.forging import speak

MODEL = {"id": "cast", "object": "model", "owned_by": "vllm", "max_model_len": 32_768}


class Served:
    """`with Served() as server:` serves on `server.spec` in its own thread."""

    def __init__(self, *, answers: int | None = None) -> None:
        """Answer so many calls and none after; None answers all."""
        self.stuck = threading.Event()
        """Set when a call came that will not be answered."""
        self.answered = 0
        self._answers = answers
        self._http = HttpStub(self._answer)

    def __enter__(self) -> Self:
        self._http.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.stop()

    @property
    def spec(self) -> str:
        return f"openai:cast@http://127.0.0.1:{self._http.port}/v1"

    async def _answer(self, request: Recorded) -> Answer | Stream:
        if request.path == "/v1/models":
            return Answer({"data": [MODEL]})
        return Stream(self._events(request.body))

    async def _events(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        if self.answered == self._answers:
            self.stuck.set()
            await asyncio.Event().wait()
        self.answered += 1
        messages = tuple(Message(m["role"], m["content"]) for m in body["messages"])
        said = speak(Request(messages=messages, seed=body["seed"]))
        assert not isinstance(said, Completion | PreflexorError)
        counted = {"prompt_tokens": 100, "completion_tokens": len(said.split())}
        for event in ({"delta": {"content": said}}, {"delta": {}, "finish_reason": "stop"}):
            yield _event({"choices": [{"index": 0, **event}]})
        yield _event({"choices": [], "usage": counted})
        yield b"data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"
