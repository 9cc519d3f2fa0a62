"""Another embedder for a store: its vectors are made beside the old ones, which answer until the new are complete.

The work is done in small transactions and can be stopped at any time; the same call goes on where it ended. What is
ingested meanwhile gets its old vector at once and its new one before the switch. The switch is one transaction.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import NamedTuple

from sqlite_utils import Database

from preflexor_agents.errors import StoreError
from preflexor_agents.store import driver, vectors, writing
from preflexor_agents.store.embedders import Embedder, Vectors
from preflexor_agents.store.vectors import Space

_BATCH = 32
"""Chunks embedded and written at once."""
_DELETED_AT_ONCE = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReindexProgress:
    """Where a reindex stands; sent after every batch."""

    chunks_done: int
    """With a new vector, those of an earlier, interrupted call included."""
    chunks_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReindexReport:
    """What a reindex did."""

    embedder: str
    """Name of the space that is searched from here on."""
    dim: int
    embedded: int
    """Chunks; 0 if the store had this embedder already."""


Report = Callable[[ReindexProgress], None]
Using = Callable[[], AbstractContextManager[None]]
"""Holds the connection for this thread alone, for as long as the block lasts."""


def reindex(
    db: Database, using: Using, embedder: Embedder, *, has_vec: bool, progress: Report | None = None
) -> ReindexReport:
    """Give every chunk a vector of the embedder, then search those.

    Args:
        db: The store's connection.
        using: Taken for each short step, so that other threads may use the connection in between.
        embedder: Makes the new vectors.
        has_vec: Whether sqlite-vec is loaded.
        progress: Called after each batch.

    Raises:
        StoreError: the store could not be written, or another process gave it another embedder meanwhile.
        BackendError: the embedder failed; what is done is kept.
    """
    dim = embedder.dim
    with using(), driver.writing(db):
        space = _target(db, embedder, dim, has_vec=has_vec)
        found = db.conn.execute("SELECT count(*) FROM embedding WHERE space_id = ?", (space.id,)).fetchone()[0]
    embedded = 0
    while not _switched(db, using, space, has_vec=has_vec):
        for chunks in _missing(db, using, space):
            rows = embedder.embed([chunk.text for chunk in chunks])
            vectors.check_dim(space, rows)
            with using(), driver.writing(db):
                embedded += _add(db, space, [chunk.id for chunk in chunks], rows, has_vec=has_vec)
                total = db.conn.execute("SELECT count(*) FROM chunk").fetchone()[0]
            if progress is not None:
                progress(ReindexProgress(chunks_done=found + embedded, chunks_total=total))
    _drop_others(db, using, has_vec=has_vec)
    return ReindexReport(embedder=embedder.name, dim=dim, embedded=embedded)


class _Chunk(NamedTuple):
    id: int
    text: str
    """To be embedded."""


def _target(db: Database, embedder: Embedder, dim: int, *, has_vec: bool) -> Space:
    """The space to fill: a new one, or what an interrupted reindex has of it."""
    found = next((space for space in vectors.spaces(db) if space.name == embedder.name), None)
    if found is not None and found.dim == dim:
        if has_vec and not found.complete:
            vectors.create_index(db, found)
        return found
    if found is not None and found.complete:
        raise StoreError(
            f"embedder {embedder.spec} gives {dim} dimensions and gave {found.dim} before: the model behind the name "
            "has changed; reindex with another embedder first"
        )
    if found is not None:
        _drop_index(db, found, has_vec=has_vec)
        db.conn.execute("DELETE FROM embedding_space WHERE id = ?", (found.id,))
    space = vectors.add_space(db, embedder, dim, complete=vectors.space_of(db) is None)
    return vectors.prepare_index(db, space, has_vec=has_vec)


def _missing(db: Database, using: Using, space: Space) -> Iterator[list[_Chunk]]:
    """The chunks that have no vector in the space yet, batch by batch, those that are ingested meanwhile too."""
    sql = """SELECT c.id, c.context, c.text, c.body FROM chunk c WHERE c.id > ? AND NOT EXISTS
             (SELECT 1 FROM embedding e WHERE e.chunk_id = c.id AND e.space_id = ?) ORDER BY c.id LIMIT ?"""
    last = 0
    while True:
        with using():
            rows = db.conn.execute(sql, (last, space.id, _BATCH)).fetchall()
        if not rows:
            return
        last = rows[-1][0]
        yield [_Chunk(id, writing.embedded_text(context, text[body:])) for id, context, text, body in rows]


def _add(db: Database, space: Space, ids: list[int], rows: Vectors, *, has_vec: bool) -> int:
    """Write the vectors of the chunks that are still there and have none; returns how many."""
    _refuse_if_gone(db, space)
    sql = """SELECT 1 FROM chunk c WHERE c.id = ? AND NOT EXISTS
             (SELECT 1 FROM embedding e WHERE e.chunk_id = c.id AND e.space_id = ?)"""
    kept = [n for n, id in enumerate(ids) if db.conn.execute(sql, (id, space.id)).fetchone()]
    vectors.add(db, replace(space, indexed=has_vec), [ids[n] for n in kept], rows[kept])
    return len(kept)


def _switched(db: Database, using: Using, space: Space, *, has_vec: bool) -> bool:
    """Search the space from here on, if every chunk has its vector in it; in one transaction."""
    lacking = """SELECT 1 FROM chunk c WHERE NOT EXISTS
                 (SELECT 1 FROM embedding e WHERE e.chunk_id = c.id AND e.space_id = ?) LIMIT 1"""
    with using(), driver.writing(db):
        _refuse_if_gone(db, space)
        if db.conn.execute(lacking, (space.id,)).fetchone():
            return False
        searched = vectors.space_of(db)
        if searched is None or searched.id != space.id:
            if has_vec:
                vectors.mend_index(db, space)
            db.conn.execute("UPDATE embedding_space SET complete = 0, indexed = 0 WHERE complete")
            sql = "UPDATE embedding_space SET complete = 1, indexed = ? WHERE id = ?"
            db.conn.execute(sql, (int(has_vec), space.id))
        return True


def _refuse_if_gone(db: Database, space: Space) -> None:
    if not any(found.id == space.id and found.name == space.name for found in vectors.spaces(db)):
        raise StoreError("another process gave the store another embedder meanwhile; start again if this one is wanted")


def _drop_index(db: Database, space: Space, *, has_vec: bool) -> None:
    if has_vec:
        db.conn.execute(f"DROP TABLE IF EXISTS {space.index}")


def _drop_others(db: Database, using: Using, *, has_vec: bool) -> None:
    """Delete what is not searched, in short transactions; without sqlite-vec its tables stay, to be dropped later."""
    sql = "DELETE FROM embedding WHERE rowid IN (SELECT rowid FROM embedding WHERE space_id = ? LIMIT ?)"
    with using():
        others = [space for space in vectors.spaces(db) if not space.complete]
    for space in others:
        deleted = _DELETED_AT_ONCE
        while deleted == _DELETED_AT_ONCE:
            with using(), driver.writing(db):
                deleted = db.conn.execute(sql, (space.id, _DELETED_AT_ONCE)).rowcount
        if has_vec:
            with using(), driver.writing(db):
                _drop_index(db, space, has_vec=True)
                db.conn.execute("DELETE FROM embedding_space WHERE id = ? AND NOT complete", (space.id,))
