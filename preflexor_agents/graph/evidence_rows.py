"""Evidence as rows of a file: each run is written once, and the rows name it by its place, from 0."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from preflexor_agents.errors import InputError
from preflexor_agents.graph.values import Evidence, Run

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRow:
    """A quote with its place; `run` counts in the runs of the file."""

    relation: int
    source: str
    title: str
    page: int | None = None
    start: int
    end: int
    quote: str
    chunk_id: int
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Quotes:
    """The evidence of one relation on its own."""

    evidence: tuple[EvidenceRow, ...]
    runs: tuple[Run, ...]


class Rows(NamedTuple):
    """Evidence, and the runs that it came from."""

    evidence: list[EvidenceRow]
    runs: list[Run]


def rows(quotes: Iterable[Evidence]) -> Rows:
    """The evidence as rows, in order."""
    runs: dict[Run, int] = {}
    found = [
        EvidenceRow(
            relation=q.relation_id,
            source=q.source,
            title=q.title,
            page=q.page,
            start=q.start,
            end=q.end,
            quote=q.quote,
            chunk_id=q.chunk_id,
            run=runs.setdefault(q.run, len(runs)),
        )
        for q in quotes
    ]
    return Rows(found, list(runs))


def evidence(row: EvidenceRow, runs: Sequence[Run], *, relation: int) -> Evidence:
    """A row as evidence for a relation. Raises InputError if it names a run that is not there."""
    if not 0 <= row.run < len(runs):
        raise InputError(f"a quote of relation {row.relation} names run {row.run}, which the file does not hold")
    return Evidence(
        relation_id=relation,
        chunk_id=row.chunk_id,
        source=row.source,
        title=row.title,
        page=row.page,
        start=row.start,
        end=row.end,
        quote=row.quote,
        run=runs[row.run],
    )


def as_text(quotes: Iterable[Evidence]) -> str:
    """The evidence of one relation as one line of JSON, for an attribute of another format."""
    found = rows(quotes)
    return json.dumps(asdict(_Quotes(evidence=tuple(found.evidence), runs=tuple(found.runs))))


def from_text(text: str, *, relation: int) -> tuple[Evidence, ...]:
    """What `as_text` wrote, for a relation of that id. Raises InputError if it is something else."""
    found = checked(_form_of_quotes(), value(text))
    return tuple(evidence(row, found.runs, relation=relation) for row in found.evidence)


@cache
def _form_of_quotes() -> TypeAdapter[_Quotes]:
    """Made once: a file has one text for each relation."""
    return TypeAdapter(_Quotes)


def value(data: bytes | str) -> object:
    """The value of a JSON text. Raises InputError if it is none."""
    try:
        return from_json(data.removeprefix(b"\xef\xbb\xbf") if isinstance(data, bytes) else data)
    except ValueError as error:
        raise InputError(f"no JSON: {error}") from None


def checked(form: TypeAdapter[T], found: object) -> T:
    """The value in the form that it must have. Raises InputError that names the first place where it has not."""
    try:
        return form.validate_python(found)
    except ValidationError as error:
        first: Mapping[str, Any] = dict(error.errors(include_url=False, include_input=False)[0])
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{place}: {first['msg']}; export the graph again") from None
