"""The graph as two tables in CSV, with the columns by which Gephi and spreadsheets know nodes and edges."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from preflexor_agents.graph.values import Evidence, Graph

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_ENTITY_COLUMNS = ("Id", "Label", "Category", "Aliases")
_RELATION_COLUMNS = ("Id", "Source", "Target", "Type", "Label", "Weight", "Subject", "Object", "Evidence")


class Tables(NamedTuple):
    """Both tables, as CSV with a line of column names."""

    entities: str
    relations: str


def write(graph: Graph) -> Tables:
    """The tables of entities and of relations; evidence is a JSON list of quotes with their places.

    A cell that a spreadsheet would run as a formula begins with an apostrophe.
    """
    names = {entity.id: entity.name for entity in graph.entities}
    entities = ((e.id, e.name, e.type, "; ".join(e.aliases)) for e in graph.entities)
    relations = (
        (
            *(r.id, r.source, r.target, "Directed", r.kind, r.weight, names[r.source], names[r.target]),
            _evidence(graph.evidence.get(r.id, ())),
        )
        for r in graph.relations
    )
    return Tables(_table(_ENTITY_COLUMNS, entities), _table(_RELATION_COLUMNS, relations))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: str | int) -> str | int:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _evidence(quotes: Iterable[Evidence]) -> str:
    places = [{"source": q.source, "page": q.page, "start": q.start, "end": q.end, "quote": q.quote} for q in quotes]
    return json.dumps(places, ensure_ascii=False)
