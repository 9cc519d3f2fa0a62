"""How a document gets into the store and out again; always inside one write transaction."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from sqlite_utils import Database

from preflexor_agents.store import vectors
from preflexor_agents.store.documents import Document, sha256_on_disk
from preflexor_agents.store.embedders import Embedder, Vectors
from preflexor_agents.store.records import Outcome

DEFAULT_COLLECTION = "default"
_VECTORS_AT_ONCE = 1000
"""Copied for writing; bounds the memory that a long document takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What writing a document would do."""

    outcome: Outcome
    document_id: int | None = None
    """Of the stored document that it replaces."""
    kept: Mapping[int, int] = field(default_factory=dict)
    """Stored chunks that stay, with their vectors and all that hangs on them, by their place in the new document."""
    moved: Mapping[int, int] = field(default_factory=dict)
    """Stored chunks with the same text under other headings: what the graph has of them goes to the new chunk."""

    def new(self, document: Document) -> list[int]:
        """Places of the chunks that need a vector."""
        return [ord for ord in range(len(document.chunks)) if ord not in self.kept]


def settled(db: Database, source: str, sha256: str, parser: str, *, collection: str | None) -> Outcome | None:
    """`unchanged` or `duplicate` if that can be told without parsing the file, else None."""
    sql = "SELECT sha256, parser, collection FROM document WHERE source = ?"
    row = db.conn.execute(sql, (source,)).fetchone()
    if row is None:
        return "duplicate" if _twin(db, sha256)[0] == "duplicate" else None
    return "unchanged" if row == (sha256, parser, collection or row[2]) else None


def plan(db: Database, document: Document, *, collection: str | None) -> Plan:
    """What writing the document would do to what the store holds at present."""
    sql = "SELECT id, sha256, parser, title, collection FROM document WHERE source = ?"
    row = db.conn.execute(sql, (document.source,)).fetchone()
    if row is None:
        outcome, replaced = _twin(db, document.sha256)
    else:
        same = row[1:] == (document.sha256, document.parser, document.title, collection or row[4])
        outcome, replaced = ("unchanged" if same else "changed"), row[0]
    if outcome != "changed" or replaced is None:
        return Plan(outcome=outcome, document_id=replaced)
    kept, moved = _matched(db, document, replaced)
    return Plan(outcome=outcome, document_id=replaced, kept=kept, moved=moved)


def write(
    db: Database,
    document: Document,
    embedder: Embedder,
    rows: Mapping[int, Vectors],
    *,
    has_vec: bool,
    collection: str | None = None,
) -> Plan | None:
    """Write the document with its chunks and vectors, in place of an older state of it; returns what was done.

    Args:
        db: In a write transaction.
        document: What was read.
        embedder: Made `rows`.
        rows: The vectors, (dim,), of the new chunks by their place in the document.
        has_vec: Whether sqlite-vec is loaded.
        collection: Where it belongs. Default: where it is, `default` for a new document.

    Returns:
        None, with nothing written, if another process changed the document or the store's embedder meanwhile, so that
        vectors are missing.
    """
    planned = plan(db, document, collection=collection)
    if planned.outcome in ("unchanged", "duplicate"):
        return planned
    new = planned.new(document)
    if not set(new) <= rows.keys():
        return None
    space = vectors.space_of(db)
    if space is None:
        space = vectors.add_space(db, embedder, len(next(iter(rows.values()))))
    if space.name != embedder.name:
        return None
    space = vectors.prepare_index(db, space, has_vec=has_vec)
    document_id = _put_document(db, document, planned.document_id, collection)
    ids = _put_chunks(db, document, document_id, planned, space)
    for start in range(0, len(new), _VECTORS_AT_ONCE):
        some = slice(start, start + _VECTORS_AT_ONCE)
        matrix = np.stack([rows[ord] for ord in new[some]])
        vectors.check_dim(space, matrix)
        vectors.add(db, space, ids[some], matrix)
    _put_pages(db, document, document_id)
    return planned


def remove(db: Database, document_ids: Iterable[int], *, has_vec: bool) -> None:
    """Take documents out with all that was made of them, the facts that stood on them included."""
    space = vectors.space_of(db)
    if space is not None:
        space = vectors.prepare_index(db, space, has_vec=has_vec)
    for document_id in document_ids:
        if space is not None:
            sql = "SELECT id FROM chunk WHERE document_id = ?"
            vectors.drop(db, space, [id for (id,) in db.conn.execute(sql, (document_id,)).fetchall()])
        db.conn.execute("DELETE FROM document WHERE id = ?", (document_id,))


def context(document: Document, ord: int) -> str:
    """Title and headings that a chunk stands under; indexed and embedded beside its text."""
    headings = document.chunks[ord].context
    return headings if headings.startswith(document.title) else f"{document.title} > {headings}".removesuffix(" > ")


def embedded_text(context: str, body: str) -> str:
    """What is embedded for a chunk: what it stands under, and its text without headings."""
    return f"{context}\n{body}"


def _twin(db: Database, sha256: str) -> tuple[Outcome, int | None]:
    """What a document of a new source is, by the stored documents with the same content."""
    for id, source in db.conn.execute(
        "SELECT id, source FROM document WHERE sha256 = ? ORDER BY id", (sha256,)
    ).fetchall():
        on_disk = sha256_on_disk(source)
        if on_disk == sha256:
            return "duplicate", None
        if on_disk is None:
            return "changed", id
    return "added", None


def _matched(db: Database, document: Document, document_id: int) -> tuple[dict[int, int], dict[int, int]]:
    """The stored chunks that the new ones are: with the same context, and with another; by place, first come."""
    sql = "SELECT id, context, text, body FROM chunk WHERE document_id = ? ORDER BY ord"
    stored = db.conn.execute(sql, (document_id,)).fetchall()
    same: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for id, *key in reversed(stored):
        same[key[0], key[1], key[2]].append(id)
    kept: dict[int, int] = {}
    for ord, chunk in enumerate(document.chunks):
        ids = same.get((context(document, ord), document.text[chunk.start : chunk.end], chunk.body - chunk.start))
        if ids:
            kept[ord] = ids.pop()
    free: dict[str, list[int]] = defaultdict(list)
    taken = set(kept.values())
    for id, _, text, _ in reversed(stored):
        if id not in taken:
            free[text].append(id)
    moved: dict[int, int] = {}
    for ord, chunk in enumerate(document.chunks):
        ids = free.get(document.text[chunk.start : chunk.end]) if ord not in kept else None
        if ids:
            moved[ord] = ids.pop()
    return kept, moved


def _put_document(db: Database, document: Document, replaced: int | None, collection: str | None) -> int:
    d = document
    authors = json.dumps(d.authors, ensure_ascii=False)
    row = (d.source, d.title, d.sha256, d.parser, d.size_bytes, d.text, authors, d.published)
    if replaced is None:
        sql = """INSERT INTO document (source, title, sha256, parser, size_bytes, text, authors, published, collection)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
        return int(db.conn.execute(sql, (*row, collection or DEFAULT_COLLECTION)).lastrowid or 0)
    sql = """UPDATE document SET source = ?, title = ?, sha256 = ?, parser = ?, size_bytes = ?, text = ?, authors = ?,
             published = ?, collection = coalesce(?, collection), ingested_at = CURRENT_TIMESTAMP WHERE id = ?"""
    db.conn.execute(sql, (*row, collection, replaced))
    return replaced


