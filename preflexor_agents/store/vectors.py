"""Vectors in the store: plain rows are the truth, a sqlite-vec table per embedding space is the index.

Where sqlite-vec cannot be loaded, or a process without it wrote last, the rows are scanned instead; results are the
same, since both are exact. Vectors have length 1, so L2 distance d gives the cosine 1 - d*d/2.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlite_utils import Database

from preflexor_agents.errors import StoreFileError
from preflexor_agents.store.embedders import Embedder, Vectors

_LITTLE_FLOAT = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Space:
    """An embedding space that the store holds vectors of."""

    id: int
    spec: str
    name: str
    dim: int
    indexed: bool
    """Whether the sqlite-vec table agrees with the rows."""

    @property
    def index(self) -> str:
        """Name of the sqlite-vec table."""
        return f"chunk_vec_{self.id}"


class Hit(NamedTuple):
    """A chunk found by one side of the search; larger scores are better."""

    chunk_id: int
    score: float


def space_of(db: Database) -> Space | None:
    """The space of the store's vectors; None before the first document."""
    row = db.conn.execute("SELECT id, spec, name, dim, indexed FROM embedding_space ORDER BY id LIMIT 1").fetchone()
    return Space(row[0], row[1], row[2], row[3], bool(row[4])) if row else None


def spaces(db: Database) -> list[Space]:
    """Every space that the store holds vectors of."""
    rows = db.conn.execute("SELECT id, spec, name, dim, indexed FROM embedding_space ORDER BY id").fetchall()
    return [Space(id, spec, name, dim, bool(indexed)) for id, spec, name, dim, indexed in rows]


def add_space(db: Database, embedder: Embedder, dim: int) -> Space:
    """Remember the embedder, inside the transaction that writes its first vectors."""
    row = (embedder.spec, embedder.name, dim)
    cursor = db.conn.execute("INSERT INTO embedding_space (spec, name, dim) VALUES (?, ?, ?)", row)
    return Space(int(cursor.lastrowid or 0), *row, indexed=False)


def check_dim(space: Space, rows: Vectors) -> None:
    """Raise StoreFileError if the vectors, (n, dim), do not fit the space: the model behind the name is another."""
    if rows.shape[1] != space.dim:
        raise StoreFileError(
            f"embedder {space.spec} gives {rows.shape[1]} dimensions, the store holds {space.dim}: the model behind "
            "the name has changed; ingest into a new store"
        )


def prepare_index(db: Database, space: Space, *, has_vec: bool) -> Space:
    """Before a write: build the index if it is behind and can be built; mark it as behind if it cannot be kept."""
    if has_vec and not space.indexed:
        build_index(db, space)
    elif has_vec != space.indexed:
        db.conn.execute("UPDATE embedding_space SET indexed = ? WHERE id = ?", (int(has_vec), space.id))
    return Space(space.id, space.spec, space.name, space.dim, has_vec)


def build_index(db: Database, space: Space) -> int:
    """Make the sqlite-vec table from the rows, in a write transaction; returns how many vectors it holds."""
    db.conn.execute(f"DROP TABLE IF EXISTS {space.index}")
    db.conn.execute(
        f"CREATE VIRTUAL TABLE {space.index} USING vec0(chunk_id INTEGER PRIMARY KEY, vector float[{space.dim}])"
    )
    cursor = db.conn.execute(
        f"INSERT INTO {space.index}(chunk_id, vector) "
        "SELECT chunk_id, vector FROM embedding WHERE space_id = ? ORDER BY chunk_id",
        (space.id,),
    )
    db.conn.execute("UPDATE embedding_space SET indexed = 1 WHERE id = ?", (space.id,))
    return int(cursor.rowcount)


def add(db: Database, space: Space, chunk_ids: Iterable[int], vectors: Vectors) -> None:
    """Write the vectors of new chunks, rows and index."""
    blobs = [row.tobytes() for row in vectors.astype(_LITTLE_FLOAT)]
    rows = list(zip(chunk_ids, blobs, strict=True))
    db.conn.executemany(f"INSERT INTO embedding (chunk_id, vector, space_id) VALUES (?, ?, {space.id})", rows)
    if space.indexed:
        db.conn.executemany(f"INSERT INTO {space.index} (chunk_id, vector) VALUES (?, ?)", rows)


def drop(db: Database, space: Space, chunk_ids: Iterable[int]) -> None:
    """Take chunks out of the index; their rows go with the chunks."""
    if space.indexed:
        db.conn.executemany(f"DELETE FROM {space.index} WHERE chunk_id = ?", [(id,) for id in chunk_ids])


def nearest(db: Database, space: Space, query: Vectors, *, k: int, has_vec: bool) -> list[Hit]:
    """The k chunks nearest to the query, (1, dim), best first, ties by id; none if the query has no features."""
    check_dim(space, query)
    vector = query[0].astype(_LITTLE_FLOAT)
    if not vector.any():
        return []
    if has_vec and space.indexed:
        sql = f"SELECT chunk_id, distance FROM {space.index} WHERE vector MATCH ? AND k = ?"
        hits = [Hit(id, 1.0 - d * d / 2) for id, d in db.conn.execute(sql, (vector.tobytes(), k))]
    else:
        hits = _scan(db, space, vector)
    return sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))[:k]


def _scan(db: Database, space: Space, vector: npt.NDArray[np.float32]) -> list[Hit]:
    rows = db.conn.execute("SELECT chunk_id, vector FROM embedding WHERE space_id = ?", (space.id,)).fetchall()
    matrix = np.frombuffer(b"".join(blob for _, blob in rows), dtype=_LITTLE_FLOAT).reshape(len(rows), space.dim)
    return [Hit(id, float(score)) for (id, _), score in zip(rows, matrix @ vector, strict=True)]
