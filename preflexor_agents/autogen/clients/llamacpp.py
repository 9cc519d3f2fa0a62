"""AutoGen chat completion client for GGUF models in this process.

Clients of one file with the same settings share one model: one thread, which writes the replies of several calls side
by side. A call that is cancelled is no longer decoded.
"""

import weakref
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from autogen_core import Component, FunctionCall, Image
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResultMessage,
    LLMMessage,
    ModelFamily,
    ModelInfo,
    SystemMessage,
    UserMessage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import Field

from preflexor_agents.autogen.clients.base import LocalClient, Reply
from preflexor_agents.autogen.clients.config import ClientConfig, checked
from preflexor_agents.autogen.clients.plan import Ask, folded
from preflexor_agents.autogen.clients.tools import CallError, functions
from preflexor_agents.backends.base import Delta
from preflexor_agents.backends.chat import Chat, ChatCall, ChatTool, ChatTurn
from preflexor_agents.backends.llamacpp import CONTEXT_TOK, nano_path
from preflexor_agents.backends.model_cache import LINGER_S, MODELS, Lease
from preflexor_agents.config import Sampling
from preflexor_agents.errors import ConfigError

if TYPE_CHECKING:
    from preflexor_agents.backends.local_model import LocalModel
    from preflexor_agents.backends.scheduler import Job
    from preflexor_agents.backends.writing import Written

_USUAL = Sampling()


class LlamaCppOptions(ClientConfig):
    """How tokens are drawn, by llama.cpp's names."""

    temperature: float = Field(default=_USUAL.temperature, ge=0)
    top_k: int = Field(default=_USUAL.top_k, ge=0)
    top_p: float = Field(default=_USUAL.top_p, gt=0, le=1)
    repeat_penalty: float = Field(default=_USUAL.repeat_penalty, gt=0)
    max_tokens: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    stop: tuple[str, ...] = ()

    def sampling(self, *, context_tok: int) -> Sampling:
        """In our own terms; as many tokens as fit if `max_tokens` is None."""
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            repeat_penalty=self.repeat_penalty,
            max_tok=self.max_tokens or context_tok,
        )


class LlamaCppClientConfig(ClientConfig):
    """Arguments of `LlamaCppClient`."""

    model_path: str = Field(min_length=1)
    n_ctx: int = Field(default=CONTEXT_TOK, ge=1)
    n_threads: int | None = Field(default=None, ge=1)
    options: dict[str, Any] | None = None
    keep_alive: float = Field(default=LINGER_S, ge=0)
    stream_thinking: bool = False
    model_info: ModelInfo | None = None


