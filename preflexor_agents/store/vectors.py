"""Vectors in the store: plain rows are the truth, a sqlite-vec table per embedding space is the index.

Where sqlite-vec cannot be loaded, or a process without it wrote last, the rows are scanned instead; results are the
same, since both are exact. Vectors have length 1, so L2 distance d gives the cosine 1 - d*d/2.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from sqlite_utils import Database

from preflexor_agents.errors import StoreFileError
from preflexor_agents.store import scan
from preflexor_agents.store.embedders import Embedder, Vectors
from preflexor_agents.store.filters import Condition
from preflexor_agents.store.matrix import Matrix
from preflexor_agents.store.scan import LITTLE_FLOAT, SLACK, Hit

_COLUMNS = "id, spec, name, dim, indexed, complete, generation"
_LARGEST_K = 4096
"""Most neighbours that sqlite-vec gives at once."""
_SPARE = 6
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Space:
    """An embedding space that the store holds vectors of."""

    id: int
    spec: str
    name: str
    dim: int
    indexed: bool
    """Whether the sqlite-vec table agrees with the rows."""
    complete: bool
    """Whether every chunk has its vector in it; the store searches the one space of which this is so."""
    generation: str
    """Another one, once a copy was restored, so that ids of chunks may stand for other chunks."""

    @property
    def index(self) -> str:
        """Name of the sqlite-vec table."""
        return f"chunk_vec_{self.id}"


def space_of(db: Database) -> Space | None:
    """The space that is searched; None before the first document."""
    return next((space for space in spaces(db) if space.complete), None)


def spaces(db: Database) -> list[Space]:
    """Every space that the store holds vectors of: the one that is searched, and what a reindex has of another."""
    rows = db.conn.execute(f"SELECT {_COLUMNS} FROM embedding_space ORDER BY id").fetchall()
    return [
        Space(id, spec, name, dim, bool(indexed), bool(complete), generation)
        for id, spec, name, dim, indexed, complete, generation in rows
    ]


def add_space(db: Database, embedder: Embedder, dim: int, *, complete: bool = True) -> Space:
    """Remember the embedder, inside the transaction that writes its first vectors."""
    sql = "INSERT INTO embedding_space (spec, name, dim, complete) VALUES (?, ?, ?, ?)"
    cursor = db.conn.execute(sql, (embedder.spec, embedder.name, dim, int(complete)))
    id = int(cursor.lastrowid or 0)
    return Space(id, embedder.spec, embedder.name, dim, indexed=False, complete=complete, generation="")


def renew(db: Database) -> None:
    """Say that ids of chunks may stand for other chunks than before; to be called where a file's content was replaced.

    Other processes then forget the vectors that they hold in memory.
    """
    db.conn.execute("UPDATE embedding_space SET generation = lower(hex(randomblob(8)))")


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
    return replace(space, indexed=has_vec)


def build_index(db: Database, space: Space) -> int:
    """Make the sqlite-vec table from the rows, in a write transaction; returns how many vectors it holds."""
    db.conn.execute(f"DROP TABLE IF EXISTS {space.index}")
    create_index(db, space)
    cursor = db.conn.execute(
        f"INSERT INTO {space.index}(chunk_id, vector) "
        "SELECT chunk_id, vector FROM embedding WHERE space_id = ? ORDER BY chunk_id",
        (space.id,),
    )
    db.conn.execute("UPDATE embedding_space SET indexed = complete WHERE id = ?", (space.id,))
    return int(cursor.rowcount)


def create_index(db: Database, space: Space) -> None:
    """Make the sqlite-vec table, empty, if it is not there."""
    columns = f"chunk_id INTEGER PRIMARY KEY, vector float[{space.dim}]"
    db.conn.execute(f"CREATE VIRTUAL TABLE IF NOT EXISTS {space.index} USING vec0({columns})")


def mend_index(db: Database, space: Space) -> None:
    """Make the sqlite-vec table agree with the rows where it was not kept in step, in a write transaction."""
    rows = f"SELECT chunk_id FROM embedding WHERE space_id = {space.id}"
    surplus = f"SELECT chunk_id FROM {space.index} EXCEPT {rows}"
    db.conn.execute(f"DELETE FROM {space.index} WHERE chunk_id IN ({surplus})")
    lacking = f"{rows} EXCEPT SELECT chunk_id FROM {space.index}"
    db.conn.execute(
        f"INSERT INTO {space.index}(chunk_id, vector) SELECT chunk_id, vector FROM embedding "
        f"WHERE space_id = {space.id} AND chunk_id IN ({lacking})"
    )


def add(db: Database, space: Space, chunk_ids: Iterable[int], vectors: Vectors) -> None:
    """Write the vectors of new chunks, rows and index."""
    blobs = [row.tobytes() for row in vectors.astype(LITTLE_FLOAT)]
    rows = list(zip(chunk_ids, blobs, strict=True))
    db.conn.executemany(f"INSERT INTO embedding (chunk_id, vector, space_id) VALUES (?, ?, {space.id})", rows)
    if space.indexed:
        db.conn.executemany(f"INSERT INTO {space.index} (chunk_id, vector) VALUES (?, ?)", rows)


def drop(db: Database, space: Space, chunk_ids: Iterable[int]) -> None:
    """Take chunks out of the index; their rows go with the chunks."""
    if space.indexed:
        db.conn.executemany(f"DELETE FROM {space.index} WHERE chunk_id = ?", [(id,) for id in chunk_ids])


def of(db: Database, space: Space, chunk_ids: Sequence[int]) -> Vectors:
    """The vectors of chunks, (len(chunk_ids), dim)."""
    sql = "SELECT vector FROM embedding WHERE chunk_id = ? AND space_id = ?"
    blobs = [db.conn.execute(sql, (id, space.id)).fetchone()[0] for id in chunk_ids]
    return np.frombuffer(b"".join(blobs), dtype=LITTLE_FLOAT).reshape(len(blobs), space.dim)


def nearest(
    db: Database,
    space: Space,
    query: Vectors,
    *,
    k: int,
    has_vec: bool,
    among: Condition | None = None,
    matrix: Matrix | None = None,
) -> list[Hit]:
    """The k chunks nearest to the query, (1, dim), best first, ties by id; none if the query has no features.

    Args:
        db: In a read transaction.
        space: The space that is searched.
        query: From the space's embedder.
        k: How many at most.
        has_vec: Whether sqlite-vec is loaded.
        among: Which chunks are allowed.
        matrix: Vectors in memory; they answer once they are loaded.
    """
    check_dim(space, query)
    vector = query[0].astype(LITTLE_FLOAT)
    if not vector.any():
        return []
    if matrix is not None and matrix.catch_up(db, space):
        return matrix.nearest(db, vector, k=k, among=among)
    began = time.perf_counter()
    if has_vec and space.indexed:
        hits = _by_index(db, space, vector, k=k, among=among)
    else:
        hits = _by_rows(db, space, vector, k=k, among=among)
    if matrix is not None:
        matrix.budget_s = time.perf_counter() - began
    return hits


def _by_index(
    db: Database, space: Space, vector: npt.NDArray[np.float32], *, k: int, among: Condition | None
) -> list[Hit]:
    """Ask sqlite-vec for some more than k, until it is sure that no equal one was cut off."""
    allowed = f" AND chunk_id IN ({among.sql})" if among else ""
    sql = f"SELECT chunk_id, distance FROM {space.index} WHERE vector MATCH ? AND k = ?{allowed} ORDER BY distance"
    wanted = k + _SPARE
    while wanted <= _LARGEST_K:
        found = db.conn.execute(sql, (vector.tobytes(), wanted, *(among.values if among else ()))).fetchall()
        if len(found) < wanted or _cosine(found[-1][1]) < _cosine(found[k - 1][1]) - SLACK:
            ids = np.array([id for id, _ in found], dtype=np.int64)
            return scan.nearest(ids, of(db, space, ids.tolist()), vector, k=k)
        wanted *= 4
    return _by_rows(db, space, vector, k=k, among=among)


def _cosine(distance: float) -> float:
    return 1.0 - distance * distance / 2


def _by_rows(
    db: Database, space: Space, vector: npt.NDArray[np.float32], *, k: int, among: Condition | None
) -> list[Hit]:
    """Look at every row, in blocks, so that memory stays bounded."""
    allowed = f" AND chunk_id IN ({among.sql})" if among else ""
    sql = f"SELECT chunk_id, vector FROM embedding WHERE space_id = ?{allowed}"
    cursor = db.conn.execute(sql, (space.id, *(among.values if among else ())))
    best: list[Hit] = []
    while block := cursor.fetchmany(_BLOCK):
        ids = np.array([id for id, _ in block], dtype=np.int64)
        rows = np.frombuffer(b"".join(blob for _, blob in block), dtype=LITTLE_FLOAT).reshape(len(block), space.dim)
        best += scan.nearest(ids, rows, vector, k=k)
        best = sorted(best, key=lambda hit: (-hit.score, hit.chunk_id))[:k]
    return best
