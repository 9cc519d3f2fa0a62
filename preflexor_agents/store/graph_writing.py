"""How facts get into the graph and out again; always inside one write transaction."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import get_args

from sqlite_utils import Database

from preflexor_agents.errors import InputError
from preflexor_agents.graph.values import Abstraction, Added, Fact, Node, Quote, Run, RunKind
from preflexor_agents.store import graph_names, graph_patterns
from preflexor_agents.store.graph_names import LONGEST_NAME

_SHOWN = 60
"""Characters of a name in a line about a refused fact."""
_LARGEST = 1 << 63


def begin(db: Database, run: Run) -> Run:
    """Store the run; returns it with its id and, if it had none, the time.

    Raises:
        InputError: the run's kind is unknown or its seed does not fit into 64 bits.
    """
    if run.kind not in get_args(RunKind):
        raise InputError(f"run kind {run.kind!r} is unknown; use {', '.join(get_args(RunKind))}")
    if not -_LARGEST <= run.seed < _LARGEST:
        raise InputError(f"seed {run.seed} does not fit into 64 bits; use a smaller one")
    sql = """INSERT INTO graph_run (kind, model, prompt_sha256, seed, note, started_at) VALUES (?, ?, ?, ?, ?, ?)"""
    started_at = run.started_at or now()
    row = (run.kind, *map(_storable, (run.model, run.prompt_sha256)), run.seed, _storable(run.note), started_at)
    return replace(run, id=int(db.conn.execute(sql, row).lastrowid or 0), started_at=started_at)


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def check_run(db: Database, run: Run) -> None:
    """Raise InputError if the run was not begun in this store, or was removed."""
    if not db.conn.execute("SELECT 1 FROM graph_run WHERE id = ?", (run.id,)).fetchone():
        raise InputError(f"run {run.id} is not in the graph; begin it first")


def remove_run(db: Database, run_id: int) -> int:
    """Take out the run and what only it found; returns how many pieces of evidence went.

    Raises:
        InputError: there is no such run.
    """
    count = db.conn.execute("SELECT count(*) FROM evidence WHERE run_id = ?", (run_id,)).fetchone()[0]
    if not db.conn.execute("DELETE FROM graph_run WHERE id = ?", (run_id,)).rowcount:
        raise InputError(f"run {run_id} is not in the graph; list the runs to see which are")
    return int(count)


@dataclass(slots=True)
class _Writer:
    """The rows that one call has looked up already."""

    db: Database
    run_id: int
    entities: dict[str, int] = field(default_factory=dict)
    names: dict[tuple[int, str, str], int] = field(default_factory=dict)
    lengths: dict[int, int | None] = field(default_factory=dict)
    """Characters of a chunk; None if there is no such chunk."""
    made: list[int] = field(default_factory=lambda: [0, 0, 0])
    """New entities, relations, pieces of evidence."""


def add(db: Database, facts: Iterable[Fact], patterns: Iterable[Abstraction], run: Run) -> Added:
    """Store the facts and patterns that can be stored; see `KnowledgeGraph.add`.

    Raises:
        InputError: the run was not begun in this store, or was removed.
    """
    check_run(db, run)
    writer = _Writer(db, run.id)
    refused = []
    for fact in facts:
        reason = _refusal(writer, fact)
        if reason:
            refused.append(f"{shown(fact)}: {reason}")
        else:
            _put(writer, fact)
    shown_patterns = 0
    for number, pattern in enumerate(patterns, 1):
        reason = graph_patterns.refusal(db, pattern, writer.lengths)
        if reason:
            refused.append(f"pattern {number}: {reason}")
        else:
            shown_patterns += graph_patterns.put(db, pattern, run)
    entities, relations, evidence = writer.made
    return Added(
        entities=entities, relations=relations, evidence=evidence, patterns=shown_patterns, refused=tuple(refused)
    )


def shown(fact: Fact) -> str:
    """The fact on one line."""
    parts = (fact.subject.name, fact.kind, fact.object.name)
    return " | ".join(graph_names.clean(part)[:_SHOWN] or "(empty)" for part in parts)


def _refusal(writer: _Writer, fact: Fact) -> str:
    """Why the fact cannot be stored; empty if it can."""
    for what, text in (("subject", fact.subject.name), ("kind", fact.kind), ("object", fact.object.name)):
        key = graph_names.kind(text) if what == "kind" else graph_names.identity(text)
        if not key:
            return f"its {what} is empty"
        if len(key) > LONGEST_NAME or len(text) > 2 * LONGEST_NAME:
            return f"its {what} has more than {LONGEST_NAME} characters"
    if not fact.quotes:
        return "it has no quote"
    reasons = (graph_patterns.quote_refusal(writer.db, quote, writer.lengths) for quote in fact.quotes)
    return next(filter(None, reasons), "")


def _put(writer: _Writer, fact: Fact) -> None:
    subject, target = _entity(writer, fact.subject), _entity(writer, fact.object)
    relation, is_new = _relation(writer, subject, graph_names.kind(fact.kind), target)
    quotes = dict.fromkeys(fact.quotes)
    new = [quote for quote in quotes if is_new or not _is_known(writer, relation, quote)]
    if not new:
        return
    ends = (_name(writer, subject, fact.subject), _name(writer, target, fact.object))
    sql = """INSERT INTO evidence (relation_id, chunk_id, start, "end", run_id, subject_name_id, object_name_id)
             VALUES (?, ?, ?, ?, ?, ?, ?)"""
    for q in new:
        writer.db.conn.execute(sql, (relation, q.chunk_id, q.start, q.end, writer.run_id, *ends))
    writer.made[2] += len(new)


def _entity(writer: _Writer, node: Node) -> int:
    folded = graph_names.identity(node.name)
    found = writer.entities.get(folded)
    if found is None:
        found = writer.entities[folded] = _found_or_made(writer, folded)
    return found


def _found_or_made(writer: _Writer, folded: str) -> int:
    conn = writer.db.conn
    row = conn.execute("SELECT id FROM entity WHERE folded = ?", (folded,)).fetchone()
    if row:
        return int(row[0])
    id = int(conn.execute("INSERT INTO entity (folded) VALUES (?)", (folded,)).lastrowid or 0)
    rows = [(word, id) for word in sorted(graph_names.stems_of(folded))]
    conn.executemany("INSERT INTO entity_word (word, entity_id) VALUES (?, ?)", rows)
    writer.made[0] += 1
    return id


def _name(writer: _Writer, entity_id: int, node: Node) -> int:
    key = (entity_id, graph_names.clean(node.name), graph_names.clean(node.type)[:LONGEST_NAME])
    if key not in writer.names:
        sql = "SELECT id FROM entity_name WHERE entity_id = ? AND name = ? AND type = ?"
        row = writer.db.conn.execute(sql, key).fetchone()
        insert = "INSERT INTO entity_name (entity_id, name, type) VALUES (?, ?, ?)"
        writer.names[key] = row[0] if row else int(writer.db.conn.execute(insert, key).lastrowid or 0)
    return writer.names[key]


def _relation(writer: _Writer, subject: int, kind: str, target: int) -> tuple[int, bool]:
    """The relation's id, and whether it is new."""
    key = (subject, kind, target)
    sql = "SELECT id FROM relation WHERE subject_id = ? AND kind = ? AND object_id = ?"
    row = writer.db.conn.execute(sql, key).fetchone()
    if row:
        return int(row[0]), False
    writer.made[1] += 1
    insert = "INSERT INTO relation (subject_id, kind, object_id) VALUES (?, ?, ?)"
    return int(writer.db.conn.execute(insert, key).lastrowid or 0), True


def _is_known(writer: _Writer, relation: int, quote: Quote) -> bool:
    sql = """SELECT 1 FROM evidence
             WHERE relation_id = ? AND chunk_id = ? AND start = ? AND "end" = ? AND run_id = ?"""
    key = (relation, quote.chunk_id, quote.start, quote.end, writer.run_id)
    return writer.db.conn.execute(sql, key).fetchone() is not None
