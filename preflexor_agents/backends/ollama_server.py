"""The way to an Ollama server: where it is, how long to wait for it, and its failures in our words."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import ollama

from preflexor_agents.errors import BackendError, ConfigError, ModelError

CONNECT_S = 5.0
READ_S = 600.0
"""Longest silence: the server may load the model and read a long prompt before the first token."""
ASK_S = 30.0
"""Longest wait for what needs no model: which models there are, what one is."""
PORT = 11434
PARALLEL = 4
"""Calls sent at once where nothing says how many the server takes. It queues what is too many for it; more in its
queue would only run out of patience there."""

FAILURES = (ollama.ResponseError, ollama.RequestError, httpx.HTTPError, ConnectionError, ValueError)
"""What the client raises; ValueError is a reply that is no JSON or lacks a field."""


def server_url(host: str | None = None) -> str:
    """Where `host`, or else OLLAMA_HOST, says the server is, as Ollama itself reads it. Raises ConfigError."""
    given = "OLLAMA_HOST" if host is None else "host"
    host = (os.environ.get("OLLAMA_HOST", "") if host is None else host).strip().rstrip("/")
    whole = "://" in host
    try:
        parts = urlsplit(host if whole else f"http://{host}")
        port = parts.port or ({"https": 443, "http": 80}[parts.scheme] if whole else PORT)
    except (ValueError, KeyError):
        raise ConfigError(f"{given} is {host!r}; it must be like 127.0.0.1:11434 or https://example.org") from None
    name = parts.hostname or "127.0.0.1"
    if name == "0.0.0.0":
        name = "127.0.0.1"
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}{parts.path}"


def most_parallel() -> int:
    """Most calls that are sent at once: OLLAMA_NUM_PARALLEL, else PARALLEL. A server does not tell its own bound.

    Raises:
        ConfigError: the variable is no number that Ollama would take.
    """
    said = os.environ.get("OLLAMA_NUM_PARALLEL", "").strip()
    if not said:
        return PARALLEL
    if not (said.isascii() and said.isdigit() and len(said) < 4):
        raise ConfigError(f"OLLAMA_NUM_PARALLEL is {said[:40]!r}; it must be a number like 4, as the server was given")
    return int(said) or PARALLEL  # 0 lets the server decide


def connect(
    url: str, *, read_s: float = READ_S, headers: Mapping[str, str] | None = None, follow_redirects: bool = True
) -> ollama.AsyncClient:
    """A client for `url`. A server on this machine is never reached through a proxy."""
    return ollama.AsyncClient(
        host=url,
        timeout=timeouts(read_s),
        headers=headers,
        follow_redirects=follow_redirects,
        trust_env=not local(url),
    )


def connect_plain(url: str) -> httpx.AsyncClient:
    """The same without Ollama's own client, which cannot say `_debug_render_only`."""
    key = os.environ.get("OLLAMA_API_KEY")
    return httpx.AsyncClient(
        base_url=url,
        timeout=timeouts(),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        follow_redirects=True,
        trust_env=not local(url),
    )


async def rendered(http: httpx.AsyncClient, body: Mapping[str, Any]) -> str | None:
    """The prompt that /api/chat would make of `body`; None where the server or the template refuses to say.

    Raises:
        BackendError: the server cannot be reached.
    """
    # A server that does not know the flag answers instead: one token is enough to find out.
    options = {**body.get("options", {}), "num_predict": 1}
    asked = {**body, "options": options, "stream": False, "_debug_render_only": True}
    try:
        response = await http.post("/api/chat", json=asked)
    except httpx.TransportError as e:
        raise failure(e, url=str(http.base_url), name=str(body["model"])) from e
    try:
        prompt = response.json()["_debug_info"]["rendered_template"]
    except (ValueError, KeyError, TypeError):
        return None
    return prompt if isinstance(prompt, str) and prompt else None


@asynccontextmanager
async def quick(url: str, name: str) -> AsyncIterator[None]:
    """Around questions that need no model: a limit of ASK_S, and failures as BackendError."""
    try:
        async with asyncio.timeout(ASK_S):
            yield
    except TimeoutError as e:
        raise BackendError(f"Ollama at {url} did not answer within {ASK_S:.0f} s; is it starting? try again") from e
    except (*FAILURES, TypeError, AttributeError) as e:  # JSON that is no object
        raise failure(e, url=url, name=name) from e


def failure(error: Exception, *, url: str, name: str, arrived: int = 0, read_s: float = READ_S) -> BackendError:
    """What went wrong in a call, in one line; `arrived` is the number of characters that had come."""
    so_far = f" after {arrived} characters of the reply" if arrived else " before the first token"
    match error:
        case ollama.ResponseError():
            return _refusal(error, url=url, name=name, so_far=so_far)
        case httpx.ConnectError() | httpx.ConnectTimeout() | ConnectionError():
            return BackendError(f"no Ollama server answers at {url}; start it with: ollama serve, or set OLLAMA_HOST")
        case httpx.TimeoutException():
            return BackendError(f"Ollama sent nothing for {read_s:g} s{so_far}; {name} may be too large for here")
        case httpx.TransportError():
            return BackendError(f"the connection to Ollama at {url} was lost{so_far} ({_line(error)}); ask again")
        case ValueError() | TypeError() | AttributeError():
            return _not_ollama(url)
    return BackendError(f"Ollama at {url} failed{so_far}: {_line(error)}")


def _refusal(error: ollama.ResponseError, *, url: str, name: str, so_far: str) -> BackendError:
    said = _line(error.error)
    if error.status_code in (404, 405):
        if "model" in said and "not found" in said:
            return ModelError(f"Ollama has no model {name!r}; get it with: ollama pull {name}")
        return _not_ollama(url)
    if "context size" in said or "context length" in said:
        return BackendError(
            f"the prompt does not fit {name} ({said}); use fewer passages or a larger `PARAMETER num_ctx`"
        )
    return BackendError(f"Ollama could not go on with {name}{so_far}: {said}")


def _not_ollama(url: str) -> BackendError:
    return BackendError(f"what answers at {url} is not an Ollama server; set OLLAMA_HOST to where it listens")


def _line(reason: object) -> str:
    return " ".join(str(reason).split())[:300] or type(reason).__name__


def timeouts(read_s: float = READ_S) -> httpx.Timeout:
    """Explicit for every phase; the client's own default is to wait for ever."""
    return httpx.Timeout(connect=CONNECT_S, read=read_s, write=60.0, pool=read_s)


def local(url: str) -> bool:
    """Whether the server is on this machine."""
    name = urlsplit(url).hostname or ""
    return name in ("localhost", "::1") or name.startswith("127.")
