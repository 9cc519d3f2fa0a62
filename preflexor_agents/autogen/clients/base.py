"""What both chat completion clients share: a model's reply as AutoGen wants it, logged and counted.

A client's own part is `_reply`, one call of its model. Everything that AutoGen sees of a reply is made here, so
`create` and `create_stream` cannot differ.
"""

import json
import logging
from abc import abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar

from autogen_core import EVENT_LOGGER_NAME, TRACE_LOGGER_NAME, CancellationToken, FunctionCall
from autogen_core.logging import LLMCallEvent, LLMStreamEndEvent, LLMStreamStartEvent
from autogen_core.models import ChatCompletionClient, CreateResult, FinishReasons, LLMMessage, ModelInfo, RequestUsage
from autogen_core.tools import Tool, ToolSchema

from preflexor_agents.autogen.clients.plan import Ask, JsonOutput, ToolChoice, plan
from preflexor_agents.autogen.clients.stop import Stop
from preflexor_agents.backends.base import Delta
from preflexor_agents.backends.calls import CallGuard, calls_in, find_calls
from preflexor_agents.backends.chat import ChatCall
from preflexor_agents.backends.served_reply import NOT_JSON, is_json
from preflexor_agents.errors import BackendError
from preflexor_agents.events import Channel
from preflexor_agents.markup import Sections

_events = logging.getLogger(EVENT_LOGGER_NAME)
_trace = logging.getLogger(TRACE_LOGGER_NAME)

