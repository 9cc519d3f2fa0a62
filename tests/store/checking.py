"""What must hold of every store file, whatever happened to it."""

from pathlib import Path
from typing import Any

from preflexor_agents.store import driver, schema, soundness
from preflexor_agents.store.driver import sqlite3


class Failing(sqlite3.Connection):
    """Fails at its n-th statement, once."""

    left = -1

    def _count(self) -> None:
        cls = type(self)
        cls.left -= 1
        if cls.left == 0:
            raise sqlite3.OperationalError("injected")

    def execute(self, *args: Any) -> Any:
        self._count()
        return super().execute(*args)

    def executemany(self, *args: Any) -> Any:
        self._count()
        return super().executemany(*args)


def assert_sound(path: Path) -> None:
    """Every document is whole, and rows, full-text index, vectors and vector index agree."""
    db = driver.connect(path, mode="rw")
    try:
        driver.load_vec(db.conn)

        if schema.version(db):
            assert [str(problem) for problem in soundness.problems(db, has_vec=True)] == []
    finally:
        db.close()


def contents(path: Path) -> list[tuple[Any, ...]]:
    """Source, hash and chunks of every document, without ids."""
    db = driver.connect(path, mode="rw")
    try:
        sql = """SELECT d.source, d.sha256, c.ord, c.start, c."end", c.text
                 FROM document d JOIN chunk c ON c.document_id = d.id ORDER BY 1, 3"""
        return db.conn.execute(sql).fetchall()
    finally:
        db.close()
