"""Parses files in a process of its own, which is started when it is needed and again when it had to be stopped."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from importlib.metadata import EntryPoint
from types import TracebackType
from typing import IO, Any, Self

from preflexor_agents.errors import DocumentError
from preflexor_agents.store.paths import printable
from preflexor_agents.store.reading.formats import MEMORY_BYTES, TIMEOUT_S, Format
from preflexor_agents.store.reading.parsed import Parsed, from_json

_COMMAND = ("-P", "-m", "preflexor_agents.store.reading.worker")
_LONGEST_REASON = 300
_TAIL_BYTES = 4000


class _Gone(Exception):
    """The process ended before it answered."""


class _OutOfMemory(Exception):
    """The process could not get the memory it asked for."""


class Sandbox:
    """The process, or none while nothing has to be parsed. Use it as a context manager or call `close`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._served = 0
        """Requests that the process has answered."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the process. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
        if self._errors is not None:
            self._errors.close()
        self._process, self._errors, self._served = None, None, 0

    def parse(self, form: Format, data: bytes, name: str) -> Parsed:
        """The document in the bytes of a file of this name.

        Raises:
            DocumentError: the parser refused it, crashed, took too long or too much memory. Says what is wrong,
                without the file's name.
        """
        request = {
            "work": "parse",
            "target": form.target,
            "name": name,
            "timeout_s": form.timeout_s,
            "memory_bytes": form.memory_bytes,
        }
        try:
            try:
                return from_json(self._asked_again(request, data))
            except _Gone:
                if not form.fallback:
                    raise
                return from_json(self._asked({**request, "target": form.fallback}, data))
        except TimeoutError:
            raise DocumentError(
                f"took longer than {form.timeout_s:g} s to parse as {form.name}; split it, or convert it to text"
            ) from None
        except _OutOfMemory:
            raise DocumentError(
                f"needs more than {form.memory_bytes >> 20} MiB to parse as {form.name}; split it, or convert it"
            ) from None
        except _Gone as error:
            raise DocumentError(f"broke the {form.name} parser ({error}); convert it to text or Markdown") from None
        except (ValueError, TypeError) as error:
            raise DocumentError(f"broke the {form.name} parser ({error}); convert it to text or Markdown") from error

    def describe(self, entry: EntryPoint) -> Format:
        """The format that a plug-in brings.

        Raises:
            DocumentError: the plug-in is broken; says so in one line.
        """
        request = {
            "work": "describe",
            "target": entry.value,
            "name": entry.name,
            "timeout_s": TIMEOUT_S,
            "memory_bytes": MEMORY_BYTES,
        }
        package = f" of {entry.dist.name}" if entry.dist else ""
        try:
            known = json.loads(self._asked(request, b""))
            return Format(
                name=entry.name,
                suffixes=frozenset(known["suffixes"]),
                version=known["version"],
                target=entry.value,
                timeout_s=float(known.get("timeout_s", TIMEOUT_S)),
                memory_bytes=int(known.get("memory_bytes", MEMORY_BYTES)),
            )
        except TimeoutError:
            reason = f"not loaded after {TIMEOUT_S:g} s"
        except _OutOfMemory:
            reason = f"more than {MEMORY_BYTES >> 20} MiB needed"
        except (_Gone, DocumentError, ValueError, TypeError) as error:
            reason = str(error)
        raise DocumentError(
            f"format plug-in {printable(entry.name)}{package} is left out ({reason}); update or uninstall it"
        )

    def _asked_again(self, request: dict[str, Any], data: bytes) -> bytes:
        """The reply; a process that parsed other files before may owe its end to them, so a fresh one tries too."""
        if self._served:
            try:
                return self._asked(request, data)
            except (_Gone, _OutOfMemory):
                pass
        return self._asked(request, data)

    def _asked(self, request: dict[str, Any], data: bytes) -> bytes:
        process = self._started()
        timed_out = threading.Event()

        def stop() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(request["timeout_s"], stop)
        timer.daemon = True
        timer.start()
        try:
            header, reply = _exchanged(process, {**request, "size_bytes": len(data)}, data)
        except BaseException as error:
            timer.cancel()
            reason = self._reason()
            self.close()
            if isinstance(error, OSError | EOFError | ValueError):
                raise (TimeoutError() if timed_out.is_set() else _Gone(reason)) from error
            raise
        timer.cancel()
        if "memory" in header:
            self.close()
            raise _OutOfMemory
        self._served += 1
        if "refused" in header:
            raise DocumentError(printable(header["refused"])[:_LONGEST_REASON])
        return reply

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
            self._process = subprocess.Popen(
                [sys.executable, *_COMMAND],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                start_new_session=True,
            )
        return self._process

    def _reason(self) -> str:
        """How the process ended: its last words, or its exit status."""
        if self._process is None or self._errors is None:
            return "not started"
        try:
            status = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "no answer that can be read"
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _TAIL_BYTES))
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        told = last if status == 1 and last else f"ended by signal {-status}" if status < 0 else f"exit status {status}"
        return printable(told.strip())[:_LONGEST_REASON]


def _exchanged(
    process: "subprocess.Popen[bytes]", request: dict[str, Any], data: bytes
) -> tuple[dict[str, Any], bytes]:
    """Send a request and read the reply. Raises OSError, EOFError or ValueError if the process ends meanwhile."""
    if process.stdin is None or process.stdout is None:
        raise EOFError
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.write(data)
    process.stdin.flush()
    header = json.loads(process.stdout.readline())
    reply = process.stdout.read(header["size_bytes"])
    if len(reply) < header["size_bytes"]:
        raise EOFError
    return header, reply
