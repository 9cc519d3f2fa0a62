"""Questions that come from a file, with their answers where these are known."""

import json
from dataclasses import dataclass
from pathlib import Path

from preflexor_agents.errors import InputError
from preflexor_agents.prompts import one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a row asks."""

    text: str
    gold: str = ""
    """The known answer, if there is one."""


def read_questions(path: Path) -> tuple[Question, ...]:
    """The questions of a file of JSON lines, `{"question": …, "answer": …}`, the answer where it is known.

    Raises:
        InputError: the file cannot be read, holds none, or a line is no question; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise InputError(f"questions {path} cannot be read: {error.strerror}; name a file of JSON lines") from None
    except UnicodeDecodeError:
        raise InputError(f"questions {path} are not UTF-8 text; save the file as UTF-8") from None
    found = tuple(_question(line, f"line {n} of {path}") for n, line in enumerate(lines, 1) if line.strip())
    if not found:
        raise InputError(f'questions {path} hold none; write a line {{"question": "…", "answer": "…"}} for each')
    return found


def _question(line: str, where: str) -> Question:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where} is no JSON: {line[:40]!r}") from None
    text, gold = (value.get("question"), value.get("answer", "")) if isinstance(value, dict) else (None, "")
    if not isinstance(text, str) or not text.strip():
        raise InputError(f'{where} has no text under "question": {line[:40]!r}')
    if gold is None or isinstance(gold, bool) or not isinstance(gold, str | int | float):
        raise InputError(f'{where} has an "answer" that is neither text nor a number; leave it out if it is unknown')
    return Question(text=one_line(_storable(text)), gold=_storable(str(gold)).strip())


def _storable(text: str) -> str:
    """Halves of surrogate pairs, which JSON can spell and UTF-8 cannot, as question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
