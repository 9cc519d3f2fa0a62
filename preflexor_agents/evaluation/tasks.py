"""Questions with known answers, from the shapes in which they are about.

Understands our own lines (`question`, `answer`, …) and the shapes of GSM8K, MMLU, PubMedQA and knights-and-knaves, as
JSON lines, JSON, CSV or Parquet.
"""

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from preflexor_agents.errors import InputError

Kind = Literal["exact", "numeric", "choice", "comparison", "identities", "unanswerable", "open"]
"""How an answer is told right: words, a number with its unit, a letter, which of two comes first, who is a knight, a
refusal; or by a judge."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DECISIONS = ("yes", "no", "maybe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One question."""

    id: str
    """Unique in its suite."""
    question: str
    kind: Kind
    answer: str = ""
    """What a right answer states; of a choice its letter; of several names, `name=knight` lines; empty for `open`."""
    choices: tuple[str, ...] = ()
    """Of a comparison the two names."""
    states: tuple[str, ...] = ()
    """What a right answer states besides, as the values that were compared."""
    column: str = ""
    """Group that it is counted in, as `comparison`."""
    passages: tuple[str, ...] = ()
    """Texts that come with the question; where there are some, the store is not searched."""

    def prompt(self) -> str:
        """The question as it is asked, with the choices and the form of the answer."""
        if self.kind == "choice":
            lines = [f"{letter}) {choice}" for letter, choice in zip(LETTERS, self.choices, strict=False)]
            return "\n".join((self.question, *lines, "Answer with the letter of the right choice."))
        return self.question


def read_tasks(path: Path) -> list[Task]:
    """All questions of a file.

    Raises:
        InputError: it cannot be read, or a row is no question; names the row and the remedy.
    """
    tasks = []
    seen: dict[str, int] = {}
    for number, row in enumerate(_rows(path), 1):
        task = task_of(row, where=f"row {number} of {path.name}")
        if task.id in seen:
            raise InputError(f"row {number} of {path.name} has the id {task.id!r} of row {seen[task.id]}; rename one")
        seen[task.id] = number
        tasks.append(task)
    if not tasks:
        raise InputError(f"{path} has no questions; name a file of JSON lines with question and answer")
    return tasks


def row_of(task: Task) -> dict[str, Any]:
    """The question as a row that `task_of` reads back as the same; what it does not have is left out."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(task).items() if value}


def task_of(row: Mapping[str, Any], *, where: str) -> Task:
    """The question in one row of any known shape. Raises InputError, beginning with `where`."""
    row = {key: _whole(value) for key, value in row.items()}
    if "quiz" in row:
        return _puzzle(row, where)
    if "QUESTION" in row or "final_decision" in row:
        return _decision(row, where)
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{where} has no question; its keys: {', '.join(map(str, row))[:80]}")
    choices, answer, kind = row.get("choices"), row.get("answer"), row.get("kind")
    if kind is not None and kind not in get_args(Kind):
        raise InputError(f"{where}: kind is {kind!r}; use {', '.join(get_args(Kind))}")
    if not isinstance(row.get("states") or [], list | tuple):
        raise InputError(f"{where}: states is {row['states']!r:.60}; it must be a list of texts")
    if kind == "comparison":
        return _task(row, question, kind=kind, answer=_winner(choices, answer, where), choices=_texts(choices, where))
    if choices:
        return _task(
            row, question, kind="choice", answer=_letter(choices, answer, where), choices=_texts(choices, where)
        )
    if kind == "choice":
        raise InputError(f"{where}: kind is 'choice' and there are no choices; give a list of texts")
    if isinstance(answer, str) and "####" in answer:  # GSM8K: the working, then the number
        return _task(row, question, kind="numeric", answer=answer.rsplit("####", 1)[1].strip().replace(",", ""))
    said = "" if answer is None else str(answer).strip()
    if kind is None:
        kind = (
            "open" if not said else "numeric" if re.fullmatch(r"[-+]?\d[\d.,]*(e[-+]?\d+)?( \S+)*", said) else "exact"
        )
    if not said and kind not in ("open", "unanswerable"):
        raise InputError(f"{where} has no answer; give one, or say kind: open")
    return _task(row, question, kind=cast(Kind, kind), answer=said)


def _whole(value: Any) -> Any:
    """A text or list of texts without halves of characters (unpaired surrogates), which cannot be written down."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return [_whole(item) for item in value] if isinstance(value, list) else value