_FRAMES: Mapping[Channel, tuple[str, str]] = {
    "thinking": ("<think>", "</think>"),
    "reflection": ("<|reflect|>", "<|/reflect|>"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model wrote in one call; the last item of `_reply`."""

    thought: str
    """Thinking and reflection."""
    text: str
    """What stands outside of them, to the character but for white space after thinking."""
    calls: tuple[ChatCall, ...] = ()
    """Calls that came as such; those in the text are found later."""
    finish_reason: FinishReasons
    prompt_tok: int
    generated_tok: int
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        sections: Sections,
        *,
        thinking: str = "",
        calls: tuple[ChatCall, ...] = (),
        finish_reason: FinishReasons,
        prompt_tok: int,
        generated_tok: int,
        notes: tuple[str, ...] = (),
    ) -> "Reply":
        """A parsed reply; `thinking` came in a field of its own, before the text."""
        text, before = "", bool(thinking)
        for segment in sections.segments:
            if segment.channel == "answer":
                text += segment.text
            else:
                before = before or not text.strip()
        parts = (thinking.strip(), sections.thinking, sections.reflection)
        return cls(
            thought="\n\n".join(part for part in parts if part),
            text=text.lstrip() if before else text,
            calls=calls,
            finish_reason=finish_reason,
            prompt_tok=prompt_tok,
            generated_tok=generated_tok,
            notes=(*sections.problems, *notes),
        )


class LocalClient(ChatCompletionClient):
    """Base of the clients. Safe for calls that overlap."""

    component_type = "model"
    _constrains_calls: ClassVar[bool]
    """Whether `_reply` can offer tools and force a call at once."""

    def __init__(self, *, model_info: ModelInfo, stream_thinking: bool) -> None:
        self._model_info = model_info
        self._stream_thinking = stream_thinking
        self._usage = RequestUsage(prompt_tokens=0, completion_tokens=0)

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: ToolChoice = "auto",
        json_output: JsonOutput = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        """One reply, whole.

        Raises:
            CallError: the arguments are wrong or ask for what the model cannot do; also a ValueError.
            BackendError: the model failed.
            asyncio.CancelledError: the token was cancelled.
        """
        asks = self._plan(messages, tools, tool_choice, json_output)
        stream = self._converse(asks, extra_create_args or {}, Stop(cancellation_token), stream=False)
        async with aclosing(stream) as items:
            async for item in items:
                if isinstance(item, CreateResult):
                    return item
        raise BackendError("the model ended its reply without a result; ask again")

    async def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: ToolChoice = "auto",
        json_output: JsonOutput = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> AsyncGenerator[str | CreateResult, None]:
        """The same reply as `create`, its text piece by piece, and last the result.

        The pieces put together are the result's content. If the client streams thinking, they also hold that,
        between `<think>` and `</think>`, and reflection between `<|reflect|>` and `<|/reflect|>`.
        """
        asks = self._plan(messages, tools, tool_choice, json_output)
        stream = self._converse(asks, extra_create_args or {}, Stop(cancellation_token), stream=True)
        async with aclosing(stream) as items:
            async for item in items:
                yield item

    def actual_usage(self) -> RequestUsage:
        """Tokens of all calls."""
        return RequestUsage(self._usage.prompt_tokens, self._usage.completion_tokens)

    def total_usage(self) -> RequestUsage:
        """The same: nothing is answered from a cache."""
        return self.actual_usage()

    def remaining_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """Tokens of the context that are left for a reply; negative if the messages do not fit."""
        return self._context_tok() - self.count_tokens(messages, tools=tools)

    @property
    def capabilities(self) -> ModelInfo:
        """AutoGen's old name for `model_info`."""
        return self._model_info

    @property
    def model_info(self) -> ModelInfo:
        """What the model can."""
        return self._model_info

    @abstractmethod
    def _context_tok(self) -> int:
        """Tokens of prompt and reply together."""

    @abstractmethod
    def _wire(self, ask: Ask) -> list[dict[str, Any]]:
        """The messages as the model's endpoint or template takes them."""

    @abstractmethod
    def _reply(
        self, ask: Ask, wire: list[dict[str, Any]], extra: Mapping[str, Any], *, stream: bool
    ) -> AsyncGenerator[Delta | Reply, None]:
        """Call the model; `stream` says whether its reply is wanted piece by piece. Closing it stops the model."""

    def _plan(
        self,
        messages: Sequence[LLMMessage],
        tools: Sequence[Tool | ToolSchema],
        tool_choice: ToolChoice,
        json_output: JsonOutput,
    ) -> tuple[Ask, ...]:
        return plan(
            messages,
            tools=tools,
            tool_choice=tool_choice,
            json_output=json_output,
            model_info=self.model_info,
            constrains_calls=self._constrains_calls,
        )

    async def _converse(
        self, asks: tuple[Ask, ...], extra: Mapping[str, Any], stop: Stop, *, stream: bool
    ) -> AsyncGenerator[str | CreateResult, None]:
        """The calls that are planned, until one is acceptable; its text is held back until that is known."""
        spent = RequestUsage(0, 0)
        for ask in asks:
            chunks: list[str] = []
            async with aclosing(self._ask(ask, extra, stop, stream=stream)) as items:
                async for item in items:
                    if isinstance(item, CreateResult):
                        result = item
                    elif ask.accept is None:
                        yield item
                    else:
                        chunks.append(item)
            spent = _sum(spent, result.usage)
            if ask.accept is None or isinstance(result.content, list) or ask.accept(result.content):
                for chunk in chunks:
                    yield chunk
                yield result.model_copy(update={"usage": spent})
                return

    async def _ask(
        self, ask: Ask, extra: Mapping[str, Any], stop: Stop, *, stream: bool
    ) -> AsyncGenerator[str | CreateResult, None]:
        """One call of the model."""
        stop.check()
        wire = self._wire(ask)
        shown = _Chunks(ask, thinking=self._stream_thinking)
        reply: Reply | None = None
        log = {"messages": [_loggable(m) for m in wire], "tools": [f.wire() for f in ask.functions]}
        if stream:
            _events.info(LLMStreamStartEvent(**log))
        async with aclosing(self._reply(ask, wire, extra, stream=stream)) as items:
            while (item := await stop.wait(anext(items, None))) is not None:
                if isinstance(item, Reply):
                    reply = item
                    break
                for chunk in shown.take(item) if stream else ():
                    yield chunk
                stop.check()
        if reply is None:
            raise BackendError("the model ended its reply without a result; ask again")
        result = _result(ask, reply)
        self._usage = _sum(self._usage, result.usage)
        if stream:
            for chunk in shown.rest(result):
                yield chunk
        odd = ask.schema is not None and isinstance(result.content, str) and not is_json(result.content)
        self._log(result, log if not stream else {}, (*reply.notes, *((NOT_JSON,) if odd else ())))
        yield result

    def _log(self, result: CreateResult, call: Mapping[str, Any], notes: tuple[str, ...]) -> None:
        event = LLMCallEvent if call else LLMStreamEndEvent
        _events.info(
            event(
                **call,
                response=result.model_dump(),
                prompt_tokens=result.usage.prompt_tokens,
                completion_tokens=result.usage.completion_tokens,
                notes=list(notes),
            )
        )
        for note in notes:
            _trace.info(note)


class _Chunks:
    """The pieces of a stream: the text of a reply, without calls, and its thinking if that is wanted."""

    def __init__(self, ask: Ask, *, thinking: bool) -> None:
        self._thinking = thinking
        self._guard = CallGuard() if ask.functions else None
        self._structured = ask.schema is not None
        self._silent = ask.must_call
        self._inside: Channel = "answer"
        self._blank = ""
        self._thought = False
        self._begun = False
        self._text = ""

    def take(self, delta: Delta) -> list[str]:
        """What is to be shown of a piece."""
        chunks = []
        if self._thinking and not self._silent:
            chunks += self._turn(delta.channel)
            chunks += [delta.text] if delta.channel != "answer" else []
        if delta.channel == "answer":
            chunks.append(self._answer(delta.text))
        elif not self._begun:
            self._thought = True
        return [chunk for chunk in chunks if chunk]

    def rest(self, result: CreateResult) -> list[str]:
        """What is left to show when the whole reply is known."""
        closing = self._turn("answer") if self._thinking else []
        whole = result.content if isinstance(result.content, str) else ""
        if self._silent or not whole.startswith(self._text):
            return closing
        rest = whole[len(self._text) :]
        return [*closing, rest] if rest else closing

    def _answer(self, text: str) -> str:
        if not self._begun:
            text, self._blank = self._blank + text, ""
            if not text.strip():
                self._blank = text
                return ""
            self._begun = True
            text = text.lstrip() if self._thought or self._structured else text
        if self._guard:
            text = self._guard.feed(text)
        self._text += text
        return "" if self._silent else text

    def _turn(self, channel: Channel) -> list[str]:
        if channel == self._inside:
            return []
        before, self._inside = self._inside, channel
        closing = [_FRAMES[before][1]] if before != "answer" else []
        return [*closing, _FRAMES[channel][0]] if channel != "answer" else closing


def _result(ask: Ask, reply: Reply) -> CreateResult:
    """A reply in AutoGen's terms. Raises BackendError if it must call and does not."""
    text, calls = reply.text, reply.calls
    if ask.must_call:
        calls = _forced(reply)
        text = "" if calls else text
    elif ask.functions and not calls:
        text, calls = find_calls(text, [f.name for f in ask.functions])
    if ask.schema is not None:
        text = text.strip()
    beside = text.strip() if calls else ""
    return CreateResult(
        finish_reason="function_calls" if calls else reply.finish_reason,
        content=[FunctionCall(id=c.id, name=c.name, arguments=c.arguments) for c in calls] if calls else text,
        usage=RequestUsage(prompt_tokens=reply.prompt_tok, completion_tokens=reply.generated_tok),
        cached=False,
        thought="\n\n".join(part for part in (reply.thought, beside) if part) or None,
    )


def _forced(reply: Reply) -> tuple[ChatCall, ...]:
    try:
        calls = tuple(calls_in(json.loads(reply.text)))
    except ValueError:
        calls = ()
    if calls or reply.finish_reason == "length":
        return calls
    raise BackendError(f"the model was told to call a tool and wrote {reply.text[:80]!r}; use another model")


def _sum(a: RequestUsage, b: RequestUsage) -> RequestUsage:
    return RequestUsage(a.prompt_tokens + b.prompt_tokens, a.completion_tokens + b.completion_tokens)


def _loggable(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message that JSON can hold: of images, only the size."""
    shown = dict(message)
    if "images" in shown:
        shown["images"] = [f"image of {len(image)} bytes" for image in shown["images"]]
    return shown
