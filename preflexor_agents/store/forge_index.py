"""Which chunks went into which rows of training data. An index of the runs' logs: these hold the rows themselves.

A row is forgotten with its run, and its link to a chunk with the chunk; recording a run again makes both anew.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

from sqlite_utils import Database

from preflexor_agents.store import driver

_ROW = """
    SELECT row.id, row.row_id, run.name, run.log, row.number, row.state, row.variant, row.phase, row.round
    FROM forge_row row JOIN forge_run run ON run.id = row.run_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgeRow:
    """A row of a run, without its texts."""

    id: str
    """As in the log."""
    number: int
    """Of the row in its run, from 0."""
    state: Literal["kept", "dropped", "failed"]
    variant: str
    phase: int
    round: int
    chunk_ids: tuple[int, ...] = ()
    """What it was made from, in the order of its context; of those that are in the store no more there is no trace."""
    run: str = ""
    """Name of the run; set by what reads a row."""
    log: str = ""
    """Path of the run's log, likewise."""


class ForgeIndex:
    """The rows that were made from an open store; get it as `Store.forge`. Any thread may call it."""

    def __init__(self, db: Database, *, using: Callable[[], AbstractContextManager[None]]) -> None:
        self._db = db
        self._using = using

    def record(self, run: str, rows: Iterable[ForgeRow], *, log: str | PathLike[str]) -> None:
        """Note rows in one transaction; what was noted of the same rows of the run before is replaced.

        Args:
            run: a name that is the run's own, whatever its folder is called.
            rows: the rows that were added to the log.
            log: where the log lies at present.

        Raises:
            StoreError: the store could not be written.
        """
        conn = self._db.conn
        with self._using(), driver.writing(self._db):
            sql = "INSERT INTO forge_run(name, log) VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET log = excluded.log"
            conn.execute(sql, (run, str(Path(log).absolute())))
            run_id = conn.execute("SELECT id FROM forge_run WHERE name = ?", (run,)).fetchone()[0]
            for row in rows:
                conn.execute("DELETE FROM forge_row WHERE run_id = ? AND number = ?", (run_id, row.number))
                sql = """INSERT INTO forge_row(run_id, number, row_id, state, variant, phase, round)
                    VALUES (?, ?, ?, ?, ?, ?, ?)"""
                values = (run_id, row.number, row.id, row.state, row.variant, row.phase, row.round)
                made = conn.execute(sql, values).lastrowid
                sql = "INSERT INTO forge_row_chunk(forge_row_id, ord, chunk_id) SELECT ?, ?, id FROM chunk WHERE id = ?"
                conn.executemany(sql, [(made, n, chunk_id) for n, chunk_id in enumerate(row.chunk_ids)])

    def rows_of(self, chunk_id: int) -> list[ForgeRow]:
        """The rows that were made from a chunk, by run and number."""
        where = "WHERE row.id IN (SELECT forge_row_id FROM forge_row_chunk WHERE chunk_id = ?)"
        return self._rows(f"{where} ORDER BY row.run_id, row.number", chunk_id)

    def rows(self, run: str) -> list[ForgeRow]:
        """All rows of a run by number; none if it is unknown."""
        return self._rows("WHERE run.name = ? ORDER BY row.number", run)

    def row(self, row_id: str) -> ForgeRow | None:
        """The row with an id; None if it is unknown."""
        return next(iter(self._rows("WHERE row.row_id = ? ORDER BY row.id", row_id)), None)

    def forget(self, run: str) -> bool:
        """Forget a run; its log stays as it is. False if it is unknown."""
        with self._using(), driver.writing(self._db):
            return self._db.conn.execute("DELETE FROM forge_run WHERE name = ?", (run,)).rowcount > 0

    def _rows(self, where: str, given: object) -> list[ForgeRow]:
        conn = self._db.conn
        with self._using(), driver.reading(self._db):
            found = conn.execute(f"{_ROW} {where}", (given,)).fetchall()
            sql = "SELECT chunk_id FROM forge_row_chunk WHERE forge_row_id = ? ORDER BY ord"
            chunks = {row[0]: tuple(i for (i,) in conn.execute(sql, (row[0],))) for row in found}
        names = ("id", "run", "log", "number", "state", "variant", "phase", "round")
        return [ForgeRow(**dict(zip(names, row[1:], strict=True)), chunk_ids=chunks[row[0]]) for row in found]
