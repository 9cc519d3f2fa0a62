"""The graph as it is seen: merged entities are one, and so are the relations between them.

Facts keep the ids they were stored with. An entity is seen under its root's id; relations of one kind between the same
two seen entities are one, under the smallest of their ids and with all their evidence.
"""

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlite_utils import Database

from preflexor_agents.graph.values import Entity, Evidence, Graph, GraphCounts, Quote, Relation, Run

_RUN = ("id", "kind", "model", "prompt_sha256", "seed", "note", "started_at")
_LISTED = "(SELECT value FROM json_each(?))"


def listed(values: Iterable[int] | Iterable[str]) -> str:
    """Values as one SQL parameter, for `IN (SELECT value FROM json_each(?))`."""
    return json.dumps(list(values))


def entities(db: Database, roots: Sequence[int]) -> dict[int, Entity]:
    """The entities of root ids, in the order given."""
    sql = f"""SELECT e.root_id, e.id, n.name, n.type, n.uses FROM entity e JOIN entity_name n ON n.entity_id = e.id
              WHERE e.root_id IN {_LISTED}"""
    names: dict[int, dict[int, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    types: dict[int, Counter[str]] = defaultdict(Counter)
    for root, id, name, type, uses in db.conn.execute(sql, (listed(roots),)):
        names[root][id][name] += uses
        types[root][type] += uses if type else 0
    return {root: _entity(root, names[root], types[root]) for root in roots if root in names}


def single(db: Database, id: int) -> Entity:
    """The entity as it was before it was merged, or anything into it."""
    sql = "SELECT name, type, uses FROM entity_name WHERE entity_id = ?"
    names: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for name, type, uses in db.conn.execute(sql, (id,)):
        names[name] += uses
        types[type] += uses if type else 0
    return _entity(id, {id: names}, types)


def _entity(root: int, names: dict[int, Counter[str]], types: Counter[str]) -> Entity:
    aliases = sorted(_most_used(given) for id, given in names.items() if id != root)
    return Entity(id=root, name=_most_used(names[root]), type=_most_used(types), aliases=tuple(aliases))


def _most_used(names: Counter[str]) -> str:
    """The text given most often, ties by text; empty if none was given."""
    used = [name for name in names if name]
    return min(used, key=lambda name: (-names[name], name), default="")


def relations_among(db: Database, roots: Iterable[int] | None) -> list[Relation]:
    """Every relation whose ends are both among the entities, by id; all relations for None."""
    among = "" if roots is None else f"WHERE s.root_id IN {_LISTED} AND o.root_id IN {_LISTED}"
    sql = f"""SELECT min(r.id) AS id, s.root_id, r.kind, o.root_id, sum(r.weight)
              FROM entity s CROSS JOIN relation r ON r.subject_id = s.id CROSS JOIN entity o ON o.id = r.object_id
              {among} GROUP BY s.root_id, r.kind, o.root_id ORDER BY id"""
    values = () if roots is None else (listed(roots),) * 2
    return [
        Relation(id=id, source=source, kind=kind, target=target, weight=weight)
        for id, source, kind, target, weight in db.conn.execute(sql, values)
    ]


def evidence(db: Database, relation_ids: Iterable[int] | None) -> dict[int, tuple[Evidence, ...]]:
    """The evidence of seen relations, in the order of runs and places; of every relation for None."""
    among = "" if relation_ids is None else f"WHERE r0.id IN {_LISTED}"
    seen = f"""SELECT r0.id AS seen_id, r.id AS id
               FROM relation r0
               JOIN entity s0 ON s0.id = r0.subject_id JOIN entity o0 ON o0.id = r0.object_id
               JOIN entity s ON s.root_id = s0.root_id
               JOIN relation r ON r.subject_id = s.id AND r.kind = r0.kind
               JOIN entity o ON o.id = r.object_id AND o.root_id = o0.root_id
               {among}"""
    if relation_ids is None:
        seen = """SELECT min(r.id) OVER (PARTITION BY s.root_id, r.kind, o.root_id) AS seen_id, r.id AS id
                  FROM relation r JOIN entity s ON s.id = r.subject_id JOIN entity o ON o.id = r.object_id"""
    sql = f"""WITH seen AS MATERIALIZED ({seen})
              SELECT seen.seen_id, c.id, d.source, d.title,
                  coalesce((SELECT max(p.number) FROM page p
                            WHERE p.document_id = d.id AND p.start <= c.start + e.start), c.page),
                  c.start + e.start, c.start + e."end", substr(c.text, e.start + 1, e."end" - e.start),
                  {run_columns("u")}
              FROM seen CROSS JOIN evidence e ON e.relation_id = seen.id
              JOIN chunk c ON c.id = e.chunk_id JOIN document d ON d.id = c.document_id
              JOIN graph_run u ON u.id = e.run_id
              ORDER BY seen.seen_id, u.started_at, u.id, d.source, c.start + e.start, e.id"""
    found: dict[int, list[Evidence]] = defaultdict(list)
    known: dict[int, Run] = {}
    for row in db.conn.execute(sql, () if relation_ids is None else (listed(relation_ids),)):
        run = known.get(row[8]) or known.setdefault(row[8], run_of(row[8:]))
        found[row[0]].append(_evidence(row[:8], run))
    return {id: tuple(pieces) for id, pieces in found.items()}


def _evidence(row: Sequence[Any], run: Run) -> Evidence:
    relation_id, chunk_id, source, title, page, start, end, quote = row
    return Evidence(
        relation_id=relation_id,
        chunk_id=chunk_id,
        source=source,
        title=title,
        page=page,
        start=start,
        end=end,
        quote=quote,
        run=run,
    )


def run_columns(table: str) -> str:
    """What `run_of` reads, from `graph_run` under that name."""
    return ", ".join(f"{table}.{column}" for column in _RUN)


def run_of(row: Sequence[object]) -> Run:
    """The run of a row's columns."""
    return Run(**dict(zip(_RUN, row, strict=True)))  # type: ignore[arg-type]


def runs(db: Database) -> list[Run]:
    """Every run, oldest first."""
    sql = f"SELECT {run_columns('u')} FROM graph_run u ORDER BY u.started_at, u.id"
    return [run_of(row) for row in db.conn.execute(sql)]


def quotes(db: Database, source: str, spans: Iterable[tuple[int, int]]) -> list[tuple[Quote, ...]]:
    """For each range of a document's characters the quotes that cover it; see `KnowledgeGraph.quotes`."""
    sql = """SELECT c.id, c.start, c."end", c.text FROM chunk c JOIN document d ON d.id = c.document_id
             WHERE d.source = ? ORDER BY c.start"""
    chunks = db.conn.execute(sql, (source,)).fetchall()
    return [tuple(_parts(chunks, start, end)) for start, end in spans]


def _parts(chunks: Sequence[tuple[int, int, int, str]], start: int, end: int) -> Iterator[Quote]:
    first = max(0, bisect_right(chunks, start, key=lambda chunk: chunk[1]) - 1)
    for id, chunk_start, chunk_end, text in chunks[first:]:
        if chunk_start >= end:
            break
        left, right = max(start, chunk_start) - chunk_start, min(end, chunk_end) - chunk_start
        words = text[left:right]
        left, right = left + len(words) - len(words.lstrip()), left + len(words.rstrip())
        if left < right:
            yield Quote(chunk_id=id, start=left, end=right)


def has_evidence(db: Database, source: str, kind: str) -> bool:
    """Whether a run of that kind found something in the document."""
    sql = """SELECT EXISTS (
                 SELECT 1 FROM document d JOIN chunk c ON c.document_id = d.id
                 JOIN (SELECT chunk_id, run_id FROM evidence UNION ALL SELECT chunk_id, run_id FROM pattern_use) e
                     ON e.chunk_id = c.id
                 JOIN graph_run r ON r.id = e.run_id WHERE d.source = ? AND r.kind = ?)"""
    return bool(db.conn.execute(sql, (source, kind)).fetchone()[0])


def counts(db: Database) -> GraphCounts:
    """How much is seen."""
    seen = """SELECT count(*) FROM (SELECT 1 FROM relation r JOIN entity s ON s.id = r.subject_id
              JOIN entity o ON o.id = r.object_id GROUP BY s.root_id, r.kind, o.root_id)"""
    entities = "SELECT count(*) FROM entity WHERE id = root_id"
    found = (entities, seen, "SELECT count(*) FROM evidence", "SELECT count(*) FROM graph_run")
    numbers = [db.conn.execute(sql).fetchone()[0] for sql in found]
    return GraphCounts(entities=numbers[0], relations=numbers[1], evidence=numbers[2], runs=numbers[3])


def graph_of(db: Database, roots: Sequence[int], *, is_whole: bool = False) -> Graph:
    """The entities of root ids, in the order given, with every relation among them.

    Args:
        db: In a transaction.
        roots: Ids of seen entities.
        is_whole: That these are all there are, which is quicker.
    """
    relations = relations_among(db, None if is_whole else roots)
    return Graph(
        entities=tuple(entities(db, roots).values()),
        relations=tuple(relations),
        evidence=evidence(db, None if is_whole else [relation.id for relation in relations]),
    )
