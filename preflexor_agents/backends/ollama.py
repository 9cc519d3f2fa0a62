"""Models served by Ollama: `ollama:NAME`, on OLLAMA_HOST or this machine.

The server is asked with explicit context, seed and sampling, and its habits are dealt with: thinking that arrives
in a field of its own or as tags in the text, a template that may not let us continue a turn, control strings that
it would obey in any text, prompts that it cuts without a word.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import httpx
import ollama

from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.backends.ollama_model import OllamaModel, find_model, twins
from preflexor_agents.backends.ollama_prompt import (
    NEUTRALISED,
    PREFILL_NOTES,
    Prefill,
    continued,
    control_strings,
    disarmed,
    prefill_way,
    turns,
    with_thinking,
)
from preflexor_agents.backends.ollama_server import (
    FAILURES,
    READ_S,
    connect,
    connect_plain,
    failure,
    most_parallel,
    rendered,
    server_url,
)
from preflexor_agents.backends.served_reply import ServedReply
from preflexor_agents.config import Sampling
from preflexor_agents.errors import BackendError
from preflexor_agents.events import Usage
from preflexor_agents.prompts import Message, hinted

BYTES_PER_TOK = 4
"""Ordinary English prose; the server offers no tokenizer."""
MOST_BYTES_PER_TOK = 8
"""Text that is longer than this many bytes for each token of the context cannot fit."""
TURN_TOK = 6
"""Markers around a message."""

CACHE_UNKNOWN = "Ollama does not say how many prompt tokens came from its cache: 0 is reported"
UNCOUNTED = "Ollama did not count all tokens: what it left out is an estimate"
ENDED_EARLY = "Ollama ended the reply without a last word (it stops a model that repeats itself)"
WAITED_S = 1.0
"""Waiting for the server is mentioned from here on."""


class OllamaBackend:
    """One model on an Ollama server. Made by `open`; safe for calls that overlap."""

    def __init__(
        self, client: ollama.AsyncClient, model: OllamaModel, *, url: str, most: int, notes: tuple[str, ...] = ()
    ) -> None:
        """Take over a client; at most `most` calls are sent at once, in order of arrival."""
        self._client = client
        self._model = model
        self._url = url
        self._control = control_strings(model.template)
        self._plain: httpx.AsyncClient | None = None
        self._way: Prefill | None = None
        self._untold = (CACHE_UNKNOWN, *notes)
        self._turns = asyncio.Semaphore(most)
        self._silence_s = READ_S * most
        """Longest silence: the server may work off all the other calls first."""

    @classmethod
    async def open(cls, name: str) -> "OllamaBackend":
        """Find the server and the model; nothing is loaded yet.

        Raises:
            ConfigError: OLLAMA_HOST is no address, or OLLAMA_NUM_PARALLEL no number.
            BackendError: no Ollama server there.
            ModelError: the model is not installed, or cannot chat.
        """
        url, most = server_url(), most_parallel()
        client = connect(url, read_s=READ_S * most)
        try:
            model = await find_model(client, name, url=url)
            same = await twins(client, model, url=url)
        except BaseException:
            await client.close()  # type: ignore[no-untyped-call]
            raise
        garbled = (
            "is loaded with the same weights and another template: if replies are garbled, stop it with: ollama stop"
        )
        return cls(client, model, url=url, most=most, notes=tuple(f"{other} {garbled} {other}" for other in same))

    @property
    def spec(self) -> str:
        """The model SPEC."""
        return f"ollama:{self._model.name}"

    @property
    def context_tok(self) -> int:
        """Tokens of prompt and reply together; asked for explicitly in every call."""
        return self._model.context_tok

    @property
    def native_tags(self) -> bool:
        """Whether the server or the template knows thinking tags for this model."""
        return self._model.native_tags

    async def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Stream one reply when its turn comes; see `Backend.generate`.

        Closing it closes the connection, which stops the server.
        """
        started = time.monotonic()
        async with self._turns, aclosing(self._generate(request, started)) as items:
            async for item in items:
                yield item

    async def _generate(self, request: Request, started: float) -> AsyncGenerator[Delta | Completion, None]:
        call = await self._call(request)
        reply = ServedReply(structured=request.json_schema is not None, prefilled=call.prefilled)
        last: Any = None
        try:
            pieces = cast(AsyncGenerator[Any, None], await self._send(call))
            async with aclosing(pieces):
                async for piece in pieces:
                    last = piece if piece.done else last
                    for delta in reply.take(*_texts(piece)):
                        yield delta
        except FAILURES as e:
            raise failure(e, url=self._url, name=self._model.name, arrived=reply.arrived, read_s=self._silence_s) from e
        for delta in reply.rest():
            yield delta
        if last is None and not reply.arrived:
            raise BackendError(f"Ollama ended the reply of {self._model.name} before its first token; ask again")
        told, self._untold = self._untold, ()
        usage, notes = self._usage(last, call, arrived=reply.arrived)
        # Others, or loading: what passed before the first piece and was not reading the prompt.
        read_ns = (last.prompt_eval_duration or 0) if last is not None else 0
        waited = reply.began - started - read_ns / 1e9 if reply.began else 0.0
        if waited >= WAITED_S:
            notes = (*notes, f"waited {waited:.1f} s for the server")
        yield reply.completion(
            usage,
            reason="length" if last is None or last.done_reason == "length" else "stop",
            seconds=time.monotonic() - started,
            problems=() if last is not None else (ENDED_EARLY,),
            notes=(*call.notes, *notes, *told),
        )

    async def count_tok(self, messages: tuple[Message, ...]) -> int:
        """An estimate from the length of the text."""
        return sum(TURN_TOK + -(-_size(m.content) // BYTES_PER_TOK) for m in messages)

    async def aclose(self) -> None:
        """Close the connections. The server keeps the model loaded for as long as it likes."""
        await self._client.close()  # type: ignore[no-untyped-call]
        if self._plain is not None:
            await self._plain.aclose()

    async def _call(self, request: Request) -> "_Call":
        """The request in Ollama's terms. Raises BackendError if it cannot fit."""
        size = sum(_size(m.content) for m in request.messages) + _size(request.thinking or "")
        estimate = await self.count_tok(request.messages) + _size(request.thinking or "") // BYTES_PER_TOK
        if size > self.context_tok * MOST_BYTES_PER_TOK:
            raise BackendError(
                f"the prompt is about {estimate} tokens and {self._model.name} takes {self.context_tok};"
                " ask a shorter question, use fewer passages, or give the model a larger `PARAMETER num_ctx`"
            )
        plain = self._model.native_tags or request.thinking is not None or request.json_schema is not None
        sent = turns(request.messages if plain else hinted(request.messages), self._control)
        call = _Call(
            messages=list(sent.messages),
            options=self._options(request),
            schema=dict(request.json_schema) if request.json_schema is not None else None,
            think=request.json_schema is None if self._model.thinks else None,
            estimate=estimate,
            notes=sent.notes,
        )
        if request.thinking is not None:
            await self._prefill(call, request.thinking.strip())
        elif self._parsed(call):
            call.prompt = await rendered(self._http, self._body(call))
        return call

    @property
    def _http(self) -> httpx.AsyncClient:
        """Made when first needed: it takes 70 ms."""
        if self._plain is None:
            self._plain = connect_plain(self._url)
        return self._plain

    def _parsed(self, call: "_Call") -> bool:
        """Whether the server would wait for thinking to end before it obeys the schema; a raw prompt it obeys at once.

        So do the built-in parsers, although thinking is off; harmony models think in any case.
        """
        return call.schema is not None and self._model.thinks and self._model.parser not in ("", "harmony")

    async def _prefill(self, call: "_Call", thinking: str) -> None:
        """Put finished thinking where the model goes on after it, and say how if not in the usual way."""
        if self._way is None:
            self._way = await prefill_way(self._http, self._model, options={"num_ctx": self.context_tok})
        safe, way = disarmed(thinking, self._control), self._way
        if safe != thinking and NEUTRALISED not in call.notes:
            call.notes += (NEUTRALISED,)
        if way in PREFILL_NOTES:
            call.notes += (PREFILL_NOTES[way],)
        if way == "raw" or (way != "quoted" and self._parsed(call)):
            # With thinking off, a template may write an empty section before the reply.
            prompt = await rendered(self._http, {**self._body(call), **({"think": True} if self._model.thinks else {})})
            if prompt is None:
                raise BackendError(f"Ollama at {self._url} would not show the prompt of {self._model.name}; ask again")
            call.prompt = continued(prompt, self._model.tags, safe)
        else:
            call.messages = with_thinking(call.messages, self._model.tags, safe, way=way)
            if way == "quoted" and self._model.thinks:
                call.think = False
        call.prefilled = way != "quoted"

    def _options(self, request: Request) -> dict[str, Any]:
        sampling: Sampling = request.sampling
        options: dict[str, Any] = {
            "num_ctx": self.context_tok,
            "num_predict": sampling.max_tok,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "repeat_penalty": sampling.repeat_penalty,
            "seed": request.seed,
        }
        if request.stop:
            options["stop"] = [*self._model.stops, *request.stop]
        return options

    def _body(self, call: "_Call") -> dict[str, Any]:
        body = {"model": self._model.name, "messages": call.messages, "options": call.options}
        return body if call.think is None else {**body, "think": call.think}

    async def _send(self, call: "_Call") -> AsyncIterator[Any]:
        name, think = self._model.name, call.think
        if call.prompt is None:
            return await self._client.chat(
                name, call.messages, stream=True, think=think, format=call.schema, options=call.options
            )
        return await self._client.generate(
            name,
            call.prompt,
            raw=True,
            stream=True,
            think=None if think is None else False,
            format=call.schema,
            options=call.options,
        )

    def _usage(self, last: Any, call: "_Call", *, arrived: int) -> tuple[Usage, tuple[str, ...]]:
        """Tokens as the server counted them in its last piece, and what looks wrong about them."""
        if last is None:
            return Usage(prompt=call.estimate, generated=-(-arrived // BYTES_PER_TOK)), (UNCOUNTED,)
        counted, generated = last.prompt_eval_count, last.eval_count or 0
        if not counted:
            return Usage(prompt=call.estimate, generated=generated), (UNCOUNTED,)
        usage = Usage(prompt=counted, generated=generated)
        filled = counted >= self.context_tok - 1
        missing = call.estimate > self.context_tok // 2 and counted < 0.6 * call.estimate
        if filled or missing:
            return usage, (
                f"Ollama may have cut the prompt: it read {counted} tokens of about {call.estimate},"
                f" num_ctx is {self.context_tok}",
            )
        return usage, ()


@dataclass(slots=True, kw_only=True)
class _Call:
    """A request in Ollama's terms; with a `prompt` it goes out raw."""

    messages: list[dict[str, str]]
    options: dict[str, Any]
    schema: dict[str, Any] | None
    think: bool | None
    estimate: int
    notes: tuple[str, ...] = ()
    prompt: str | None = None
    prefilled: bool = False


def _texts(piece: Any) -> tuple[str, str]:
    """Thinking and text of a piece of /api/chat or /api/generate."""
    if isinstance(piece, ollama.ChatResponse):
        return piece.message.thinking or "", piece.message.content or ""
    return piece.thinking or "", piece.response or ""


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
