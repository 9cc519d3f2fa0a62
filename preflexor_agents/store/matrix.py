"""The vectors of a store in memory, for exact search at the speed of memory.

sqlite-vec answers until they are loaded. Loading is spread over searches: none spends more time on it than the search
before took without. What other processes add and delete is noticed before each search and applied.
"""

import os
import time
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from sqlite_utils import Database

from preflexor_agents.store import scan
from preflexor_agents.store.filters import Condition
from preflexor_agents.store.scan import LITTLE_FLOAT, Hit

if TYPE_CHECKING:
    from preflexor_agents.store.vectors import Space

_MEMORY_SHARE = 8
_MEMORY_BYTES = 8 << 30
_BLOCK = 1024
_ROOM = 1.1


def most_bytes() -> int:
    """How much a matrix may hold: an eighth of the machine's memory."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = _MEMORY_BYTES
    return memory // _MEMORY_SHARE


class Matrix:
    """The rows of one embedding space, in the order of their chunks' ids.

    It relies on two facts: a chunk's vector never changes while it has its id, and ids only grow, so that whatever
    comes later stands behind. `Space.generation` tells when a restored copy broke the second.
    """

    def __init__(self, *, limit_bytes: int | None = None) -> None:
        self.budget_s = 0.0
        """What the last search without the matrix took; the next may spend as much on loading."""
        self._limit_bytes = most_bytes() if limit_bytes is None else limit_bytes
        self._space: tuple[int, str] | None = None
        self._stamp: tuple[int, int] | None = None
        self._whole = False
        self._fits = True
        self._count = 0
        self._ids = np.zeros(0, dtype=np.int64)
        self._rows = np.zeros((0, 0), dtype=np.float32)

    def catch_up(self, db: Database, space: "Space") -> bool:
        """Bring the matrix nearer to the file; True once it holds what this read transaction sees."""
        if (space.id, space.generation) != self._space:
            self._clear(space)
        stamp = (db.conn.execute("PRAGMA data_version").fetchone()[0], db.conn.total_changes)
        if stamp != self._stamp:
            self._whole, self._fits = False, self._make_room(db, space)
            if self._fits:
                self._drop_deleted(db, space)
            else:
                self._clear(space)
            self._stamp = stamp
        if self._fits and not self._whole and self.budget_s:
            self._whole = self._load(db, space)
        return self._whole

    def nearest(self, db: Database, vector: npt.NDArray[np.float32], *, k: int, among: Condition | None) -> list[Hit]:
        """The k chunks nearest to the vector, (dim,), best first, ties by id; only after `catch_up` said True."""
        ids, rows = self._ids[: self._count], self._rows[: self._count]
        if among is None:
            return scan.nearest(ids, rows, vector, k=k)
        allowed = np.fromiter((id for (id,) in db.conn.execute(among.sql, among.values)), dtype=np.int64)
        positions = np.searchsorted(ids, np.sort(allowed))
        return scan.nearest_at(positions, ids, rows, vector, k=k)

    def _clear(self, space: "Space") -> None:
        self._space = (space.id, space.generation)
        self._stamp = None
        self._whole = False
        self._count = 0
        self._ids = np.zeros(0, dtype=np.int64)
        self._rows = np.zeros((0, space.dim), dtype=np.float32)

    def _last(self) -> int:
        return int(self._ids[self._count - 1]) if self._count else 0

    def _make_room(self, db: Database, space: "Space") -> bool:
        """Room for every row of the file; False if that is too much."""
        sql = "SELECT count(*) FROM embedding WHERE space_id = ?"
        total = int(db.conn.execute(sql, (space.id,)).fetchone()[0])
        if total * space.dim * LITTLE_FLOAT.itemsize > self._limit_bytes:
            return False
        if total > len(self._ids):
            capacity = int(total * _ROOM) + _BLOCK
            ids, rows = np.empty(capacity, dtype=np.int64), np.empty((capacity, space.dim), dtype=np.float32)
            ids[: self._count], rows[: self._count] = self._ids[: self._count], self._rows[: self._count]
            self._ids, self._rows = ids, rows
        return True

    def _drop_deleted(self, db: Database, space: "Space") -> None:
        where = "FROM embedding WHERE space_id = ? AND chunk_id <= ?"
        of = (space.id, self._last())
        if not self._count or db.conn.execute(f"SELECT count(*) {where}", of).fetchone()[0] == self._count:
            return
        there = np.fromiter((id for (id,) in db.conn.execute(f"SELECT chunk_id {where}", of)), dtype=np.int64)
        stays = np.flatnonzero(np.isin(self._ids[: self._count], there))
        self._ids[: len(stays)], self._rows[: len(stays)] = self._ids[stays], self._rows[stays]
        self._count = len(stays)

    def _load(self, db: Database, space: "Space") -> bool:
        """Read rows for as long as the budget lasts; True if none is left."""
        until = time.perf_counter() + self.budget_s
        sql = "SELECT chunk_id, vector FROM embedding WHERE space_id = ? AND chunk_id > ? ORDER BY chunk_id"
        cursor = db.conn.execute(sql, (space.id, self._last()))
        while block := cursor.fetchmany(_BLOCK):
            stop = self._count + len(block)
            self._ids[self._count : stop] = [id for id, _ in block]
            joined = b"".join(vector for _, vector in block)
            self._rows[self._count : stop] = np.frombuffer(joined, dtype=LITTLE_FLOAT).reshape(len(block), space.dim)
            self._count = stop
            if time.perf_counter() > until:
                more = cursor.fetchone() is not None
                cursor.close()
                return not more
        return True
