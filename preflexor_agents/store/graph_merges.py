"""Merges: decisions that two entities are one. They change what is seen, never the facts, and can be taken back.

Decisions form trees: an entity may be merged into one that is itself merged. The root stands for all of its tree, and
`entity.root_id` names it, so that queries need not climb.
"""

from sqlite_utils import Database

from preflexor_agents.errors import InputError
from preflexor_agents.graph.values import Merge
from preflexor_agents.store import graph_find, graph_view
from preflexor_agents.store.graph_writing import now


def merge(db: Database, keep_id: int, gone_id: int) -> Merge:
    """Decide that `gone_id`, and all that was merged into it, is `keep_id`; in a write transaction.

    Raises:
        InputError: they are one already, or there is no such entity.
    """
    keep, gone = graph_find.root_of(db, keep_id), graph_find.root_of(db, gone_id)
    if keep == gone:
        raise InputError(f"entities {keep_id} and {gone_id} are one already")
    if gone != gone_id:
        raise InputError(f"entity {gone_id} is merged already; unmerge it first, or merge {gone} into {keep}")
    sql = "INSERT INTO entity_merge (gone_id, keep_id, decided_at) VALUES (?, ?, ?)"
    db.conn.execute(sql, (gone, keep_id, now()))
    db.conn.execute("UPDATE entity SET root_id = ? WHERE root_id = ?", (keep, gone))
    return next(found for found in merges(db) if found.gone.id == gone)


def unmerge(db: Database, gone_id: int) -> None:
    """Take the decision back; what was merged into `gone_id` before stays with it. In a write transaction.

    Raises:
        InputError: the entity was not merged into another.
    """
    graph_find.root_of(db, gone_id)
    if not db.conn.execute("DELETE FROM entity_merge WHERE gone_id = ?", (gone_id,)).rowcount:
        raise InputError(f"entity {gone_id} is not merged into another; list the merges to see which are")
    below = """WITH RECURSIVE below(id) AS (
                   VALUES (?1) UNION SELECT m.gone_id FROM entity_merge m JOIN below ON m.keep_id = below.id
               ) UPDATE entity SET root_id = ?1 WHERE id IN (SELECT id FROM below)"""
    db.conn.execute(below, (gone_id,))


def merges(db: Database) -> list[Merge]:
    """Every decision, oldest first."""
    sql = "SELECT keep_id, gone_id, decided_at FROM entity_merge ORDER BY decided_at, gone_id"
    return [
        Merge(keep=graph_view.single(db, keep), gone=graph_view.single(db, gone), decided_at=decided_at)
        for keep, gone, decided_at in db.conn.execute(sql).fetchall()
    ]
