"""Preference files of others as the log of a run: what is no pair stands in it as a dropped row with its reason."""

import hashlib
import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from preflexor_agents.errors import ForgeError, InputError
from preflexor_agents.preference_rows import LOG
from preflexor_agents.preference_turns import UNPAIRED
from preflexor_training.forge.records import Row, to_line
from preflexor_training.pairs import Pair, Problem, read_pairs

QUESTIONS = "questions.jsonl"
"""Beside the log: questions with one answer, for a run of their own."""


@dataclass(slots=True)
class Imported:
    """What came of a file."""

    pairs: int = 0
    questions: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Rows that are of no use, by reason."""


def import_pairs(source: Path, folder: Path) -> Imported:
    """Write the log and the questions of a preference file into a new folder, each whole or not at all.

    Raises:
        InputError: the file cannot be read or is a run's already, or the folder holds a log.
        ForgeError: the folder cannot be written.
    """
    log, questions = folder / LOG, folder / QUESTIONS
    for path in (log, questions):
        if path.exists():
            raise InputError(f"{path} exists already; name another folder or remove it")
    found = Imported()
    is_new = not folder.exists()
    partials = {path: path.with_name(path.name + ".partial") for path in (log, questions)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            partials[log].open("w", encoding="utf-8") as rows,
            partials[questions].open("w", encoding="utf-8") as asked,
        ):
            for number, item in enumerate(read_pairs(source)):
                rows.write(to_line(as_row(item, source, number)))
                if isinstance(item, Problem) and item.question:
                    asked.write(_question(item))
                _count(found, item)
        for path, count in ((log, found.pairs), (questions, found.questions)):
            if count:
                partials[path].replace(path)
    except OSError as e:
        raise ForgeError(f"{folder} cannot be written: {e.strerror}; name a writable place with room") from None
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
    return found


def _count(found: Imported, item: Pair | Problem) -> None:
    if isinstance(item, Pair):
        found.pairs += 1
    elif item.question:
        found.questions += 1
    else:
        found.refused[item.reason] += 1


def as_row(item: Pair | Problem, source: Path, number: int) -> Row:
    """What was read from a file as the row of a log."""
    if isinstance(item, Problem):
        name = hashlib.sha256(json.dumps([source.name, item.row]).encode()).hexdigest()
        return _blank(name, number, state="dropped", reason=f"no_pair: {item} ({source.name})", question=item.question)
    row = _blank(item.id, number, state="kept", reason=f"imported: {source.name}", question=item.prompt[-1].content)
    return replace(row, round=item.round, prompt=item.prompt, chosen=item.chosen, rejected=item.rejected)


def _blank(name: str, number: int, *, state: Literal["kept", "dropped"], reason: str, question: str) -> Row:
    """A row of which no more is known."""
    return Row(
        id=name,
        number=number,
        state=state,
        reason=reason,
        variant="plain",
        phase=1,
        round=0,
        seed=0,
        pack="",
        question=question,
    )


def _question(item: Problem) -> str:
    line = json.dumps({"id": str(item.row), "question": item.question, "answer": item.answer}, ensure_ascii=False)
    return UNPAIRED.sub("\ufffd", line) + "\n"
