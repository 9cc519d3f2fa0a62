"""The rows a run trains on, written down before it does: append-only, and whole refreshes only.

`pairs.jsonl` holds the rows, one a line, and can be read as any file of preferences. `rounds.jsonl` has one line for
each refresh: which bytes of the first file are its rows, where they came from, and their hash. What a killed process
left behind the last refresh is cut off when the log is opened.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from preflexor_agents.errors import InputError, TrainingError
from preflexor_agents.json_lines import Lines
from preflexor_agents.prompts import Message
from preflexor_training.pairs import Pair, Reply

PAIRS, ROUNDS = "pairs.jsonl", "rounds.jsonl"
_UNPAIRED = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a refresh was made by."""

    generator: str
    """The file, or the teacher's SPEC."""
    adapter_sha256: str = ""
    """Of the student's weights when it was asked; empty if it was not."""
    seed: int = 0
    unreadable: int = 0
    """Rows that were there and could not be used."""
    notes: tuple[str, ...] = ()
    """A line for each of them, the first ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """The rows of one round."""

    phase: int
    """Phases and rounds count from 0."""
    round: int
    train: tuple[Pair, ...]
    held_out: tuple[Pair, ...] = ()
    """Never trained on."""
    origin: Origin


class PairLog:
    """The log of one run. As long as it is open no other process can open it."""

    def __init__(self, folder: Path) -> None:
        """Open it, and cut off what belongs to no whole refresh.

        Raises:
            InputError: the log is damaged, cannot be read or written, or another process has it.
        """
        self._pairs = folder / PAIRS
        self._index: list[dict[str, Any]] = []
        self._lines = Lines(folder / ROUNDS, durable=True, take=lambda line: self._index.append(line.data))
        try:
            with self._pairs.open("ab") as file:
                if file.tell() < self._end:
                    raise InputError(f"{self._pairs} has lost rows that were trained on; begin another run")
                file.truncate(self._end)
        except OSError as e:
            raise InputError(f"{self._pairs} cannot be written: {e.strerror}; make it writable") from None

    def has(self, phase: int, round_: int) -> bool:
        """Whether the rows of a round are all there."""
        return any((line["phase"], line["round"]) == (phase, round_) for line in self._index)

    def read(self, phase: int, round_: int) -> Refresh:
        """The rows of a round.

        Raises:
            InputError: the file was changed since they were written.
        """
        line = next(line for line in self._index if (line["phase"], line["round"]) == (phase, round_))
        with self._pairs.open("rb") as file:
            file.seek(line["start"])
            data = file.read(line["end"] - line["start"])
        if sha256(data).hexdigest() != line["sha256"]:
            where = f"phase {phase + 1}, round {round_ + 1}"
            raise InputError(f"{self._pairs} was changed after the rows of {where} were written; undo that")
        rows = [json.loads(row) for row in data.splitlines()]
        return Refresh(
            phase=phase,
            round=round_,
            train=tuple(from_json(row) for row in rows if not row["held_out"]),
            held_out=tuple(from_json(row) for row in rows if row["held_out"]),
            origin=Origin(**{**line["origin"], "notes": tuple(line["origin"]["notes"])}),
        )

    def append(self, refresh: Refresh) -> None:
        """Write a round's rows; when this returns they are on the disk.

        Raises:
            TrainingError: they could not be written, and nothing of them is left.
            DiskError: likewise.
        """
        rows = [(pair, False) for pair in refresh.train] + [(pair, True) for pair in refresh.held_out]
        data = "".join(_line(pair, phase=refresh.phase, held_out=held) for pair, held in rows).encode()
        _append(self._pairs, data, at=self._end)
        line = {
            "phase": refresh.phase,
            "round": refresh.round,
            "rows": len(refresh.train),
            "held_out": len(refresh.held_out),
            "start": self._end,
            "end": self._end + len(data),
            "sha256": sha256(data).hexdigest(),
            "origin": {**asdict(refresh.origin), "notes": list(refresh.origin.notes)},
        }
        self._lines.append(json.dumps(line) + "\n")
        self._index.append(line)

    def close(self) -> None:
        """Let the files go. Idempotent."""
        self._lines.close()

    @property
    def _end(self) -> int:
        return int(self._index[-1]["end"]) if self._index else 0


def to_json(pair: Pair) -> dict[str, Any]:
    """A row as one object: turns with role and content, replies with their sections."""
    return {
        "id": pair.id,
        "round": pair.round,
        "prompt": [{"role": m.role, "content": m.content} for m in pair.prompt],
        "chosen": _reply(pair.chosen),
        "rejected": _reply(pair.rejected),
    }


def from_json(row: Mapping[str, Any]) -> Pair:
    """The row that `to_json` made."""
    return Pair(
        id=row["id"],
        prompt=tuple(Message(m["role"], m["content"]) for m in row["prompt"]),
        chosen=Reply(**row["chosen"]),
        rejected=Reply(**row["rejected"]),
        round=row["round"],
    )


def _reply(reply: Reply) -> dict[str, str]:
    return {key: value for key, value in asdict(reply).items() if value is not None}


def _line(pair: Pair, *, phase: int, held_out: bool) -> str:
    """Half characters, which no file can hold, are replaced."""
    data = {**to_json(pair), "phase": phase, "held_out": held_out}
    return _UNPAIRED.sub("\ufffd", json.dumps(data, ensure_ascii=False)) + "\n"


def _append(path: Path, data: bytes, *, at: int) -> None:
    """Add bytes and see them onto the disk, or leave the file as it was."""
    try:
        with path.open("ab", buffering=0) as file:
            try:
                left = memoryview(data)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                os.truncate(path, at)
                raise
    except OSError as e:
        raise TrainingError(f"{path} cannot be written: {e.strerror}; make room, then go on with --resume") from None
