"""What the models screen asks of an Ollama server: what is in memory, load, unload, pull."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import NamedTuple

import ollama

from preflexor_agents.backends.ollama_server import ASK_S, FAILURES, READ_S, connect, failure, quick, server_url
from preflexor_agents.errors import BackendError, InputError

KEEP = "30m"
"""How long a model that was loaded by hand stays in memory."""


class InMemory(NamedTuple):
    """A model that the server holds."""

    size_bytes: int
    vram_bytes: int
    """Of it on the GPU."""
    expires_at: datetime | None


class Pulled(NamedTuple):
    """How far a pull is."""

    status: str
    done: int = 0
    total: int = 0
    """Bytes; 0 where the server gives none."""


async def in_memory(url: str | None = None) -> dict[str, InMemory]:
    """The models in the server's memory, by name; none if no server answers."""
    url = url or server_url()
    try:
        async with connect(url) as client, quick(url, "the list"):
            running = (await client.ps()).models
    except BackendError:
        return {}
    return {m.model: InMemory(int(m.size or 0), int(m.size_vram or 0), m.expires_at) for m in running if m.model}


async def load(name: str, url: str | None = None) -> None:
    """Put a model into the server's memory. Raises BackendError."""
    await _hold(name, url, keep=KEEP)


async def unload(name: str, url: str | None = None) -> None:
    """Take a model out of the server's memory. Raises BackendError."""
    await _hold(name, url, keep=0)


async def pull(name: str, url: str | None = None) -> AsyncGenerator[Pulled, None]:
    """Fetch a model; what came stays on the server if this is left, and the next pull goes on from there.

    Raises:
        InputError: the name is empty.
        BackendError: no server answers, or it cannot get the model.
    """
    name = name.strip().removeprefix("ollama:")
    if not name or not name.isprintable():
        raise InputError(f"{name!r} is no model's name; name one as in https://ollama.com/library, like qwen3:4b")
    url = url or server_url()
    done: dict[str, tuple[int, int]] = {}
    try:
        async with connect(url, read_s=READ_S) as client:
            answers = await client.pull(name, stream=True)
            async with aclosing(answers) as parts:
                async for part in parts:
                    if part.digest and part.total:
                        done[part.digest] = (part.completed or 0, part.total)
                    yield Pulled(part.status or "", *map(sum, zip(*done.values(), strict=True)))
    except ollama.ResponseError as e:
        raise BackendError(f"Ollama could not pull {name!r}: {' '.join(e.error.split())}; check the name") from e
    except FAILURES as e:
        raise failure(e, url=url, name=name) from e


async def _hold(name: str, url: str | None, *, keep: str | int) -> None:
    url = url or server_url()
    try:
        async with connect(url, read_s=READ_S if keep else ASK_S) as client:
            await client.generate(model=name, prompt="", keep_alive=keep)
    except FAILURES as e:
        raise failure(e, url=url, name=name) from e
