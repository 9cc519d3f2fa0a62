"""Preference data from a file, whatever its shape: what was asked, which answer was preferred, which was not.

Understands TRL (plain and conversational, with the prompt apart or inside, pairs or single labelled answers),
instruction/input with chosen and rejected, ShareGPT conversations, and LLaMA-Factory's messages.
"""

import json
import math
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from preflexor_agents.errors import InputError

MOST_JSON_BYTES = 200_000_000
"""A JSON file is read whole; JSON lines of any size are read row by row."""
_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
_CONTEXTS = ("context", "contexts", "passages", "evidence", "documents")
_KNOWN = frozenset(
    ("prompt", "question", "instruction", "input", "messages", "conversations", "chosen", "rejected", "completion")
) | {"chosen_messages", "rejected_messages", "label", *_CONTEXTS}


class Row(NamedTuple):
    """One preference."""

    prompt: str
    chosen: str
    rejected: str
    """Empty if the row has one labelled answer only; likewise `chosen`."""
    context: str = ""
    numbers: Mapping[str, float] = {}
    """Scores and whatever else of the row is a number."""
    notes: Mapping[str, str] = {}
    """What else the row says in short texts."""


@dataclass(slots=True)
class RowFile:
    """The rows of a file; those of JSON lines are read when they are asked for."""

    path: Path
    _offsets: "array[int]"
    """Where each line begins; empty for a JSON file."""
    _rows: Sequence[Any]

    def __len__(self) -> int:
        return len(self._offsets) or len(self._rows)

    def row(self, number: int) -> Row:
        """The row, 0-based. Raises InputError: it is damaged or holds no preference."""
        where = f"row {number + 1} of {self.path.name}"
        if not self._offsets:
            return row_of(self._rows[number], where=where)
        try:
            with self.path.open("rb") as file:
                file.seek(self._offsets[number])
                line = file.readline()
        except OSError as e:
            raise InputError(f"{self.path} cannot be read: {e.strerror}") from None
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{where} is no JSON: {line[:40]!r}") from None
        return row_of(data, where=where)


def open_rows(path: Path) -> RowFile:
    """The file's rows: JSON lines, or one JSON array.

    Raises:
        InputError: the file cannot be read, is neither, or is too large to be read whole.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
            size = os.fstat(file.fileno()).st_size
            if start.startswith(b"["):
                return RowFile(path, array("q"), _array(path, size))
            if not start.startswith(b"{"):
                raise InputError(f"{path} holds neither JSON lines nor a JSON array; name a file of preference rows")
            file.seek(0)
            return RowFile(path, array("q", _line_starts(file, size)), ())
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}; name a file of preference rows") from None


def row_of(data: object, *, where: str) -> Row:
    """The preference in one object. Raises InputError, beginning with `where`."""
    if not isinstance(data, dict):
        raise InputError(f"{where} is no object: {str(data)[:40]!r}")
    prompt = _asked(data)
    chosen, rejected = _answers(data)
    if isinstance(chosen, list) and isinstance(rejected, list) and not prompt:
        turns = _shared_turns(chosen, rejected)
        prompt, chosen, rejected = _said(chosen[:turns]), chosen[turns:], rejected[turns:]
    good, bad = _text(chosen), _text(rejected)
    if not good.strip() and not bad.strip():
        raise InputError(f"{where} has neither a chosen nor a rejected answer; its keys: {', '.join(data)[:80]}")
    rest = {key: value for key, value in data.items() if key not in _KNOWN}
    return Row(
        prompt=prompt,
        chosen=good,
        rejected=bad,
        context="\n\n".join(_text(data[key]) for key in _CONTEXTS if key in data),
        numbers={key: value for key, value in _flat(rest) if isinstance(value, float)},
        notes={key: value for key, value in _flat(rest) if isinstance(value, str)},
    )


def _asked(data: Mapping[str, Any]) -> str:
    for key in ("prompt", "question", "conversations"):
        if data.get(key):
            return _said(data[key])
    if data.get("instruction"):
        return "\n\n".join(part for part in (_text(data["instruction"]), _text(data.get("input"))) if part)
    messages = data.get("messages")
    if isinstance(messages, list) and messages:
        return _said(messages[:-1] if "label" in data else messages)
    return ""


def _answers(data: Mapping[str, Any]) -> tuple[Any, Any]:
    if "label" in data and "chosen" not in data:
        messages = data.get("messages")
        said = messages[-1:] if isinstance(messages, list) else data.get("completion")
        return (said, "") if data["label"] else ("", said)
    return (
        data.get("chosen") or data.get("chosen_messages") or "",
        data.get("rejected") or data.get("rejected_messages") or "",
    )


def _shared_turns(chosen: list[Any], rejected: list[Any]) -> int:
    """Turns that both conversations begin with; the last turn is the answer, shared or not."""
    pairs = enumerate(zip(chosen[:-1], rejected[:-1], strict=False))
    return next((i for i, (a, b) in pairs if a != b), max(0, min(len(chosen), len(rejected)) - 1))


def _said(value: Any) -> str:
    """A conversation as text; of one message only what it says."""
    if not isinstance(value, list) or len(value) < 2:
        return _text(value)
    return "\n\n".join(f"{_role(message)}: {_text(message)}" for message in value)


def _role(message: Any) -> str:
    role = message.get("role") or message.get("from") if isinstance(message, dict) else None
    return _ROLES.get(role, role) if isinstance(role, str) else "text"


def _text(value: Any) -> str:
    """The words in a value: a text, a message, parts of a message, or a list of those."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _text(next((value[key] for key in ("content", "value", "text") if key in value), ""))
    if isinstance(value, list):
        return "\n\n".join(text for item in value if (text := _text(item)))
    return "" if value is None else str(value)


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | str]]:
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and not prefix:
            yield from _flat(value, f"{name}.")
        elif isinstance(value, str | bool):
            yield name, str(value)
        elif isinstance(value, int | float) and abs(value) < 1e300 and math.isfinite(value):
            yield name, float(value)


def _array(path: Path, size: int) -> list[Any]:
    if size > MOST_JSON_BYTES:
        raise InputError(f"{path} has {size} bytes, more than {MOST_JSON_BYTES}; turn it into JSON lines")
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path} is damaged: {' '.join(str(e).split())[:120]}") from None
    return found if isinstance(found, list) else []


def _line_starts(file: Any, size: int) -> Iterator[int]:
    """Where the lines with something on them begin; a last one that is still being written is left out."""
    at = 0
    for line in file:
        if line.strip() and (line.endswith(b"\n") or line.rstrip().endswith(b"}")):
            yield at
        at += len(line)
