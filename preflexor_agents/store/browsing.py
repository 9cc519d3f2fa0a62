"""What is in a store, to look through: its documents, and the chunks that each was cut into."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlite_utils import Database

from preflexor_agents.store import driver, schema


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """A document in a list."""

    id: int
    source: str
    title: str
    collection: str
    published: str | None
    """A date as the document gives it, ISO 8601 as far as it is known."""
    ingested_at: str
    """UTC, ISO 8601."""
    size_bytes: int
    characters: int
    pages: int
    """0 where the format has none."""
    chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChunk:
    """A piece of a document; `text` is exactly document[start:end]."""

    id: int
    ord: int
    start: int
    end: int
    page: int | None
    context: str
    """The headings that it stands under."""
    text: str


def documents(path: Path, *, containing: str = "", most: int = 500) -> list[StoredDocument]:
    """Documents whose title, source or collection contains the words, by title.

    Raises:
        StoreError: the store cannot be opened or read.
    """
    pattern = f"%{_literal(containing)}%"
    sql = """
        SELECT d.id, d.source, d.title, d.collection, d.published, d.ingested_at, d.size_bytes, length(d.text),
            (SELECT count(*) FROM page WHERE document_id = d.id), (SELECT count(*) FROM chunk WHERE document_id = d.id)
        FROM document d
        WHERE d.title LIKE ?1 ESCAPE '!' OR d.source LIKE ?1 ESCAPE '!' OR d.collection LIKE ?1 ESCAPE '!'
        ORDER BY d.title COLLATE NOCASE, d.id LIMIT ?2
    """
    names = ("id", "source", "title", "collection", "published", "ingested_at", "size_bytes", "characters", "pages")
    with reading(path) as db:
        rows = db.conn.execute(sql, (pattern, most)).fetchall()
    return [StoredDocument(**dict(zip((*names, "chunks"), row, strict=True))) for row in rows]


def chunks(path: Path, source: str, *, most: int = 2000) -> list[StoredChunk]:
    """The chunks of a document in their order; none if there is no such document.

    Raises:
        StoreError: the store cannot be opened or read.
    """
    sql = """
        SELECT chunk.id, chunk.ord, chunk.start, chunk."end", chunk.page, chunk.context, chunk.text
        FROM chunk JOIN document ON document.id = chunk.document_id
        WHERE document.source = ? ORDER BY chunk.ord LIMIT ?
    """
    with reading(path) as db:
        rows = db.conn.execute(sql, (source, most)).fetchall()
    return [
        StoredChunk(id=id_, ord=number, start=start, end=end, page=page, context=context, text=text)
        for id_, number, start, end, page, context, text in rows
    ]


def _literal(text: str) -> str:
    """The text as it stands, for LIKE with `!` as the escape."""
    return "".join(f"!{c}" if c in "!%_" else c for c in text)


@contextmanager
def reading(path: Path) -> Iterator[Database]:
    """A connection of its own to the store, for as long as it is read. Raises StoreError: it cannot be."""
    db = schema.open_file(path, create=False)
    with driver.closing(db, path):
        yield db
