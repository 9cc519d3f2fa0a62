"""Which chunks a model has read facts out of, so that no chunk is read, and paid for, twice."""

from collections.abc import Iterable

from sqlite_utils import Database

from preflexor_agents.events import Passage
from preflexor_agents.graph.values import Run
from preflexor_agents.store.filters import Filter


def mark(db: Database, run: Run, chunk_ids: Iterable[int]) -> None:
    """Note that the run has read chunks, in the transaction that writes what it found in them."""
    sql = "INSERT OR IGNORE INTO graph_examined (run_id, chunk_id) VALUES (?, ?)"
    db.conn.executemany(sql, [(run.id, id) for id in chunk_ids])


def left(db: Database, run: Run, where: Filter | None) -> list[Passage]:
    """The chunks that no run of the same kind, model and prompt has read, in the order of the store."""
    condition = where.condition() if where is not None else None
    allowed = f"AND c.id IN ({condition.sql})" if condition else ""
    sql = f"""
        SELECT c.id, d.source, d.title, c.page, c.start, c."end", c.text
        FROM chunk c JOIN document d ON d.id = c.document_id
        WHERE NOT EXISTS (
            SELECT 1 FROM graph_examined x JOIN graph_run r ON r.id = x.run_id
            WHERE x.chunk_id = c.id AND r.kind = ? AND r.model = ? AND r.prompt_sha256 = ?
        ) {allowed} ORDER BY c.id
    """
    values = (run.kind, run.model, run.prompt_sha256, *(condition.values if condition else ()))
    names = ("chunk_id", "source", "title", "page", "start", "end", "text")
    return [Passage(**dict(zip(names, row, strict=True))) for row in db.conn.execute(sql, values)]
