"""A file on its way into an Ollama server: read from disk piece by piece, skipped if it is there, sent again if broken.

Ollama takes a file whole: a connection that breaks means to begin that file again, which is done here a few times.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from preflexor_agents.backends.ollama_server import failure
from preflexor_agents.errors import BackendError, InputError, PreflexorError
from preflexor_quantize.files import Watch, Written, check_room, gigabytes

PIECE_BYTES = 1 << 20
WAITS_S = (1.0, 4.0)
"""Before the second and the third attempt."""


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

    def count(step: Written) -> None:
        nonlocal sent
        sent = step.done_bytes
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
        watch(Written(f"the connection broke after {gigabytes(sent)}: once more", 0, 0))
        await asyncio.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


async def _pieces(file: Path, what: str, watch: Watch) -> AsyncIterator[bytes]:
    """The file in pieces; between them the task can be cancelled."""
    try:
        with file.open("rb") as source:
            total, done = os.fstat(source.fileno()).st_size, 0
            watch(Written(what, 0, total))
            while piece := source.read(PIECE_BYTES):
                yield piece
                done += len(piece)
                watch(Written(what, done, total))
                await asyncio.sleep(0)
    except OSError as e:
        raise InputError(f"{file} cannot be read: {e.strerror or e}; give the path of a GGUF file") from None


def _check_room(http: httpx.AsyncClient, size: int) -> None:
    """A server on this machine keeps the file, and once more what it makes of it. Raises PreflexorError."""
    folder = Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")
    if http.base_url.host in ("127.0.0.1", "localhost", "::1") and folder.is_dir():
        check_room(folder, 2 * size)


def _broken(http: httpx.AsyncClient, file: Path, sent: int, size: int) -> str:
    return (
        f"the connection to Ollama at {http.base_url} broke after {gigabytes(sent)} of {gigabytes(size)},"
        f" {len(WAITS_S) + 1} times; nothing was made of {file.name}: see that the server runs, then repeat the command"
    )


def _refused(reply: httpx.Response, file: Path) -> PreflexorError:
    said = " ".join(reply.text.split())[:300]
    if "digest mismatch" in said:
        return PreflexorError(f"{file} changed while it was sent, so Ollama refused it; let it rest and repeat")
    if "no space left" in said:
        return PreflexorError(f"the disk of the Ollama server is full ({said}); make room and repeat")
    return BackendError(f"Ollama refused {file.name} (status {reply.status_code}): {said or 'it gives no reason'}")
