"""What models replied in a run, by the content of the call, so that no call is paid for twice."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from preflexor_agents.backends.base import Completion, Request
from preflexor_agents.events import Usage
from preflexor_agents.json_lines import Line, Lines, read_lines

NAME = "calls"
"""Files of a run are called so, with a suffix for each process that writes one."""


class Paid(NamedTuple):
    """A reply, and what it took to get it."""

    reply: Completion
    tries: int
    """How often it was asked for until it came."""


class CallCache:
    """The replies of a run. Every process writes a file of its own and reads all that are in the folder.

    The texts stay on disk. A line is handed to the system at once, so it outlives a killed process.
    """

    def __init__(self, folder: Path, *, writer: str = "") -> None:
        """Open the cache of a folder.

        Args:
            folder: of the run.
            writer: tells this process from others that write at the same time.

        Raises:
            InputError: a file cannot be opened or is damaged, or another process has this one's.
        """
        self._places: dict[str, tuple[Path, int]] = {}
        own = folder / f"{NAME}{writer and '-'}{writer}.jsonl"
        for path in sorted(folder.glob(f"{NAME}*.jsonl")):
            if path != own:
                for line in read_lines(path):
                    self._take(path, line)
        self._lines = Lines(own, durable=False, take=lambda line: self._take(own, line))

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def get(self, key: str) -> Paid | None:
        """The reply to a call, if it is there."""
        place = self._places.get(key)
        if place is None:
            return None
        path, start = place
        with path.open("rb") as file:
            file.seek(start)
            data = json.loads(file.readline())
        return Paid(_completion(data["reply"]), data["tries"])

    def put(self, key: str, paid: Paid) -> None:
        """Keep a reply. Raises DiskError: the disk is full."""
        start = self._lines.append(json.dumps({"key": key, "tries": paid.tries, "reply": asdict(paid.reply)}) + "\n")
        self._places[key] = (self._lines.path, start)

    def close(self) -> None:
        """Let the files go. Idempotent."""
        self._lines.close()

    def _take(self, path: Path, line: Line) -> None:
        key = line.data.get("key")
        if isinstance(key, str):
            self._places[key] = (path, line.start)


def content_key(spec: str, adapter_sha256: str, request: Request, *, attempt: int) -> str:
    """SHA-256 of all that decides a reply: model, adapter, words, how they are drawn, and which sample."""
    drawn = asdict(request.sampling)
    rest = (request.seed, request.thinking, request.stop, request.json_schema)
    return sha256_of([spec, adapter_sha256, attempt, _said(request), drawn, rest])


def prompt_sha256(request: Request) -> str:
    """SHA-256 of the words that a model is given."""
    return sha256_of([_said(request), request.thinking])


def _said(request: Request) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in request.messages]


def sha256_of(value: object) -> str:
    """Of a value that JSON can say, whatever the order of its keys."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _completion(data: Mapping[str, Any]) -> Completion:
    return Completion(**{**data, "usage": Usage(**data["usage"]), "notes": tuple(data["notes"])})
