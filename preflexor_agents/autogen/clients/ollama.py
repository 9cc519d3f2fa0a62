"""AutoGen chat completion client for models served by Ollama.

It sends whole tool schemas, an explicit context size, and text in which control strings are broken up (Ollama takes
them for control tokens wherever they stand). Tokens are counted without the server and without a tokenizer: four
bytes each, corrected by what the server has counted in this client's calls so far.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast

import ollama
from autogen_core import Component
from autogen_core.models import FinishReasons, LLMMessage, ModelInfo
from autogen_core.tools import Tool, ToolSchema
from pydantic import Field, SecretStr

from preflexor_agents.autogen.clients.base import LocalClient, Reply
from preflexor_agents.autogen.clients.config import ClientConfig, checked, masked, revealed
from preflexor_agents.autogen.clients.ollama_messages import (
    Correction,
    FullSchemas,
    broken_up,
    described,
    estimate_tok,
    in_words,
    known,
    wire,
)
from preflexor_agents.autogen.clients.plan import ANY_OBJECT, Ask, folded
from preflexor_agents.autogen.clients.tools import CallError, functions
from preflexor_agents.backends.base import Delta
from preflexor_agents.backends.calls import call
from preflexor_agents.backends.chat import ChatCall
from preflexor_agents.backends.ollama import BYTES_PER_TOK, ENDED_EARLY
from preflexor_agents.backends.ollama_model import CONTEXT_TOK
from preflexor_agents.backends.ollama_prompt import NEUTRALISED
from preflexor_agents.backends.ollama_server import FAILURES, READ_S, connect, failure, server_url
from preflexor_agents.errors import BackendError, ConfigError
from preflexor_agents.markup import SectionParser

Think = bool | Literal["low", "medium", "high"] | None
_FINISH: Mapping[str | None, FinishReasons] = {"stop": "stop", "length": "length"}
_PER_CALL = ("options", "think", "keep_alive")


class OllamaClientConfig(ClientConfig):
    """Arguments of `OllamaClient`."""

    model: str = Field(min_length=1)
    host: str | None = None
    options: dict[str, Any] | None = None
    think: Think = None
    keep_alive: float | str | None = None
    headers: dict[str, str | SecretStr] | None = None
    timeout: float = Field(default=READ_S, gt=0)
    follow_redirects: bool = True
    stream_thinking: bool = False
    model_info: ModelInfo | None = None


class OllamaClient(LocalClient, Component[OllamaClientConfig]):
    """Chat completion client for a model served by Ollama."""

    component_config_schema = OllamaClientConfig
    component_provider_override = "preflexor_agents.autogen.OllamaClient"
    _constrains_calls = False

    def __init__(
        self,
        model: str,
        *,
        host: str | None = None,
        options: Mapping[str, Any] | None = None,
        think: Think = None,
        keep_alive: float | str | None = None,
        headers: Mapping[str, str | SecretStr] | None = None,
        timeout: float = READ_S,
        follow_redirects: bool = True,
        stream_thinking: bool = False,
        model_info: ModelInfo | None = None,
    ) -> None:
        """Describe the model; nothing is connected before the first call.

        Args:
            model: name of an installed model.
            host: address of the server; OLLAMA_HOST, or this machine, if not given.
            options: of the model, as `temperature`, `seed` or `num_predict`; `num_ctx` is 8192 if not given.
            think: whether a thinking model thinks, or how hard; its default if not given. It does not in calls
                that ask for JSON.
            keep_alive: seconds, or text as `10m`, for which the server keeps the model loaded.
            headers: sent with every request; those that sound secret are masked in a written config.
            timeout: longest silence of the server, in seconds.
            follow_redirects: whether to go where the server points.
            stream_thinking: whether `create_stream` also gives out thinking, between tags.
            model_info: what the model can; guessed from its name if not given.

        Raises:
            ConfigError: a value is wrong.
        """
        if not model.strip():
            raise ConfigError("model is empty; give the name of a model that `ollama list` shows")
        if not timeout > 0:
            raise ConfigError(f"timeout is {timeout!r}; it must be more than 0 seconds")
        super().__init__(model_info=checked(model_info or described(model)), stream_thinking=stream_thinking)
        self._model = model
        self._host = host
        self._url = server_url(host)
        self._options = {"num_ctx": CONTEXT_TOK, **known(options or {}, "options")}
        self._think: Think = think
        self._keep_alive = keep_alive
        self._headers = revealed(headers or {})
        self._timeout = timeout
        self._follow_redirects = follow_redirects
        self._connection: tuple[asyncio.AbstractEventLoop, ollama.AsyncClient] | None = None
        self._json_think: tuple[Think] | None = None
        self._knows_tools = True
        self._correction = Correction()

    def count_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """An estimate of the prompt's tokens, without the server; the more calls were made, the better."""
        sent = wire(folded(messages), thinks=self._thinks) if messages else []
        return self._correction.apply(estimate_tok(sent, functions(tools)))

    async def close(self) -> None:
        """Close the connections. The client can still be used, and opens new ones then."""
        connection, self._connection = self._connection, None
        if connection is not None and connection[0] is asyncio.get_running_loop():
            await connection[1].close()  # type: ignore[no-untyped-call]

    def _context_tok(self) -> int:
        return int(self._options["num_ctx"])

    @property
    def _thinks(self) -> bool:
        return bool(self._think)

    def _to_config(self) -> OllamaClientConfig:
        return OllamaClientConfig(
            model=self._model,
            host=self._host,
            options=self._options,
            think=self._think,
            keep_alive=self._keep_alive,
            headers=masked(self._headers) or None,
            timeout=self._timeout,
            follow_redirects=self._follow_redirects,
            stream_thinking=self._stream_thinking,
            model_info=self._model_info,
        )

    @classmethod
    def _from_config(cls, config: OllamaClientConfig) -> Self:
        return cls(
            config.model,
            host=config.host,
            options=config.options,
            think=config.think,
            keep_alive=config.keep_alive,
            headers=config.headers,
            timeout=config.timeout,
            follow_redirects=config.follow_redirects,
            stream_thinking=config.stream_thinking,
            model_info=config.model_info,
        )

    def _wire(self, ask: Ask) -> list[dict[str, Any]]:
        return wire(ask.messages, thinks=self._thinks)

    async def _reply(
        self, ask: Ask, wire: list[dict[str, Any]], extra: Mapping[str, Any], *, stream: bool
    ) -> AsyncGenerator[Delta | Reply, None]:
        settings = self._settings(extra)
        if ask.schema is not None:
            settings["think"] = await self._thinking_beside_json()
        reply = _Reply(structured=ask.schema is not None)
        try:
            async with aclosing(self._asked(ask, wire, settings, stream=stream)) as pieces:
                async for piece in pieces:
                    for delta in reply.take(piece):
                        yield delta
        except FAILURES as e:
            raise failure(e, url=self._url, name=self._model, arrived=reply.arrived, read_s=self._timeout) from e
        if reply.last is None and not reply.arrived:
            raise BackendError(f"Ollama ended the reply of {self._model} before its first token; ask again")
        estimate = estimate_tok(wire, ask.functions)
        counted = getattr(reply.last, "prompt_eval_count", None) or 0
        context_tok = int(settings["options"]["num_ctx"])
        if counted:
            self._correction.learn(estimate, counted, context_tok=context_tok)
        yield reply.whole(
            prompt_tok=counted or self._correction.apply(estimate),
            notes=(
                *_cut(counted, estimate, context_tok=context_tok),
                *((NEUTRALISED,) if broken_up(wire, ask.messages) else ()),
            ),
        )

    async def _asked(
        self, ask: Ask, wire: list[dict[str, Any]], settings: Mapping[str, Any], *, stream: bool
    ) -> AsyncGenerator[Any, None]:
        """What the server sends; asked again, with the tools in words, if the model's template there knows none."""
        if self._knows_tools or not ask.functions:
            try:
                async with aclosing(self._pieces(ask, wire, settings, stream=stream)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except ollama.ResponseError as e:
                if not ask.functions or "does not support tools" not in e.error:
                    raise
                self._knows_tools = False
        told = in_words(ask)
        async with aclosing(self._pieces(told, self._wire(told), settings, stream=stream)) as pieces:
            async for piece in pieces:
                yield piece

    async def _pieces(
        self, ask: Ask, wire: list[dict[str, Any]], settings: Mapping[str, Any], *, stream: bool
    ) -> AsyncGenerator[Any, None]:
        """What the server sends: many pieces, or one."""
        client = self._connected()
        tools = [f.wire() for f in ask.functions] or None
        if tools:
            client = FullSchemas(client, tools)
        schema = "json" if ask.schema is ANY_OBJECT else ask.schema
        chat: Any = client.chat  # its overloads want a literal `stream`
        answer = await chat(model=self._model, messages=wire, tools=tools, format=schema, stream=stream, **settings)
        if not stream:
            yield answer
            return
        async with aclosing(cast(AsyncGenerator[Any, None], answer)) as pieces:
            async for piece in pieces:
                yield piece

    def _connected(self) -> ollama.AsyncClient:
        """The connection of the running event loop; one of a loop that has ended cannot be used again."""
        loop = asyncio.get_running_loop()
        if self._connection is None or self._connection[0] is not loop:
            client = connect(
                self._url, read_s=self._timeout, headers=self._headers, follow_redirects=self._follow_redirects
            )
            self._connection = (loop, client)
        return self._connection[1]

    def _settings(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of this call: the client's, and what `extra_create_args` changes."""
        options = {**self._options}
        settings: dict[str, Any] = {"think": self._think, "keep_alive": self._keep_alive}
        for name, value in extra.items():
            if name == "options":
                options |= known(value, "extra_create_args['options']")
            elif name in _PER_CALL:
                settings[name] = value
            else:
                try:
                    options |= known({name: value}, "extra_create_args")
                except ConfigError as e:
                    raise CallError(f"{e}; besides these: {', '.join(_PER_CALL)}") from None
        return {**settings, "options": options}

    async def _thinking_beside_json(self) -> Think:
        """Off, so that the schema holds from the first character.

        A server whose built-in parser reads this model's replies applies a schema only after thinking, though
        (read in its source), so there the model goes on thinking.
        """
        if self._json_think is None:
            try:
                shown = await self._connected().show(self._model)
            except FAILURES:
                return False
            parsed = re.search(r"^PARSER \S", shown.modelfile or "", re.MULTILINE) is not None
            thinks = "thinking" in (shown.capabilities or ())
            self._json_think = ((self._think or None) if parsed and thinks else False,)
        return self._json_think[0]


@dataclass(slots=True, kw_only=True)
class _Reply:
    """A reply as it comes in."""

    structured: bool
    last: Any = None
    arrived: int = 0
    _thinking: list[str] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _calls: list[ChatCall] = field(default_factory=list)
    _parser: SectionParser | None = None

    def take(self, piece: Any) -> list[Delta]:
        """What one piece adds."""
        if piece.done:
            self.last = piece
        message = piece.message
        thinking, text = message.thinking or "", message.content or ""
        calls = [call(c.function.name, c.function.arguments) for c in message.tool_calls or ()]
        self._calls += calls
        self.arrived += len(thinking) + len(text) + len(calls)
        found = []
        if thinking:
            self._thinking.append(thinking)
            found.append(Delta("thinking", thinking))
        if text:
            self._text.append(text)
            found += [Delta(channel, words) for channel, words in self._sections().feed(text)]
        return found

    def whole(self, *, prompt_tok: int, notes: tuple[str, ...]) -> Reply:
        """The reply so far."""
        generated = getattr(self.last, "eval_count", None) or 0
        if self.last is None:
            generated, notes = self.arrived // BYTES_PER_TOK, (*notes, ENDED_EARLY)
        return Reply.of(
            self._sections().finish(),
            thinking="".join(self._thinking),
            calls=tuple(self._calls),
            finish_reason=_FINISH.get(getattr(self.last, "done_reason", None), "unknown"),
            prompt_tok=prompt_tok,
            generated_tok=generated,
            notes=notes,
        )

    def _sections(self) -> SectionParser:
        """Made with the first text: by then it is known whether thinking came before it."""
        if self._parser is None:
            tags: Any = {"tags": ()} if self.structured else {}
            self._parser = SectionParser(opened="answer" if self._thinking or self.structured else None, **tags)
        return self._parser


def _cut(counted: int, estimate: int, *, context_tok: int) -> tuple[str, ...]:
    """A note if the server seems to have cut the prompt, which it does without a word."""
    filled = counted >= context_tok - 1
    missing = 0 < counted < 0.6 * estimate and estimate > context_tok // 2
    if filled or missing:
        return (f"Ollama may have cut the prompt: it read {counted} tokens of about {estimate}, num_ctx {context_tok}",)
    return ()