def _task(row: Mapping[str, Any], question: str, *, kind: Kind, answer: str, choices: tuple[str, ...] = ()) -> Task:
    texts, states = row.get("passages") or (), row.get("states") or ()
    column = row.get("column") or row.get("subject") or kind
    return Task(
        id=str(row.get("id") or hashlib.sha256(f"{question}\0{choices}".encode()).hexdigest()[:16]),
        question=question.strip(),
        kind=kind,
        answer=answer,
        choices=choices,
        states=tuple(map(str, states)),
        column=str(column),
        passages=tuple(map(str, texts)),
    )


def _letter(choices: Any, answer: Any, where: str) -> str:
    """The letter of the right choice, given as its number, its letter or its words."""
    texts = _texts(choices, where)
    if isinstance(answer, str) and answer.strip().isdigit() and answer.strip() not in texts:
        answer = int(answer)
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(texts):
        return LETTERS[answer]
    said = str(answer).strip()
    if said in texts:
        return LETTERS[texts.index(said)]
    if len(said) == 1 and said.upper() in LETTERS[: len(texts)]:
        return said.upper()
    raise InputError(f"{where}: answer is {answer!r}; it must be one of the {len(texts)} choices, its letter or number")


def _winner(choices: Any, answer: Any, where: str) -> str:
    """Which of the two names of a comparison comes first."""
    names, said = _texts(choices, where), str(answer).strip()
    if len(names) != 2 or len(set(names)) != 2 or said not in names:
        raise InputError(f"{where}: answer is {answer!r:.60}; of a comparison it must be one of two names in choices")
    return said


def _texts(choices: Any, where: str) -> tuple[str, ...]:
    if isinstance(choices, Mapping) and "text" in choices:  # ARC: {"text": […], "label": […]}
        choices = choices["text"]
    if not isinstance(choices, list | tuple) or not 2 <= len(choices) <= len(LETTERS):
        raise InputError(f"{where}: choices must be a list of 2 to {len(LETTERS)} texts")
    return tuple(str(choice).strip() for choice in choices)


def _decision(row: Mapping[str, Any], where: str) -> Task:
    """PubMedQA: a question about an abstract, to be answered by yes, no or maybe."""
    question, decision = row.get("QUESTION") or row.get("question"), str(row.get("final_decision", "")).lower()
    contexts = row.get("CONTEXTS") or row.get("context") or ()
    if isinstance(contexts, Mapping):
        contexts = contexts.get("contexts", ())
    if not isinstance(question, str) or decision not in _DECISIONS or isinstance(contexts, str):
        raise InputError(f"{where} is no PubMedQA row: it needs QUESTION, CONTEXTS and final_decision (yes, no, maybe)")
    given = {**row, "id": row.get("pubid") or row.get("id"), "passages": list(contexts)}
    letter = LETTERS[_DECISIONS.index(decision)]
    return _task(given, question, kind="choice", answer=letter, choices=_DECISIONS)


def _puzzle(row: Mapping[str, Any], where: str) -> Task:
    """Knights and knaves as in Logic-RL: `quiz`, `names` and `solution` (true is a knight)."""
    names, solution = row.get("names"), row.get("solution")
    if not isinstance(names, list) or not isinstance(solution, list) or len(names) != len(solution) or not names:
        raise InputError(f"{where} is no puzzle: names and solution must be lists of the same length")
    given = {"id": row.get("id"), "column": row.get("column") or f"{len(names)} people"}
    return _task(given, str(row["quiz"]), kind="identities", answer=identities(names, solution))


def identities(names: list[str], knights: list[bool]) -> str:
    """Who is what, in lines that answers are compared with."""
    return "\n".join(f"{name}={'knight' if knight else 'knave'}" for name, knight in zip(names, knights, strict=True))


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        match path.suffix.lower():
            case ".parquet":
                yield from _parquet(path)
            case ".csv" | ".tsv":
                with path.open(encoding="utf-8-sig", newline="") as file:
                    yield from csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            case _:
                yield from _json(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; name a file of questions") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8") from None


def _json(path: Path) -> Iterator[Mapping[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    lines = [text] if text.lstrip().startswith("[") else text.splitlines()
    number = 0
    for line in lines:
        if not line.strip():
            continue
        number += 1
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"row {number} of {path.name} is no JSON: {line.strip()[:40]!r}") from None
        for row in found if isinstance(found, list) else [found]:
            if not isinstance(row, dict):
                raise InputError(f"row {number} of {path.name} is no object: {str(row)[:40]!r}")
            yield row


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError("Parquet files need pyarrow; install it with: pip install 'preflexor-agents[train]'") from None
    try:
        yield from pq.read_table(path).to_pylist()
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is no Parquet file: {' '.join(str(error).split())[:80]}") from None