class LlamaCppClient(LocalClient, Component[LlamaCppClientConfig]):
    """Chat completion client for a GGUF model in this process."""

    component_config_schema = LlamaCppClientConfig
    component_provider_override = "preflexor_agents.autogen.LlamaCppClient"
    _constrains_calls = True

    def __init__(
        self,
        model_path: str | Path,
        *,
        n_ctx: int = CONTEXT_TOK,
        n_threads: int | None = None,
        options: Mapping[str, Any] | None = None,
        keep_alive: float = LINGER_S,
        stream_thinking: bool = False,
        model_info: ModelInfo | None = None,
    ) -> None:
        """Describe the model; it is loaded by the first call, off the event loop.

        Args:
            model_path: a GGUF file, or `nano` for the bundled model.
            n_ctx: most tokens of prompt and reply together; a model trained with fewer has fewer.
            n_threads: to compute with; half of the usable processors if not given.
            options: `temperature`, `top_k`, `top_p`, `repeat_penalty`, `max_tokens`, `seed` and `stop`.
            keep_alive: seconds for which the model stays loaded when no client uses it any more.
            stream_thinking: whether `create_stream` also gives out thinking, between tags.
            model_info: what the model can; tools and JSON but no images if not given.

        Raises:
            ConfigError: a value is wrong, or there is no such file.
        """
        self._config = LlamaCppClientConfig(
            model_path=str(model_path),
            n_ctx=n_ctx,
            n_threads=n_threads,
            options=dict(options) if options else None,
            keep_alive=keep_alive,
            stream_thinking=stream_thinking,
            model_info=model_info or _TEXT_ONLY,
        )
        info = checked(model_info or _TEXT_ONLY)
        if info["vision"]:
            raise ConfigError(
                "model_info says vision is True; a model in this process reads no images: set it to False"
            )
        super().__init__(model_info=info, stream_thinking=stream_thinking)
        self._options = LlamaCppOptions.model_validate(options or {})
        self._path = nano_path() if self._config.model_path == "nano" else Path(model_path).expanduser()
        if not self._path.is_file():
            raise ConfigError(f"model_path is {str(model_path)!r}: there is no such file; give a GGUF file, or 'nano'")
        self._lease: Lease | None = None
        self._release: weakref.finalize[[float], LlamaCppClient] | None = None

    def count_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """Tokens of the prompt as the model's own template and vocabulary make it.

        Reads the vocabulary, without the weights, if the model is not loaded yet.

        Raises:
            ModelError: the file cannot be used, or its template cannot render such turns.
        """
        if not messages:
            return 0
        return self._held().text().count_chat_tok(_chat(folded(messages), functions(tools)))

    async def close(self) -> None:
        """Give the model back; it stays loaded for `keep_alive` seconds. The client can still be used."""
        release, self._release, self._lease = self._release, None, None
        if release is not None:
            release()

    def _context_tok(self) -> int:
        return min(self._config.n_ctx, self._held().text().trained_tok)

    def _to_config(self) -> LlamaCppClientConfig:
        return self._config

    @classmethod
    def _from_config(cls, config: LlamaCppClientConfig) -> Self:
        return cls(
            config.model_path,
            n_ctx=config.n_ctx,
            n_threads=config.n_threads,
            options=config.options,
            keep_alive=config.keep_alive,
            stream_thinking=config.stream_thinking,
            model_info=config.model_info,
        )

    def _wire(self, ask: Ask) -> list[dict[str, Any]]:
        return [_logged(turn) for turn in _chat(ask.messages, ()).turns]

    async def _reply(
        self, ask: Ask, wire: list[dict[str, Any]], extra: Mapping[str, Any], *, stream: bool
    ) -> AsyncGenerator[Delta | Reply, None]:
        chat = _chat(ask.messages, ask.functions)
        options = self._changed(extra)

        def write(model: "LocalModel", emit: Callable[[Delta], None]) -> "Job[Written]":
            return model.write(
                model.text.chat_prompt(chat, constrained=ask.schema is not None, context_tok=model.context_tok),
                sampling=options.sampling(context_tok=model.context_tok),
                seed=options.seed,
                stop=options.stop,
                schema=ask.schema,
                emit=emit,
                shown=model.text.call_marks if ask.functions else {},
            )

        self._held()
        lease = self._hold()  # for the length of the call, whoever closes the client meanwhile
        try:
            backend = await lease.backend()
            async with aclosing(backend.run(write)) as items:
                async for item in items:
                    yield item if isinstance(item, Delta) else _told(item)
        finally:
            lease.release(self._config.keep_alive)

    def _held(self) -> Lease:
        """This client's hold on the model, until it is closed or forgotten."""
        if self._lease is None:
            self._lease = self._hold()
            self._release = weakref.finalize(self, self._lease.release, self._config.keep_alive)
            self._release.atexit = False
        return self._lease

    def _hold(self) -> Lease:
        return MODELS.lease(self._path, context_tok=self._config.n_ctx, threads=self._config.n_threads)

    def _changed(self, extra: Mapping[str, Any]) -> LlamaCppOptions:
        """The client's options, with what `extra_create_args` changes."""
        if not extra:
            return self._options
        try:
            return LlamaCppOptions.model_validate({**self._options.model_dump(), **extra})
        except ConfigError as e:
            raise CallError(f"extra_create_args: {e}") from None


_TEXT_ONLY = ModelInfo(
    vision=False,
    function_calling=True,
    json_output=True,
    structured_output=True,
    family=ModelFamily.UNKNOWN,
    multiple_system_messages=False,
)


def _chat(messages: Sequence[LLMMessage], tools: tuple[ChatTool, ...]) -> Chat:
    turns: list[ChatTurn] = []
    for message in messages:
        match message:
            case SystemMessage():
                turns.append(ChatTurn(role="system", content=message.content))
            case UserMessage():
                turns.append(ChatTurn(role="user", content=_text(message)))
            case AssistantMessage() if isinstance(message.content, str):
                turns.append(ChatTurn(role="assistant", content=message.content))
            case AssistantMessage():
                made = [call for call in message.content if isinstance(call, FunctionCall)]
                calls = tuple(ChatCall(id=c.id, name=c.name, arguments=c.arguments) for c in made)
                turns.append(ChatTurn(role="assistant", thinking=message.thought or "", calls=calls))
            case FunctionExecutionResultMessage():
                turns += [
                    ChatTurn(role="tool", content=result.content, name=result.name, call_id=result.call_id)
                    for result in message.content
                ]
    return Chat(turns=tuple(turns), tools=tools)


def _text(message: UserMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    if any(isinstance(part, Image) for part in message.content):
        raise CallError("a model in this process reads no images; remove the image, or use OllamaClient")
    return "\n".join(str(part) for part in message.content)


def _told(written: "Written") -> Reply:
    return Reply.of(
        written.sections,
        finish_reason=written.finish_reason,
        prompt_tok=written.usage.prompt,
        generated_tok=written.usage.generated,
        notes=written.notes,
    )


def _logged(turn: ChatTurn) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.calls:
        shown["tool_calls"] = [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in turn.calls]
    if turn.role == "tool":
        shown |= {"name": turn.name, "tool_call_id": turn.call_id}
    return shown
