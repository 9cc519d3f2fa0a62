"""A small HTTP/1.1 server in a thread of its own, for stubs: keep-alive, chunked bodies, broken connections."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object in the body; empty if there is none."""
        try:
            data = json.loads(self.raw)
        except ValueError:
            return {}
        return data if isinstance(data, dict) else {}


@dataclass(frozen=True, slots=True)
class Answer:
    """One JSON value with a status; None is an empty body."""

    value: Any
    status: int = 200


@dataclass(frozen=True, slots=True)
class Stream:
    """NDJSON pieces (or raw bytes), chunked. `whole` sends only the last piece with all text put together.

    An `error` piece that comes first turns into status 500; a later one is a line under status 200.
    """

    pieces: AsyncIterator[Any]
    status: int = 200
    whole: bool = False


class HungUp(Exception):
    """Raised by a stream to cut the connection in the middle of a line."""


class HttpStub:
    """Serves `answer` on a loopback port; every request is kept in `requests`."""

    def __init__(self, answer: Callable[[Recorded], Awaitable[Answer | Stream]]) -> None:
        self.requests: list[Recorded] = []
        self.hung_up = threading.Event()
        self.port = 0
        self._answer = answer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, port: int = 0) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(port, ready)), name="http-stub")
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the stub did not start")

    def stop(self) -> None:
        """Closes the port and every connection. Idempotent."""
        if self._thread is None or self._loop is None:
            return
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)
        self._thread = None

    async def _serve(self, port: int, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stopped.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                if not await self._respond(request, reader, writer):
                    break
        except (asyncio.CancelledError, ConnectionError, HungUp):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _respond(self, request: Recorded, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection can take another request."""
        answer = await self._answer(request)
        if isinstance(answer, Answer):
            _write(writer, answer, head_only=request.method == "HEAD")
            await writer.drain()
            return True
        sending = asyncio.ensure_future(_send(writer, answer))
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done() or isinstance(sending.exception(), ConnectionError):
                self.hung_up.set()
                return False
            await sending
            return True
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Recorded | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, path, _ = head[0].split(" ", 2)
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
    if headers.get("transfer-encoding") == "chunked":
        raw = b""
        while size := int(await reader.readline(), 16):
            raw += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    else:
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
    return Recorded(method, path, headers, raw)


def _write(writer: asyncio.StreamWriter, answer: Answer, *, head_only: bool = False) -> None:
    data = b"" if answer.value is None or head_only else json.dumps(answer.value).encode()
    head = f"HTTP/1.1 {answer.status} -\r\nContent-Type: application/json; charset=utf-8\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)


async def _send(writer: asyncio.StreamWriter, stream: Stream) -> None:
    if stream.whole:
        _write(writer, await _joined(stream))
        await writer.drain()
        return
    begun = False
    try:
        async for piece in stream.pieces:
            if not begun and isinstance(piece, dict) and "error" in piece:
                _write(writer, Answer(piece, 500))
                return
            if not begun:
                _begin(writer, stream.status)
                begun = True
            _chunk(writer, piece if isinstance(piece, bytes) else json.dumps(piece).encode() + b"\n")
            await writer.drain()
    except HungUp:
        if not begun:
            _begin(writer, stream.status)
        _chunk(writer, b'{"model":"tiny","mess')
        await writer.drain()
        raise
    if not begun:
        _begin(writer, stream.status)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def _begin(writer: asyncio.StreamWriter, status: int) -> None:
    kind = "application/x-ndjson" if status == 200 else "application/json"
    writer.write(f"HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


async def _joined(stream: Stream) -> Answer:
    """A stream as one object: texts put together, the rest from the last piece."""
    pieces = [piece async for piece in stream.pieces]
    failed = next((p for p in pieces if "error" in p), None)
    if failed is not None:
        return Answer(failed, 500)
    last = pieces[-1]
    if "message" in last:
        content = "".join(p["message"]["content"] for p in pieces)
        thinking = "".join(p["message"].get("thinking", "") for p in pieces)
        last = last | {
            "message": {"role": "assistant", "content": content} | ({"thinking": thinking} if thinking else {})
        }
    elif "response" in last:
        last = last | {"response": "".join(p["response"] for p in pieces)}
    return Answer(last)
