"""Models behind an OpenAI-compatible server (vLLM, llama-server, LM Studio, …): `openai:NAME@BASE_URL`.

The servers agree on little but the form of a request. What only some of them know (top-k, a last turn that is gone on
with) is sent where the server says who it is, and said in the notes where it is left out.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx

from preflexor_agents import openai_endpoint
from preflexor_agents.backends.base import Completion, Delta, FinishReason, Request
from preflexor_agents.backends.ollama_prompt import (
    PREFILL_NOTES,
    Prefill,
    Turns,
    control_strings,
    disarmed,
    turns,
    with_thinking,
)
from preflexor_agents.backends.ollama_server import ASK_S, READ_S, local, timeouts
from preflexor_agents.backends.served_reply import ServedReply
from preflexor_agents.errors import BackendError, ModelError
from preflexor_agents.events import Usage
from preflexor_agents.prompts import Message, hinted

CONTEXT_TOK = 8192
"""Assumed where the server does not say."""
BYTES_PER_TOK = 4
TURN_TOK = 6
OWN_SAMPLING = frozenset({"vllm", "llamacpp", "sglang"})
"""Servers (`owned_by`) that know top-k and a repeat penalty, and go on with a last assistant turn when asked to."""
TAGS = ("<think>", "</think>")
_CONTROL = control_strings("")

NO_TOP_K = "this server may not know top_k and repeat_penalty: they were not sent"
UNCOUNTED = "the server did not count tokens: an estimate is reported"
ENDED_EARLY = "the server ended the reply without a last word"


class OpenAIBackend:
    """One model behind one address. Made by `open`; safe for calls that overlap."""

    def __init__(self, http: httpx.AsyncClient, model: str, *, url: str, about: dict[str, Any]) -> None:
        """Take over a client; `about` is what the server's list says of the model."""
        self._http = http
        self._model = model
        self._url = url
        self._owner = str(about.get("owned_by", "")).lower()
        self._context_tok = _context(about)
        self._untold = () if self._owner in OWN_SAMPLING else (NO_TOP_K,)

    @classmethod
    async def open(cls, name: str) -> "OpenAIBackend":
        """Find the server and the model in `NAME@BASE_URL`.

        Raises:
            InputError: the address is none.
            BackendError: no server answers there.
            ModelError: it does not have the model, or refuses the key.
        """
        model, url = openai_endpoint.split(name)
        if not model:
            raise ModelError(f"no model is named in 'openai:{name}'; write openai:NAME@{url}")
        http = httpx.AsyncClient(
            base_url=f"{url}/", timeout=timeouts(), headers=openai_endpoint.headers(url), trust_env=not local(url)
        )
        try:
            about = await _listed(http, model, url=url)
        except BaseException:
            await http.aclose()
            raise
        return cls(http, model, url=url, about=about)

    @property
    def spec(self) -> str:
        """The model SPEC."""
        return f"openai:{self._model}@{self._url}"

    @property
    def context_tok(self) -> int:
        """Tokens of prompt and reply together, as the server says, else CONTEXT_TOK."""
        return self._context_tok

    @property
    def native_tags(self) -> bool:
        """A server does not say; the prompt asks for tags."""
        return False

    async def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Stream one reply; see `Backend.generate`. Closing it closes the connection, which stops the server."""
        started = time.monotonic()
        body, sent = self._body(request)
        reply = ServedReply(structured=request.json_schema is not None, prefilled=self._goes_on(request))
        last: dict[str, Any] = {}
        try:
            async with self._http.stream("POST", "chat/completions", json=body) as response:
                if not response.is_success:
                    await response.aread()
                    raise self._refusal(response)
                async with aclosing(_events(response)) as events:
                    async for event in events:
                        last |= _news(event, self._model)
                        for delta in reply.take(*_texts(event)):
                            yield delta
        except httpx.HTTPError as e:
            raise self._failure(e, arrived=reply.arrived) from e
        for delta in reply.rest():
            yield delta
        if not last and not reply.arrived:
            raise BackendError(f"{self._url} ended the reply of {self._model} before its first token; ask again")
        told, self._untold = self._untold, ()
        usage = _usage(last.get("usage"))
        counted = usage if usage is not None else self._estimate(request, reply)
        reason: FinishReason = "stop" if last.get("finish_reason") == "stop" else "length"
        yield reply.completion(
            counted,
            reason=reason,
            seconds=time.monotonic() - started,
            problems=() if "finish_reason" in last else (ENDED_EARLY,),
            notes=(*sent.notes, *(() if usage is not None else (UNCOUNTED,)), *told),
        )

    async def count_tok(self, messages: tuple[Message, ...]) -> int:
        """An estimate from the length of the text."""
        return sum(TURN_TOK + -(-len(m.content.encode("utf-8", "replace")) // BYTES_PER_TOK) for m in messages)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _goes_on(self, request: Request) -> bool:
        """Whether finished thinking is put into the reply itself."""
        return request.thinking is not None and self._owner in OWN_SAMPLING

    def _body(self, request: Request) -> tuple[dict[str, Any], Turns]:
        """The request in the servers' common terms, and what was said in it."""
        sampling, owned = request.sampling, self._owner in OWN_SAMPLING
        plain = request.thinking is not None or request.json_schema is not None
        sent = turns(request.messages if plain else hinted(request.messages), _CONTROL)
        messages: list[dict[str, str]] = list(sent.messages)
        body: dict[str, Any] = {
            "model": self._model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_completion_tokens" if self._url == openai_endpoint.OWN_URL else "max_tokens": sampling.max_tok,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": request.seed,
        }
        if owned:
            penalty = sampling.repeat_penalty
            body |= {"top_k": sampling.top_k or -1, "repetition_penalty": penalty, "repeat_penalty": penalty}
        if request.stop:
            body["stop"] = list(request.stop)
        if request.json_schema is not None:
            form = {"name": "reply", "strict": True, "schema": dict(request.json_schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        if request.thinking is not None:
            way: Prefill = "content" if self._goes_on(request) else "quoted"
            messages = with_thinking(messages, TAGS, disarmed(request.thinking.strip(), _CONTROL), way=way)
            if way == "quoted":
                sent = Turns(sent.messages, (*sent.notes, PREFILL_NOTES["quoted"]))
            else:
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        if owned and plain:
            body["chat_template_kwargs"] = {"enable_thinking": False}
        return {**body, "messages": messages}, sent

    def _estimate(self, request: Request, reply: ServedReply) -> Usage:
        prompt = sum(TURN_TOK + len(m.content) // BYTES_PER_TOK for m in request.messages)
        return Usage(prompt=prompt, generated=-(-reply.arrived // BYTES_PER_TOK))

    def _refusal(self, response: httpx.Response) -> BackendError:
        said = openai_endpoint.reason(response.status_code, response.text)
        match response.status_code:
            case 401 | 403:
                remedy = openai_endpoint.key_remedy(self._url)
                return ModelError(f"{self._url} refused the key ({said}); {remedy}")
            case 404:
                return ModelError(f"{self._url} has no model {self._model!r} ({said}); name another one")
            case 400 | 413 | 422 if "context" in said or "too long" in said:
                return BackendError(f"the prompt does not fit {self._model} ({said}); use fewer passages")
        return BackendError(f"{self._url} could not go on with {self._model}: {said}")

    def _failure(self, error: httpx.HTTPError, *, arrived: int) -> BackendError:
        so_far = f" after {arrived} characters of the reply" if arrived else " before the first token"
        match error:
            case httpx.ConnectError() | httpx.ConnectTimeout():
                return _no_server(self._url)
            case httpx.TimeoutException():
                return BackendError(
                    f"{self._url} sent nothing for {READ_S:g} s{so_far}; {self._model} may be too large"
                )
        return BackendError(f"the connection to {self._url} was lost{so_far} ({_line(error)}); ask again")


async def _listed(http: httpx.AsyncClient, model: str, *, url: str) -> dict[str, Any]:
    """What the server says of the model; nothing where it keeps no list."""
    try:
        async with asyncio.timeout(ASK_S):
            response = await http.get("models")
    except TimeoutError as e:
        raise BackendError(f"{url} did not answer within {ASK_S:.0f} s; is it starting? try again") from e
    except httpx.HTTPError as e:
        raise _no_server(url) from e
    if response.status_code in (401, 403):
        said = openai_endpoint.reason(response.status_code, response.text)
        raise ModelError(f"{url} refused the key ({said}); {openai_endpoint.key_remedy(url)}")
    if not response.is_success:
        return {}
    try:
        listed = [item for item in response.json()["data"] if isinstance(item, dict)]
    except (ValueError, TypeError, KeyError):
        lacks = f"what answers at {url} is no OpenAI-compatible server; its address mostly ends in /v1"
        raise BackendError(lacks) from None
    found = next((item for item in listed if item.get("id") == model), None)
    if found is None and listed:
        has = ", ".join(str(item.get("id")) for item in listed[:8])
        raise ModelError(f"{url} has no model {model!r}; it has {has}")
    return found or {}


async def _events(response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
    """The JSON objects of a stream of server-sent events. Raises BackendError for an error among them."""
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        text = line.removeprefix("data:").strip()
        if text == "[DONE]":
            return
        try:
            event = json.loads(text)
        except (ValueError, RecursionError):
            raise BackendError(f"the server sent no JSON in the middle of a reply: {text[:60]!r}; ask again") from None
        if isinstance(event, dict):
            yield event


def _news(event: dict[str, Any], model: str) -> dict[str, Any]:
    """What of an event is about the whole reply. Raises BackendError for one that says that it failed."""
    if event.get("error"):
        said = openai_endpoint.reason(0, json.dumps(event)).removeprefix("0 ")
        raise BackendError(f"the server could not go on with {model}: {said}")
    found = {"usage": event["usage"]} if isinstance(event.get("usage"), dict) else {}
    reason = _choice(event).get("finish_reason")
    return {**found, "finish_reason": reason} if reason else found


def _texts(event: dict[str, Any]) -> tuple[str, str]:
    """Thinking and text of an event."""
    delta = _choice(event).get("delta")
    if not isinstance(delta, dict):
        return "", ""
    thinking = delta.get("reasoning_content") or delta.get("reasoning") or ""
    text = delta.get("content") or ""
    return thinking if isinstance(thinking, str) else "", text if isinstance(text, str) else ""


def _choice(event: dict[str, Any]) -> dict[str, Any]:
    choices = event.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _usage(counted: Any) -> Usage | None:
    """Tokens as the server counted them."""
    if not isinstance(counted, dict) or not isinstance(counted.get("prompt_tokens"), int):
        return None
    details = counted.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    generated = counted.get("completion_tokens")
    return Usage(
        prompt=counted["prompt_tokens"],
        cached=cached if isinstance(cached, int) else 0,
        generated=generated if isinstance(generated, int) else 0,
    )


def _context(about: dict[str, Any]) -> int:
    """VLLM says `max_model_len`; llama-server says `meta.n_ctx`, an older one what the model was trained for."""
    meta = about.get("meta")
    said = [about.get("max_model_len"), *(meta.get(key) for key in ("n_ctx", "n_ctx_train") if isinstance(meta, dict))]
    return next((tok for tok in said if isinstance(tok, int) and tok > 0), CONTEXT_TOK)


def _no_server(url: str) -> BackendError:
    return BackendError(f"no server answers at {url}; start it, or correct the address after '@'")


def _line(reason: object) -> str:
    return " ".join(str(reason).split())[:200] or type(reason).__name__
