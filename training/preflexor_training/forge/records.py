"""What a forge run leaves: one line of JSON for each row, made or not, with every call that went into it.

`to_json` and `from_json` are exact inverses; `from_json` takes nothing that a run would not write.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from preflexor_agents.errors import InputError
from preflexor_agents.preference_rows import LOG
from preflexor_agents.preference_turns import UNPAIRED
from preflexor_agents.prompts import Message
from preflexor_training.forge.settings import RejectedKind, Variant
from preflexor_training.forge.steps import Who
from preflexor_training.pairs import Pair, Reply

SCHEMA = 1
"""Version of a line; a reader of a later version reads this one."""
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Words of a document that stood in the context, so that they can be found again without the store."""

    chunk_id: int
    source: str
    title: str
    page: int | None
    start: int
    """Character offset in the document's text; likewise `end`."""
    end: int
    sha256: str
    """Of the words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One call that went into a row."""

    step: str
    who: Who
    model: str
    """SPEC of the backend."""
    adapter_sha256: str
    """Of the adapter the student had; empty without one."""
    prompt_sha256: str
    seed: int
    tokens_prompt: int
    tokens_cached: int
    tokens_generated: int
    seconds: float
    tries: int
    error: str = ""
    """Why it failed in the end; empty if it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the log. `state` says which fields hold something: a dropped row has what was there when it fell."""

    id: str
    """SHA-256 of run and number; the same in an interrupted and an uninterrupted run."""
    number: int
    state: Literal["kept", "dropped", "failed"]
    reason: str = ""
    """Kind of the drop or failure and its words, as `duplicate: …`; of a row that was imported, where it came from."""
    variant: Variant
    phase: Literal[1, 2]
    round: int
    seed: int
    pack: str
    question: str = ""
    gold: str = ""
    """The known answer, where the question came with one."""
    prompt: tuple[Message, ...] = ()
    """The turns that are trained on: the question and, if wanted, the trigger; or the agents' own grounded prompt."""
    categories: tuple[tuple[str, str], ...] = ()
    """The thinking, name and text of each category in order."""
    chosen: Reply = field(default_factory=Reply)
    rejected: Reply = field(default_factory=Reply)
    rejected_kind: RejectedKind | None = None
    context: tuple[Span, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    """Of the verifier or judge: `chosen`, `rejected`, `margin`, and counts as `samples`, `accepted`."""
    calls: tuple[CallRecord, ...] = ()

    def pair(self) -> Pair:
        """What training needs of a kept row. Raises InputError: the row was not kept."""
        if self.state != "kept":
            raise InputError(f"row {self.number} was {self.state} ({self.reason}); only kept rows are pairs")
        return Pair(id=self.id, prompt=self.prompt, chosen=self.chosen, rejected=self.rejected, round=self.round)


def to_json(row: Row) -> dict[str, Any]:
    """The row as plain JSON values, the version of its form under `schema`."""
    return {"schema": SCHEMA, **asdict(row)}


def from_json(data: object, *, where: str = "the row") -> Row:
    """The row that `to_json` wrote.

    Raises:
        InputError: it is none, of a newer version, or holds what no run writes; begins with `where`.
    """
    if not isinstance(data, dict):
        raise InputError(f"{where} is no object: {str(data)[:40]!r}")
    version = data.get("schema")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InputError(f"{where} is no row of a forge run: its schema is {str(version)[:40]!r}")
    if version > SCHEMA:
        raise InputError(f"{where} has schema {version}, this program knows up to {SCHEMA}: update preflexor-agents")
    given = {key: value for key, value in data.items() if key != "schema"}
    try:
        row = _adapter().validate_json(json.dumps(given, allow_nan=False), strict=True)
    except ValidationError as e:
        first = e.errors()[0]
        key, value = ".".join(map(str, first["loc"])), repr(first["input"])
        raise InputError(f"{where} is damaged: {key} is {value[:60]}; {first['msg']}") from None
    except (ValueError, RecursionError) as e:
        raise InputError(f"{where} is damaged: {e}") from None
    unknown = next(_unknown(given, json.loads(json.dumps(asdict(row)))), None)
    wrong = f"unknown field {unknown[:60]!r}" if unknown else _wrong(row)
    if wrong:
        raise InputError(f"{where} is damaged: {wrong}")
    return row


def to_line(row: Row) -> str:
    """The row as a line of the log, its end included. Half characters, which no file can hold, are replaced."""
    return UNPAIRED.sub("\ufffd", json.dumps(to_json(row), ensure_ascii=False, allow_nan=False)) + "\n"


def from_line(line: bytes, *, where: str = "the line") -> Row:
    """The row in a line of the log. Raises InputError, beginning with `where`."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where} is no JSON: {line[:40]!r}") from None
    return from_json(data, where=where)


def log_of(place: Path) -> Path:
    """The log in a run's folder, or the file itself."""
    return place / LOG if place.is_dir() else place


def read_rows(place: Path) -> Iterator[Row]:
    """The rows of a log, or of the log in a run's folder; a last line that is still being written is left out.

    Raises:
        InputError: the log cannot be read, or one of its lines is no row.
    """
    log = log_of(place)
    try:
        with log.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n") and line.strip():
                    yield from_line(line, where=f"line {number} of {log}")
    except OSError as e:
        raise InputError(f"{log} cannot be read: {e.strerror}; name a forge run's folder or its {LOG}") from None


@cache
def _adapter() -> TypeAdapter[Row]:
    return TypeAdapter(Row)


def _unknown(given: Any, known: Any, path: str = "") -> Iterator[str]:
    """Keys that are in the first value only, however deep."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key in known:
                yield from _unknown(value, known[key], f"{path}{key}.")
            else:
                yield path + key
    elif isinstance(given, list) and isinstance(known, list):
        for value, other in zip(given, known, strict=True):
            yield from _unknown(value, other, path)


def _wrong(row: Row) -> str:
    """What a run would not write, in words; empty if there is nothing."""
    if row.number < 0 or row.round < 0:
        return f"number {row.number} and round {row.round} count from 0"
    if not all(map(math.isfinite, row.scores.values())):
        return "a score is not finite"
    for span in row.context:
        if not 0 <= span.start < span.end or not _SHA256.fullmatch(span.sha256):
            return f"span {span.start} to {span.end} of {span.source[:60]!r} is none, or its sha256"
    if row.state != "kept":
        return "" if row.reason else f"it was {row.state} for no reason"
    if not row.prompt or row.prompt[-1].role != "user":
        return "a kept row's prompt ends with a turn of the user"
    if not row.chosen.answer.strip() or not row.rejected.answer.strip():
        return "a kept row has a chosen and a rejected answer"
    return "its answers are the same" if row.chosen == row.rejected else ""
