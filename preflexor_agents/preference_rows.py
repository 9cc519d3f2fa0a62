"""Preference data from a file, whatever its shape: what was asked, which answer was preferred, which was not.

The shapes are those of `preference_turns`. Here a row is texts, to be looked at; training
reads its turns.
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
from preflexor_agents.preference_turns import KNOWN, Turn, text_of, turns_of

MOST_JSON_BYTES = 200_000_000
"""A JSON file is read whole; JSON lines of any size are read row by row."""
LOG = "pairs.jsonl"
"""The rows in a folder that a run left."""
_CONTEXTS = ("context", "contexts", "passages", "evidence", "documents")


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
        return row_of(self.data(number), where=f"row {number + 1} of {self.path.name}")

    def data(self, number: int) -> object:
        """What stands in the file for the row, 0-based. Raises InputError: it is no JSON."""
        where = f"row {number + 1} of {self.path.name}"
        if not self._offsets:
            return self._rows[number]
        try:
            with self.path.open("rb") as file:
                file.seek(self._offsets[number])
                line = file.readline()
        except OSError as e:
            raise InputError(f"{self.path} cannot be read: {e.strerror}") from None
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{where} is no JSON: {line[:40]!r}") from None


def open_rows(path: Path) -> RowFile:
    """The file's rows: JSON lines, or one JSON array; of a folder those of the log in it.

    Raises:
        InputError: the file cannot be read, is neither, or is too large to be read whole.
    """
    path = path / LOG if (path / LOG).is_file() else path
    try:
        with path.open("rb") as file:
            start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
            size = os.fstat(file.fileno()).st_size
            if start.startswith(b"["):
                return RowFile(path, array("q"), _array(path, size))
            if not start.startswith(b"{"):
                raise InputError(f"{path} holds neither JSON lines nor a JSON array; name a file of preference rows")
            file.seek(0)
            _refuse_one_object(path, file.readline(), size)
            file.seek(0)
            return RowFile(path, array("q", _line_starts(file, size)), ())
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}; name a file of preference rows") from None


def row_of(data: object, *, where: str) -> Row:
    """The preference in one object. Raises InputError, beginning with `where`."""
    if not isinstance(data, dict):
        raise InputError(f"{where} is no object: {str(data)[:40]!r}")
    turns = turns_of(data)
    good, bad = _answer(turns.chosen), _answer(turns.rejected)
    if not good.strip() and not bad.strip() and data.get("state") not in ("dropped", "failed"):
        raise InputError(f"{where} has neither a chosen nor a rejected answer; its keys: {', '.join(data)[:80]}")
    rest = {key: value for key, value in data.items() if key not in KNOWN and key not in _CONTEXTS}
    return Row(
        prompt=_said(turns.prompt),
        chosen=good,
        rejected=bad,
        context="\n\n".join(_context(data[key]) for key in _CONTEXTS if key in data),
        numbers={key: value for key, value in _flat(rest) if isinstance(value, float)},
        notes={key: value for key, value in _flat(rest) if isinstance(value, str)},
    )


def _said(turns: Sequence[Turn]) -> str:
    """A conversation as text; of one turn only what it says."""
    if len(turns) == 1:
        return turns[0].whole()
    return "\n\n".join(f"{turn.role}: {turn.whole()}" for turn in turns)


def _answer(turns: Sequence[Turn]) -> str:
    return turns[0].whole() if len(turns) == 1 else "\n\n".join(turn.whole() for turn in turns if turn.text)


def _context(value: Any) -> str:
    """The words of a context; of one that is told by its place in a document, that place."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and "source" in item for item in value):
        return "\n".join(_place(item) for item in value)
    return text_of(value)


def _place(span: Mapping[str, Any]) -> str:
    page = f", page {span['page']}" if span.get("page") is not None else ""
    return f"{span.get('title', '')} ({span['source']}{page}, characters {span.get('start')}-{span.get('end')})"


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


def _refuse_one_object(path: Path, first: bytes, size: int) -> None:
    """Raises InputError: a JSON object goes over several lines, and is no row but something of another kind."""
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        if size > MOST_JSON_BYTES:
            return
        try:
            whole = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError):
            return
        keys = ", ".join(whole)
        raise InputError(f"{path} is one object ({keys[:60]}…), not rows; name a file of preference rows") from None


def _line_starts(file: Any, size: int) -> Iterator[int]:
    """Where the lines with something on them begin; a last one that is still being written is left out."""
    at = 0
    for line in file:
        if line.strip() and (line.endswith(b"\n") or line.rstrip().endswith(b"}")):
            yield at
        at += len(line)
