"""The SQLite driver: opens connections and turns the driver's errors into one clear line.

The driver is whichever module sqlite-utils chose (`pysqlite3` where it is installed, else the standard library),
so that both raise the same exception classes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sqlite_utils import Database

from preflexor_agents.errors import StoreError, StoreFileError
from preflexor_agents.store.paths import shown

if TYPE_CHECKING:
    import sqlite3 as sqlite3
else:
    from sqlite_utils.utils import sqlite3

BUSY_TIMEOUT_S = 5.0
"""How long a writer waits for another one; readers never wait."""
_REMEDIES: tuple[tuple[str, type[StoreError], str], ...] = (
    ("not a database", StoreFileError, "is no SQLite file, so it is no knowledge store; name another file"),
    ("malformed", StoreFileError, "is damaged; restore a copy or ingest the documents into a new file"),
    ("vtable constructor failed", StoreFileError, "is damaged; restore a copy or ingest the documents into a new file"),
    ("locked", StoreError, "is locked by another process; try again when that is done"),
    ("readonly", StoreFileError, "is read-only; copy it to a place you can write to"),
    ("is full", StoreError, "could not grow, the disk is full; free some space and try again, what was done is kept"),
    (
        "sqlite-vec error",
        StoreError,
        "could not write its vectors, the disk may be full; free some space and try again",
    ),
    ("unable to open", StoreFileError, "cannot be opened; check that its folder exists and may be written to"),
)


def connect(path: Path, *, mode: str = "rwc", immutable: bool = False) -> Database:
    """A connection in autocommit mode with foreign keys on, usable from any thread but by one at a time.

    Args:
        path: The file; it is made only if `mode` is `rwc`.
        mode: SQLite's open mode: `ro`, `rw` or `rwc`.
        immutable: Read without locks or a WAL: for a file on a medium where neither can be made.
    """
    uri = f"file:{quote(os.fsencode(path.absolute()))}?mode={mode}{'&immutable=1' if immutable else ''}"
    conn = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        conn.execute("PRAGMA foreign_keys = ON")
        conn.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        conn.close()
        raise
    return Database(conn, execute_plugins=False)


def load_vec(conn: "sqlite3.Connection") -> bool:
    """Load sqlite-vec; False where it is not installed or the driver cannot load extensions."""
    try:
        import sqlite_vec

        conn.enable_load_extension(True)
        conn.load_extension(sqlite_vec.loadable_path())
        conn.enable_load_extension(False)
    except (ImportError, AttributeError, sqlite3.OperationalError):
        return False
    return True


@contextmanager
def writing(db: Database) -> Iterator[None]:
    """One write transaction: all of the block or nothing of it, whatever ends it.

    The write lock is taken at once: a transaction that reads first and writes later cannot wait for another writer.
    """
    try:
        db.conn.execute("BEGIN IMMEDIATE")
        yield
        db.conn.execute("COMMIT")
    except BaseException:
        _roll_back(db)
        raise


@contextmanager
def reading(db: Database) -> Iterator[None]:
    """One read transaction: every statement of the block sees the same state of the file."""
    try:
        db.conn.execute("BEGIN")
        yield
    finally:
        _roll_back(db)


@contextmanager
def closing(db: Database, path: Path) -> Iterator[None]:
    """Close the connection at the end; the driver's errors come out as ours."""
    with speaking_of(path):
        try:
            yield
        finally:
            db.close()


def copy_into(db: Database, copy: Path) -> None:
    """Write a compact copy of what is committed; it has its name only once it is whole.

    Raises:
        OSError: the copy cannot be renamed or an old half one not removed.
    """
    partial = copy.with_name(copy.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        db.conn.execute("VACUUM INTO ?", (str(partial),))
        partial.replace(copy)
    finally:
        partial.unlink(missing_ok=True)


def _roll_back(db: Database) -> None:
    with suppress(sqlite3.Error):
        db.conn.rollback()


@contextmanager
def speaking_of(path: Path) -> Iterator[None]:
    """Turn the driver's errors into StoreError or StoreFileError that name the file and the remedy."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        for symptom, kind, remedy in _REMEDIES:
            if symptom in text:
                raise kind(f"store {shown(path)} {remedy} ({text})") from error
        raise StoreError(f"store {shown(path)} failed: {text}") from error
