"""How a document gets into the store and out again; always inside one write transaction."""

from sqlite_utils import Database

from preflexor_agents.errors import StoreFileError
from preflexor_agents.store import vectors
from preflexor_agents.store.documents import Document, sha256_on_disk
from preflexor_agents.store.embedders import Embedder, Vectors
from preflexor_agents.store.records import Outcome


def outcome(db: Database, document: Document) -> tuple[Outcome, int | None]:
    """What writing the document would do, and the id of the stored document that it replaces."""
    same_source = "SELECT id, sha256, parser, title FROM document WHERE source = ?"
    row = db.conn.execute(same_source, (document.source,)).fetchone()
    if row:
        same = row[1:] == (document.sha256, document.parser, document.title)
        return ("unchanged" if same else "changed"), row[0]
    same_content = "SELECT id, source FROM document WHERE sha256 = ? AND parser = ? ORDER BY id"
    for id, source in db.conn.execute(same_content, (document.sha256, document.parser)).fetchall():
        on_disk = sha256_on_disk(source)
        if on_disk == document.sha256:
            return "duplicate", None
        if on_disk is None:
            return "changed", id
    return "added", None


def write(db: Database, document: Document, embedder: Embedder, rows: Vectors, *, has_vec: bool) -> Outcome:
    """Write the document with its chunks and vectors, in place of an older state of it.

    Args:
        db: In a write transaction.
        document: What was read.
        embedder: Made `rows`, (chunks, dim).
        rows: The chunks' vectors.
        has_vec: Whether sqlite-vec is loaded.

    Raises:
        StoreFileError: another process gave the store another embedder in the meantime.
    """
    done, replaced = outcome(db, document)
    if done in ("unchanged", "duplicate"):
        return done
    space = vectors.space_of(db) or vectors.add_space(db, embedder, rows.shape[1])
    if space.name != embedder.name:
        raise StoreFileError(f"store has vectors of {space.name}, not of {embedder.name}; open it again")
    vectors.check_dim(space, rows)
    space = vectors.prepare_index(db, space, has_vec=has_vec)
    if replaced is not None:
        _remove_chunks(db, replaced, space)
    document_id = _put_document(db, document, replaced)
    vectors.add(db, space, _put_chunks(db, document, document_id), rows)
    return done


def _remove_chunks(db: Database, document_id: int, space: vectors.Space) -> None:
    ids = [id for (id,) in db.conn.execute("SELECT id FROM chunk WHERE document_id = ?", (document_id,))]
    vectors.drop(db, space, ids)
    db.conn.execute("DELETE FROM chunk WHERE document_id = ?", (document_id,))


def _put_document(db: Database, document: Document, replaced: int | None) -> int:
    sql = """INSERT INTO document (id, source, title, sha256, parser, size_bytes, text) VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET source = excluded.source, title = excluded.title,
             sha256 = excluded.sha256, parser = excluded.parser, size_bytes = excluded.size_bytes,
             text = excluded.text, ingested_at = CURRENT_TIMESTAMP"""
    d = document
    row = (replaced, d.source, d.title, d.sha256, d.parser, d.size_bytes, d.text)
    cursor = db.conn.execute(sql, row)
    return int(cursor.lastrowid or 0) if replaced is None else replaced


def _put_chunks(db: Database, document: Document, document_id: int) -> list[int]:
    sql = 'INSERT INTO chunk (document_id, ord, start, "end", body, context, text) VALUES (?, ?, ?, ?, ?, ?, ?)'
    ids = []
    for ord, chunk in enumerate(document.chunks):
        place = (chunk.start, chunk.end, chunk.body - chunk.start)
        row = (document_id, ord, *place, context(document, ord), document.text[chunk.start : chunk.end])
        ids.append(int(db.conn.execute(sql, row).lastrowid or 0))
    return ids


def context(document: Document, ord: int) -> str:
    """Title and headings that a chunk stands under; indexed and embedded beside its text."""
    headings = document.chunks[ord].context
    return headings if headings.startswith(document.title) else f"{document.title} > {headings}".removesuffix(" > ")


def embedded_text(context: str, body: str) -> str:
    """What is embedded for a chunk: what it stands under, and its text without headings."""
    return f"{context}\n{body}"
