"""What must hold in every store: each rule is a sentence and the SQL that counts what breaks it.

Plain rows are the truth. What is derived from them, the full-text index and the sqlite-vec tables, can be made again
(`rebuild`); rows that are wrong cannot, and call for a backup or a new ingest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sqlite_utils import Database

from preflexor_agents.store import driver, graph_soundness, vectors

Remedy = Literal["rebuild", "restore"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A rule that does not hold."""

    rule: str
    count: int
    """Rows that break it; 1 where they cannot be counted."""
    remedy: Remedy
    """`rebuild` makes the indexes again from the rows; `restore` needs a backup or the documents."""

    def __str__(self) -> str:
        rows = "" if self.count == 1 else f" ({self.count} times)"
        return f"{self.rule}{rows}"


class _Rule(NamedTuple):
    broken: str
    """What is wrong, in words."""
    sql: str
    """Counts the rows that are wrong."""


_RULES = (
    _Rule(
        "a chunk's text is not what stands in its document",
        """SELECT count(*) FROM chunk c JOIN document d ON d.id = c.document_id
           WHERE c.text <> substr(d.text, c.start + 1, c."end" - c.start)""",
    ),
    _Rule(
        "a document has no chunks",
        "SELECT count(*) FROM document WHERE id NOT IN (SELECT document_id FROM chunk)",
    ),
    _Rule(
        "chunks of a document are not numbered from 0 on",
        "SELECT count(*) FROM (SELECT max(ord) + 1 <> count(*) AS wrong FROM chunk GROUP BY document_id) WHERE wrong",
    ),
    _Rule(
        "a page lies outside its document",
        'SELECT count(*) FROM page p JOIN document d ON d.id = p.document_id WHERE p."end" > length(d.text)',
    ),
    _Rule(
        "a chunk's page is not in its document",
        """SELECT count(*) FROM chunk c WHERE c.page IS NOT NULL AND NOT EXISTS
           (SELECT 1 FROM page p WHERE p.document_id = c.document_id AND p.number = c.page)""",
    ),
    _Rule(
        "a chunk has no vector",
        """SELECT count(*) FROM chunk c, embedding_space s WHERE s.complete AND NOT EXISTS
           (SELECT 1 FROM embedding e WHERE e.chunk_id = c.id AND e.space_id = s.id)""",
    ),
    _Rule(
        "a vector has another length than its embedder's",
        "SELECT count(*) FROM embedding e JOIN embedding_space s ON s.id = e.space_id WHERE length(vector) <> 4 * dim",
    ),
    *(_Rule(*rule) for rule in graph_soundness.RULES),
)
_MOST_LINES = 5


def problems(db: Database, *, has_vec: bool) -> list[Problem]:
    """Every rule that does not hold; nothing is changed.

    Args:
        db: A connection outside any transaction.
        has_vec: Whether sqlite-vec is loaded; without it its tables are not looked at.
    """
    found = list(_file(db))
    if any(problem.remedy == "restore" for problem in found):
        return found
    with driver.reading(db):
        found += _rows(db)
        if has_vec:
            found += _vector_indexes(db)
    return found + list(_words_index(db))


def _file(db: Database) -> Iterator[Problem]:
    for (line,) in db.conn.execute(f"PRAGMA integrity_check({_MOST_LINES})"):
        if line != "ok":
            yield Problem(f"the file is damaged: {' '.join(line.split())}", 1, "restore")
    lost = len(db.conn.execute("PRAGMA foreign_key_check").fetchall())
    if lost:
        yield Problem("a row belongs to one that is gone", lost, "restore")


def _rows(db: Database) -> Iterator[Problem]:
    for rule in _RULES:
        count = db.conn.execute(rule.sql).fetchone()[0]
        if count:
            yield Problem(rule.broken, count, "restore")


def _vector_indexes(db: Database) -> Iterator[Problem]:
    for space in vectors.spaces(db):
        if not space.indexed:
            continue
        differs = f"""SELECT count(*) FROM embedding e LEFT JOIN {space.index} i ON i.chunk_id = e.chunk_id
                      WHERE e.space_id = ? AND (i.vector IS NULL OR i.vector <> e.vector)"""
        surplus = f"""SELECT max(0, (SELECT count(*) FROM {space.index})
                      - (SELECT count(*) FROM embedding WHERE space_id = ?))"""
        try:
            wrong = sum(db.conn.execute(sql, (space.id,)).fetchone()[0] for sql in (differs, surplus))
        except driver.sqlite3.DatabaseError:
            yield Problem(f"the vector index of {space.name} cannot be read", 1, "rebuild")
            continue
        if wrong:
            yield Problem(f"the vector index of {space.name} differs from the vectors", wrong, "rebuild")


def _words_index(db: Database) -> Iterator[Problem]:
    """FTS5 checks itself by a statement that counts as a write, so a file that cannot be written is passed over."""
    try:
        with driver.writing(db):
            db.conn.execute("INSERT INTO chunk_fts(chunk_fts, rank) VALUES ('integrity-check', 1)")
    except driver.sqlite3.DatabaseError as error:
        if "malformed" not in str(error):
            if "readonly" in str(error):
                return
            raise
        yield Problem("the full-text index differs from the chunks", 1, "rebuild")
