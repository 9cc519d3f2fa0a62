"""Chunks by name rather than by search: what there is to pick from, and the passages of those that were picked."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from preflexor_agents.errors import StoreError
from preflexor_agents.events import Passage
from preflexor_agents.store import browsing, findings
from preflexor_agents.store.paths import shown


class ChunkKey(NamedTuple):
    """A chunk and what names it in any store that holds the same documents."""

    id: int
    document_sha256: str
    start: int
    """Character offset in the document's text."""
    headings: str
    """What it stands under, outermost first, as `Nacre > Sources`."""


def chunk_keys(path: Path) -> list[ChunkKey]:
    """Every chunk of a document; findings, which models wrote, are left out. No text is read.

    Raises:
        StoreError: the store cannot be opened or read.
    """
    sql = """
        SELECT c.id, d.sha256, c.start, c.context FROM chunk c JOIN document d ON d.id = c.document_id
        WHERE d.source NOT LIKE ? || '%' ORDER BY c.id
    """
    with browsing.reading(path) as db:
        return [ChunkKey(*row) for row in db.conn.execute(sql, (findings.PREFIX,))]


def passages(path: Path, chunk_ids: Sequence[int]) -> tuple[Passage, ...]:
    """The chunks in the order given.

    Raises:
        StoreError: the store cannot be read, or a chunk is no longer in it.
    """
    sql = """
        SELECT c.id, d.source, d.title, c.page, c.start, c."end", c.text
        FROM chunk c JOIN document d ON d.id = c.document_id WHERE c.id = ?
    """
    names = ("chunk_id", "source", "title", "page", "start", "end", "text")
    found = []
    with browsing.reading(path) as db:
        for id in chunk_ids:
            row = db.conn.execute(sql, (id,)).fetchone()
            if row is None:
                raise StoreError(f"chunk {id} is no longer in store {shown(path)}; a document was changed: start anew")
            found.append(Passage(**dict(zip(names, row, strict=True))))
    return tuple(found)
