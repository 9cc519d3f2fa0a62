"""A file on its way into an Ollama server: read from disk piece by piece, skipped if it is there, sent again if broken.

Ollama takes a file whole: a connection that breaks means to begin that file again, which is done here a few times.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import httpx

from preflexor_agents.backends.ollama_server import failure
from preflexor_agents.errors import BackendError, InputError, PreflexorError

PIECE_BYTES = 1 << 20
WAITS_S = (1.0, 4.0)
"""Before the second and the third attempt."""


class Step(NamedTuple):
    """How far something has come."""

    what: str
    done: int = 0
    total: int = 0
    """Bytes; 0 where the step has no size."""


Watch = Callable[[Step], None]


async def digest(file: Path, watch: Watch) -> str:
    """The file's SHA-256, in hex. Raises InputError if it cannot be read."""
    found = hashlib.sha256()
    async for piece in _pieces(file, "reading", watch):
        found.update(piece)
    return found.hexdigest()


async def send(http: httpx.AsyncClient, file: Path, sha256: str, watch: Watch) -> bool:
    """Put a file into the server's store; False if it was there already.

    Raises:
        BackendError: the server is gone, also at the last attempt, or refuses the file.
        InputError: the file cannot be read.
        PreflexorError: the file changed meanwhile, or a disk is full.
    """
    place, size = f"/api/blobs/sha256:{sha256}", file.stat().st_size
    sent = 0

    def count(step: Step) -> None:
        nonlocal sent
        sent = step.done
        watch(step)

    for wait_s in (*WAITS_S, None):
        try:
            if (await http.head(place)).status_code == 200:
                return False
            _check_room(http, size)
            body = _pieces(file, "sending", count)
            reply = await http.post(place, content=body, headers={"Content-Length": str(size)})
        except httpx.ConnectError as e:
            if not sent or wait_s is None:
                raise failure(e, url=str(http.base_url), name=file.name) from e
        except httpx.TransportError as e:
            if wait_s is None:
                raise BackendError(_broken(http, file, sent, size)) from e
        else:
            if reply.status_code in (200, 201):
                return True
            raise _refused(reply, file)
        watch(Step(f"the connection broke after {megabytes(sent)}: once more"))
        await asyncio.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def megabytes(size: int) -> str:
    """A size in words."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


async def _pieces(file: Path, what: str, watch: Watch) -> AsyncIterator[bytes]:
    """The file in pieces; between them the task can be cancelled."""
    try:
        with file.open("rb") as source:
            total, done = os.fstat(source.fileno()).st_size, 0
            watch(Step(what, 0, total))
            while piece := source.read(PIECE_BYTES):
                yield piece
                done += len(piece)
                watch(Step(what, done, total))
                await asyncio.sleep(0)
    except OSError as e:
        raise InputError(f"{file} cannot be read: {e.strerror or e}; give the path of a GGUF file") from None


def _check_room(http: httpx.AsyncClient, size: int) -> None:
    """A server on this machine keeps the file, and once more what it makes of it. Raises PreflexorError."""
    folder = Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")
    if http.base_url.host not in ("127.0.0.1", "localhost", "::1") or not folder.is_dir():
        return
    free = shutil.disk_usage(folder).free
    if free < 2 * size:
        raise PreflexorError(
            f"{folder} has {megabytes(free)} free and Ollama needs up to {megabytes(2 * size)} for this model;"
            " make room, or set OLLAMA_MODELS to another disk"
        )


def _broken(http: httpx.AsyncClient, file: Path, sent: int, size: int) -> str:
    return (
        f"the connection to Ollama at {http.base_url} broke after {megabytes(sent)} of {megabytes(size)},"
        f" {len(WAITS_S) + 1} times; nothing was made of {file.name}: see that the server runs, then repeat the command"
    )


def _refused(reply: httpx.Response, file: Path) -> PreflexorError:
    said = " ".join(reply.text.split())[:300]
    if "digest mismatch" in said:
        return PreflexorError(f"{file} changed while it was sent, so Ollama refused it; let it rest and repeat")
    if "no space left" in said:
        return PreflexorError(f"the disk of the Ollama server is full ({said}); make room and repeat")
    return BackendError(f"Ollama refused {file.name} (status {reply.status_code}): {said or 'it gives no reason'}")
