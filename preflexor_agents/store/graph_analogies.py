"""Walks of the graph that follow a pattern, whether or not a text shows them as such: candidates for analogies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from preflexor_agents.graph.values import PatternStep, Relation

_FAN_OUT = 50
"""Relations tried at each step: those with most evidence."""
_MOST_LOOKS = 2000
"""Steps looked up in one search; what is not found by then is left out."""

Bound = dict[int, int]
"""Root id by symbol."""


@dataclass(slots=True)
class _Search:
    db: Database
    steps: Sequence[PatternStep]
    looks: int = _MOST_LOOKS


def walks(db: Database, steps: Sequence[PatternStep], *, k: int) -> list[tuple[Bound, tuple[Relation, ...]]]:
    """At most `k` ways to put entities for the symbols, no entity for two of them, so that every step is a relation.

    Relations with more evidence are tried first, ties by id.
    """
    found = _continued(_Search(db, steps), {}, ())
    return [walk for _, walk in zip(range(k), found, strict=False)]


def _continued(
    search: _Search, bound: Bound, taken: tuple[Relation, ...]
) -> Iterator[tuple[Bound, tuple[Relation, ...]]]:
    if len(taken) == len(search.steps):
        yield bound, taken
        return
    step = search.steps[len(taken)]
    for relation in _fitting(search, step, bound):
        ends = {step.source: relation.source, step.target: relation.target}
        new = {symbol: root for symbol, root in ends.items() if symbol not in bound}
        if len(set(new.values()) - set(bound.values())) == len(new):
            yield from _continued(search, {**bound, **new}, (*taken, relation))


def _fitting(search: _Search, step: PatternStep, bound: Bound) -> list[Relation]:
    """The relations that a step may be, given what stands for its symbols."""
    if not search.looks:
        return []
    search.looks -= 1
    asked = {"s.root_id = ?": bound.get(step.source), "o.root_id = ?": bound.get(step.target), "r.kind = ?": step.kind}
    wanted = {condition: value for condition, value in asked.items() if value}
    loop = "=" if step.source == step.target else "<>"
    sql = f"""SELECT min(r.id) AS id, s.root_id, r.kind, o.root_id, sum(r.weight) AS weight
              FROM relation r JOIN entity s ON s.id = r.subject_id JOIN entity o ON o.id = r.object_id
              WHERE {" AND ".join(["s.root_id " + loop + " o.root_id", *wanted])}
              GROUP BY s.root_id, r.kind, o.root_id ORDER BY weight DESC, id LIMIT {_FAN_OUT}"""
    return [
        Relation(id=id, source=source, kind=kind, target=target, weight=weight)
        for id, source, kind, target, weight in search.db.conn.execute(sql, tuple(wanted.values()))
    ]