def _put_chunks(db: Database, document: Document, document_id: int, planned: Plan, space: vectors.Space) -> list[int]:
    """Write what is new, put in place what is kept, delete the rest; returns the ids of the new chunks."""
    # A place is taken only once, so all places are freed first.
    db.conn.execute("UPDATE chunk SET ord = -1 - ord WHERE document_id = ?", (document_id,))
    places = []
    ids = []
    insert = """INSERT INTO chunk (document_id, ord, start, "end", body, page, context, text)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
    for ord, chunk in enumerate(document.chunks):
        place = (ord, chunk.start, chunk.end, chunk.body - chunk.start, document.page_of(chunk))
        if ord in planned.kept:
            places.append((*place, planned.kept[ord]))
            continue
        row = (document_id, *place, context(document, ord), document.text[chunk.start : chunk.end])
        ids.append(int(db.conn.execute(insert, row).lastrowid or 0))
        if ord in planned.moved:
            for table in ("evidence", "pattern_use"):
                db.conn.execute(f"UPDATE {table} SET chunk_id = ? WHERE chunk_id = ?", (ids[-1], planned.moved[ord]))
    db.conn.executemany('UPDATE chunk SET ord = ?, start = ?, "end" = ?, body = ?, page = ? WHERE id = ?', places)
    gone = "FROM chunk WHERE document_id = ? AND ord < 0"
    vectors.drop(db, space, [id for (id,) in db.conn.execute(f"SELECT id {gone}", (document_id,)).fetchall()])
    db.conn.execute(f"DELETE {gone}", (document_id,))
    return ids


def _put_pages(db: Database, document: Document, document_id: int) -> None:
    db.conn.execute("DELETE FROM page WHERE document_id = ?", (document_id,))
    rows = ((document_id, *page) for page in document.pages)
    db.conn.executemany('INSERT INTO page (document_id, number, start, "end") VALUES (?, ?, ?, ?)', rows)
