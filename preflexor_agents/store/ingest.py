"""Documents into the store: find them, read them, embed what is new, write; and out of it again.

One document is one transaction. Models are asked before it begins, so that no other process waits for them.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from sqlite_utils import Database

from preflexor_agents.errors import DocumentError, InputError
from preflexor_agents.store import driver, writing
from preflexor_agents.store.documents import Document, File, Reader
from preflexor_agents.store.embedders import Embedder, Vectors
from preflexor_agents.store.paths import as_text, shown
from preflexor_agents.store.reading.finding import find
from preflexor_agents.store.records import IngestProgress, IngestReport
from preflexor_agents.store.writing import Plan

_BATCH = 32
"""Chunks embedded between two reports of progress."""
_LONGEST_COLLECTION = 200
_BLANK_SHARE = 0.5
"""A document with so many pages without text is likely to be a scan in part."""

Report = Callable[[IngestProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The store that is written."""

    db: Database
    using: Callable[[], AbstractContextManager[None]]
    """Holds the connection for this thread alone, for as long as the block lasts."""
    embedder: Callable[[], Embedder]
    has_vec: bool
    """Whether sqlite-vec is loaded."""


def ingest(
    target: Target, paths: Iterable[Path], *, collection: str | None = None, progress: Report | None = None
) -> IngestReport:
    """See `Store.ingest`."""
    began = time.monotonic()
    check_collection(collection)
    failed: list[str] = []
    notes: list[str] = []
    counts: Counter[str] = Counter()
    with Reader() as reader:
        files = find(paths, failed, suffixes=reader.plugged)
        notes += reader.notes
        sizes = [_size(path) for path in files]
        now = IngestProgress(documents_done=0, documents_total=len(files), bytes_total=sum(sizes), source="")
        for path, size in zip(files, sizes, strict=True):
            now = replace(now, source=as_text(path), file_bytes=size, chunks_done=0, chunks_total=0, outcome=None)
            try:
                now = _take(target, reader, reader.open(path), collection, _Watch(now, progress), notes)
            except DocumentError as error:
                failed.append(str(error))
                now = replace(now, outcome="failed")
            counts[now.outcome or ""] += 1
            now = replace(now, documents_done=now.documents_done + 1, bytes_done=now.bytes_done + size)
            if progress is not None:
                progress(now)
    return IngestReport(
        added=counts["added"],
        changed=counts["changed"],
        unchanged=counts["unchanged"],
        duplicates=counts["duplicate"],
        chunks=now.chunks_written,
        failed=tuple(failed),
        notes=tuple(notes),
        seconds=time.monotonic() - began,
    )


def put(
    target: Target,
    document: Document,
    *,
    collection: str | None = None,
    record: Callable[[], None] | None = None,
    embedded: Callable[[int, int], None] | None = None,
) -> Plan:
    """Write one document, the vectors of its new chunks made before.

    Args:
        target: The store.
        document: What was read.
        collection: See `writing.write`.
        record: What else is to be written in the same transaction.
        embedded: Called after each batch with the numbers of chunks embedded and to be embedded.
    """
    rows: dict[int, Vectors] = {}
    made_by = ""
    while True:
        with target.using():
            planned = writing.plan(target.db, document, collection=collection)
        embedder = target.embedder()
        if embedder.name != made_by:
            rows, made_by = {}, embedder.name
        if planned.outcome in ("added", "changed"):
            wanted = [ord for ord in planned.new(document) if ord not in rows]
            for start in range(0, len(wanted), _BATCH):
                batch = wanted[start : start + _BATCH]
                vectors = embedder.embed([_embedded_text(document, ord) for ord in batch])
                rows.update(zip(batch, vectors, strict=True))
                if embedded is not None:
                    embedded(start + len(batch), len(wanted))
        with target.using(), driver.writing(target.db):
            done = writing.write(target.db, document, embedder, rows, has_vec=target.has_vec, collection=collection)
            if done is not None and record is not None:
                record()
        if done is not None:
            return done


def remove(target: Target, source: str | os.PathLike[str]) -> tuple[str, ...]:
    """See `Store.remove`."""
    with target.using(), driver.writing(target.db):
        found = _below(target.db, source)
        writing.remove(target.db, found.values(), has_vec=target.has_vec)
    return tuple(found)


def check_collection(name: str | None) -> None:
    """Raise InputError unless the name can be one of a collection."""
    if name is None:
        return
    if not name.strip() or not name.isprintable() or len(name) > _LONGEST_COLLECTION:
        raise InputError(f"collection {name[:50]!r} is no name; give up to {_LONGEST_COLLECTION} printable characters")


class _Watch:
    """Reports the progress inside of one document."""

    def __init__(self, now: IngestProgress, progress: Report | None) -> None:
        self._now = now
        self._progress = progress

    def __call__(self, done: int, total: int) -> None:
        if self._progress is not None:
            written = self._now.chunks_written + done
            self._progress(replace(self._now, chunks_done=done, chunks_total=total, chunks_written=written))

    def ended(self, plan: Plan, *, new: int, total: int) -> IngestProgress:
        """Where the ingest stands after this document."""
        written = self._now.chunks_written + new
        return replace(self._now, chunks_done=total, chunks_total=total, chunks_written=written, outcome=plan.outcome)


def _take(
    target: Target, reader: Reader, file: File, collection: str | None, watch: _Watch, notes: list[str]
) -> IngestProgress:
    """Read a file and write its document, unless it is clear from the bytes that there is nothing to do."""
    with target.using():
        known = writing.settled(target.db, file.source, file.sha256, file.format.parser, collection=collection)
    if known is not None:
        return watch.ended(Plan(outcome=known), new=0, total=0)
    document = reader.parse(file)
    done = put(target, document, collection=collection, embedded=watch)
    is_written = done.outcome in ("added", "changed")
    if is_written and document.encoding == "cp1252":
        notes.append(f"{shown(file.path)} is not UTF-8; read as Windows-1252")
    blank = sum(page.start == page.end for page in document.pages)
    if is_written and blank >= _BLANK_SHARE * len(document.pages) > 0:
        notes.append(
            f"{shown(file.path)}: {blank} of {len(document.pages)} pages have no text; OCR it first to have it all"
        )
    return watch.ended(done, new=len(done.new(document)) if is_written else 0, total=len(document.chunks))


def _embedded_text(document: Document, ord: int) -> str:
    chunk = document.chunks[ord]
    return writing.embedded_text(writing.context(document, ord), document.text[chunk.body : chunk.end])


def _below(db: Database, source: str | os.PathLike[str]) -> dict[str, int]:
    """The documents of a source, or under a folder, by their sources: as it was given, else as a path from here."""
    given = os.fspath(source)
    found: dict[str, int] = {}
    for name in dict.fromkeys((given, given.rstrip("/"), as_text(Path(os.path.realpath(given))))):
        prefix = name.rstrip("/") + "/"
        where = "SELECT source, id FROM document WHERE source = ? OR substr(source, 1, ?) = ? ORDER BY source"
        if name and not found:
            found = dict(db.conn.execute(where, (name, len(prefix), prefix)).fetchall())
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
