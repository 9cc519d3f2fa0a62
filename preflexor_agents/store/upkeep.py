"""Care for a store's file: check it, copy it, put a copy back, make its indexes again, give space back.

Each of them leaves the store as it was if it fails, and may run while other processes read.
"""

import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlite_utils import Database

from preflexor_agents.errors import StoreError, StoreFileError
from preflexor_agents.store import driver, schema, soundness, vectors
from preflexor_agents.store.paths import shown
from preflexor_agents.store.soundness import Problem

_ROOM = 1.1
"""Free disk that a copy needs, as a multiple of the file's size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What `rebuild` made again."""

    chunks: int
    """In the full-text index."""
    vectors: int
    """In the sqlite-vec tables; 0 where sqlite-vec cannot be loaded."""
    before: tuple[Problem, ...]
    """What was wrong with the indexes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What `restore` did."""

    documents: int
    kept: Path | None
    """Where the store lies that was replaced; None if there was none."""


def check(path: Path) -> list[Problem]:
    """Every rule that the store breaks; nothing is changed.

    Raises:
        StoreFileError: the file is no store of this version, or so damaged that it cannot be opened.
    """
    db = schema.open_file(path, create=False)
    with driver.closing(db, path):
        return soundness.problems(db, has_vec=driver.load_vec(db.conn))


def backup(path: Path, to: Path | None = None) -> Path:
    """Copy the store as it is at this moment, other writers or not; returns the copy.

    Args:
        path: The store.
        to: A file that does not exist yet, or a folder. Default: beside the store, with the time in its name.

    Raises:
        StoreFileError: the copy exists already or cannot be written.
        StoreError: there is not enough room on the disk.
    """
    db = schema.open_file(path, create=False)
    with driver.closing(db, path):
        copy = _free_place(path, to)
        _copy(db, path, copy)
    return copy


def restore(copy: Path, path: Path) -> Restored:
    """Put a copy back in a store's place; what was there before is kept beside it.

    A store that can be opened is overwritten page by page under its own locks, so that processes which have it open go
    on with the restored one; one that cannot is moved aside.

    Raises:
        StoreFileError: the copy is no whole store, or the store's place cannot be written.
    """
    if path.exists() and copy.exists() and os.path.samefile(copy, path):
        raise StoreFileError(f"{shown(copy)} is the store itself; name a copy of it")
    wrong = check(copy)
    if wrong:
        raise StoreFileError(f"copy {shown(copy)} is not whole: {wrong[0]}; name another copy")
    source = schema.open_file(copy, create=False)
    with driver.closing(source, copy):
        documents = source.conn.execute("SELECT count(*) FROM document").fetchone()[0]
        kept = _set_aside(path)
        target = driver.connect(path)
        with driver.closing(target, path):
            source.conn.backup(target.conn)
            vectors.renew(target)
            target.conn.execute("PRAGMA journal_mode = WAL")
    return Restored(documents=documents, kept=kept)


def rebuild(path: Path) -> Rebuilt:
    """Make the full-text index and the sqlite-vec tables again from the rows, in one transaction.

    Raises:
        StoreFileError: rows are damaged too, which no rebuild can mend.
    """
    db = schema.open_file(path, create=False)
    with driver.closing(db, path):
        has_vec = driver.load_vec(db.conn)
        before = soundness.problems(db, has_vec=has_vec)
        lost = [problem for problem in before if problem.remedy == "restore"]
        if lost:
            raise StoreFileError(f"store {shown(path)}: {lost[0]}; restore a backup or ingest the documents again")
        with driver.writing(db):
            db.conn.execute("INSERT INTO chunk_fts(chunk_fts) VALUES ('rebuild')")
            counts = [vectors.build_index(db, space) for space in vectors.spaces(db)] if has_vec else []
        chunks = db.conn.execute("SELECT count(*) FROM chunk").fetchone()[0]
    return Rebuilt(chunks=chunks, vectors=sum(counts), before=tuple(before))


def vacuum(path: Path) -> tuple[int, int]:
    """Give unused space back to the disk and put the file in order; returns its size before and after, in bytes.

    Raises:
        StoreError: another process has the store open in a transaction, or the disk has no room for the work.
    """
    db = schema.open_file(path, create=False)
    with driver.closing(db, path):
        before = _size(path)
        _check_room(path, path.parent)
        db.conn.execute("INSERT INTO chunk_fts(chunk_fts) VALUES ('optimize')")
        db.conn.execute("VACUUM")
        db.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return before, _size(path)


def _size(path: Path) -> int:
    """Of the file and of what is not yet written into it, in bytes."""
    wal = path.with_name(path.name + "-wal")
    return path.stat().st_size + (wal.stat().st_size if wal.exists() else 0)


def _free_place(path: Path, to: Path | None) -> Path:
    place = to or path.parent
    if place.is_dir():
        place = place / f"{path.stem}-{datetime.now():%Y%m%d-%H%M%S-%f}{path.suffix}"
    if os.path.lexists(place):
        raise StoreFileError(f"{shown(place)} exists already; name another file")
    return place


def _copy(db: Database, path: Path, copy: Path) -> None:
    schema.make_folder(copy.parent)
    _check_room(path, copy.parent)
    try:
        with driver.speaking_of(copy):
            driver.copy_into(db, copy)
    except OSError as error:
        raise StoreFileError(f"copy {shown(copy)} cannot be written: {error.strerror}") from error


def _check_room(path: Path, folder: Path) -> None:
    needed, free = int(_size(path) * _ROOM), shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            f"store {shown(path)} needs {needed >> 20} MiB in {shown(folder)}, {free >> 20} MiB are free; make room"
        )


def _set_aside(path: Path) -> Path | None:
    """Keep what a restore is about to replace."""
    if not os.path.lexists(path):
        schema.make_folder(path.parent)
        return None
    kept = _free_place(path.with_suffix(f".replaced{path.suffix}"), path.parent)
    try:
        db = schema.open_file(path, create=False)
    except StoreFileError:
        for end in ("", "-wal", "-shm"):
            part = path.with_name(path.name + end)
            if part.exists():
                part.replace(kept.with_name(kept.name + end))
        return kept
    with driver.closing(db, path):
        _copy(db, path, kept)
    return kept
