"""A backend that says what it was told to say: for tests, and to show the machinery without a model."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from preflexor_agents.backends.base import Completion, Delta, FinishReason, Request
from preflexor_agents.backends.reply import ReplyReader
from preflexor_agents.errors import BackendError, PreflexorError
from preflexor_agents.events import Channel, Usage
from preflexor_agents.markup import SectionParser
from preflexor_agents.prompts import Message

Reply = str | Completion | PreflexorError
"""A text with its tags, a finished reply, or a failure to raise."""
Script = Iterable[Reply] | Callable[[Request], Reply]

PIECE_CHARS = 5
"""Short enough to cut every tag."""


@dataclass(slots=True)
class Gate:
    """Halts a reply in the middle of its text, so that a test can say when things happen."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the reply stands at the gate."""
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """To be set to let the reply go on."""


class ScriptedBackend:
    """Speaks from a script. A token is a word."""

    def __init__(
        self,
        script: Script,
        *,
        spec: str = "scripted",
        context_tok: int = 100_000,
        native_tags: bool = True,
        gates: Mapping[int, Gate] | None = None,
    ) -> None:
        """Learn the script.

        Args:
            script: replies in the order of the calls, or what makes one of a request.
            spec: what `spec` says.
            context_tok: words of prompt and reply that fit.
            native_tags: what `native_tags` says.
            gates: call number, from 0 -> gate in that reply.
        """
        self.requests: list[Request] = []
        """What it was asked, in order."""
        self.unfinished: list[Request] = []
        """Requests whose reply has begun and not ended; what was cancelled stays here."""
        self._reply = script if callable(script) else _in_order(script)
        self._spec = spec
        self._context_tok = context_tok
        self._native_tags = native_tags
        self._gates = gates or {}
        self._closed = False

    @property
    def spec(self) -> str:
        """The name it goes by."""
        return self._spec

    @property
    def context_tok(self) -> int:
        """Words of prompt and reply that fit."""
        return self._context_tok

    @property
    def native_tags(self) -> bool:
        """Whether it says that it opens its thinking by itself."""
        return self._native_tags

    async def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Stream the next reply in small pieces.

        Raises:
            BackendError: the script is at its end, the prompt does not fit, or the backend is closed.
            PreflexorError: whatever failure the script has here.
        """
        if self._closed:
            raise BackendError(f"model {self._spec} is closed; open it again")
        gate = self._gates.get(len(self.requests))
        self.requests.append(request)
        prompt_tok = await self.count_tok(request.messages)
        if prompt_tok >= self._context_tok:
            raise BackendError(f"the prompt has {prompt_tok} tokens, the context holds {self._context_tok}; shorten it")
        *deltas, end = _played(request, self._reply(request), prompt_tok)
        self.unfinished.append(request)
        for n, item in enumerate((*deltas, end)):
            if gate and n == len(deltas) // 2:
                gate.reached.set()
                await gate.open.wait()
            if isinstance(item, PreflexorError):
                self.unfinished.remove(request)
                raise item
            await asyncio.sleep(0)
            if item is end:
                self.unfinished.remove(request)
            yield item

    async def count_tok(self, messages: tuple[Message, ...]) -> int:
        """Words of the messages."""
        return sum(len(message.content.split()) for message in messages)

    async def aclose(self) -> None:
        """Refuse further calls. Idempotent."""
        self._closed = True


def _in_order(replies: Iterable[Reply]) -> Callable[[Request], Reply]:
    waiting = iter(replies)

    def reply(_: Request) -> Reply:
        for text in waiting:
            return text
        raise BackendError("the script has no further reply; give it one for each call")

    return reply


def _played(request: Request, reply: Reply, prompt_tok: int) -> list[Delta | Completion | PreflexorError]:
    """The pieces of a reply, its end last."""
    if isinstance(reply, PreflexorError):
        return [reply]
    if isinstance(reply, Completion):
        channels: tuple[tuple[Channel, str], ...] = (
            ("thinking", reply.thinking),
            ("reflection", reply.reflection),
            ("answer", reply.answer),
        )
        return [*(Delta(channel, piece) for channel, text in channels for piece in _pieces(text)), reply]
    words = re.findall(r"\s*\S+", reply)[: request.sampling.max_tok]
    finish: FinishReason = "length" if len("".join(words)) < len(reply.rstrip()) else "stop"
    reader = ReplyReader(SectionParser(opened="answer" if request.thinking is not None else None), request.stop)
    deltas = [delta for piece in _pieces("".join(words)) for delta in reader.piece(piece.encode())]
    last, sections = reader.finish()
    completion = Completion(
        thinking=sections.thinking,
        reflection=sections.reflection,
        answer=sections.answer,
        finish_reason="stop" if reader.stopped else finish,
        usage=Usage(prompt=prompt_tok, generated=len(words)),
        notes=sections.problems,
    )
    return [*deltas, *last, completion]


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), PIECE_CHARS):
        yield text[start : start + PIECE_CHARS]
