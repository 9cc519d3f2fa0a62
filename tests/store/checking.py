"""What must hold of every store file, whatever happened to it."""

from pathlib import Path
from typing import Any

from preflexor_agents.store import driver, schema, vectors
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

        def one(sql: str, *values: Any) -> Any:
            return db.conn.execute(sql, values).fetchone()[0]

        assert one("PRAGMA integrity_check") == "ok"
        assert db.conn.execute("PRAGMA foreign_key_check").fetchall() == []
        if schema.version(db) == 0:
            return
        db.conn.execute("INSERT INTO chunk_fts(chunk_fts, rank) VALUES ('integrity-check', 1)")
        wrong = """SELECT count(*) FROM chunk c JOIN document d ON d.id = c.document_id
                   WHERE c.text <> substr(d.text, c.start + 1, c."end" - c.start)"""
        assert one(wrong) == 0
        assert one("SELECT count(*) FROM document WHERE id NOT IN (SELECT document_id FROM chunk)") == 0
        assert one("SELECT count(*) FROM embedding") == one("SELECT count(*) FROM chunk")
        space = vectors.space_of(db)
        if space is not None and space.indexed:
            rows = db.conn.execute("SELECT chunk_id, vector FROM embedding ORDER BY chunk_id").fetchall()
            assert db.conn.execute(f"SELECT chunk_id, vector FROM {space.index} ORDER BY chunk_id").fetchall() == rows
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
