"""Walks over the graph as it is seen: who is connected best, what is near, how two entities hang together.

Nothing of the graph is held in memory but what a walk touches. Of an entity's neighbours only the strongest count, by
pieces of evidence and then by name, so that a hub costs no more than any other entity.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from sqlite_utils import Database

from preflexor_agents.store.graph_view import listed


class Near(NamedTuple):
    """A neighbour."""

    id: int
    weight: int
    """Pieces of evidence for all relations with it."""


def best_connected(db: Database, *, limit: int | None) -> list[int]:
    """Root ids of the entities with most relations, ties by name; all for None."""
    sql = """WITH ends AS (
                 SELECT s.root_id AS root FROM relation r JOIN entity s ON s.id = r.subject_id
                 UNION ALL
                 SELECT o.root_id FROM relation r JOIN entity o ON o.id = r.object_id
             ), degree AS (SELECT root, count(*) AS degree FROM ends GROUP BY root)
             SELECT root FROM degree JOIN entity e ON e.id = root ORDER BY degree DESC, e.folded LIMIT ?"""
    return [id for (id,) in db.conn.execute(sql, (-1 if limit is None else limit,))]


def neighbours(db: Database, roots: Iterable[int], *, fan_out: int) -> dict[int, list[Near]]:
    """For each entity its strongest neighbours, strongest first, ties by name."""
    among = "m.root_id IN (SELECT value FROM json_each(?1))"
    sql = f"""WITH touching AS (
                  SELECT m.root_id AS here, o.root_id AS there, r.weight
                  FROM entity m CROSS JOIN relation r ON r.subject_id = m.id CROSS JOIN entity o ON o.id = r.object_id
                  WHERE {among} AND o.root_id <> m.root_id
                  UNION ALL
                  SELECT m.root_id, s.root_id, r.weight
                  FROM entity m CROSS JOIN relation r ON r.object_id = m.id CROSS JOIN entity s ON s.id = r.subject_id
                  WHERE {among} AND s.root_id <> m.root_id
              ), pair AS (
                  SELECT here, there, sum(weight) AS weight FROM touching GROUP BY here, there
              ), ranked AS (
                  SELECT here, there, weight,
                      row_number() OVER (PARTITION BY here ORDER BY weight DESC, e.folded) AS rank
                  FROM pair JOIN entity e ON e.id = there
              )
              SELECT here, there, weight FROM ranked WHERE rank <= ?2 ORDER BY here, rank"""
    found: dict[int, list[Near]] = {root: [] for root in roots}
    for here, there, weight in db.conn.execute(sql, (listed(found), fan_out)):
        found[here].append(Near(there, weight))
    return found


def within(db: Database, root: int, *, hops: int, fan_out: int) -> list[int]:
    """Root ids of what is reached in so many hops, nearest first, the start itself first of all."""
    reached = {root: None}
    frontier = [root]
    for _ in range(hops):
        near = neighbours(db, frontier, fan_out=fan_out)
        found = dict.fromkeys(n.id for here in frontier for n in near[here])
        frontier = [id for id in found if id not in reached]
        reached.update(dict.fromkeys(frontier))
        if not frontier:
            break
    return list(reached)


@dataclass(slots=True)
class _Map:
    """What has been looked at of the graph in one search."""

    db: Database
    fan_out: int
    near: dict[int, list[Near]] = field(default_factory=dict)

    def look(self, roots: Iterable[int]) -> None:
        unknown = [root for root in roots if root not in self.near]
        if unknown:
            self.near.update(neighbours(self.db, unknown, fan_out=self.fan_out))


Walk = tuple[int, ...]
"""Root ids from the first entity to the last."""


def paths(db: Database, source: int, target: int, *, most: int, max_hops: int, fan_out: int) -> list[Walk]:
    """The shortest walks without repetition, at most so many; of equal length the one with most evidence first.

    The k shortest loopless paths as in Yen 1971 (Management Science 17), each found by a search from both ends.
    """
    known = _Map(db, fan_out)
    first = _shortest(known, source, target, max_hops=max_hops, closed=frozenset(), cut=frozenset())
    found: list[Walk] = [first] if first else []
    open_walks: set[Walk] = set()
    while found and len(found) < most:
        for n in range(len(found[-1]) - 1):
            stem = found[-1][:n]
            spur = found[-1][n]
            cut = frozenset(
                (spur, walk[n + 1]) for walk in found if walk[: n + 1] == (*stem, spur) and len(walk) > n + 1
            )
            rest = _shortest(known, spur, target, max_hops=max_hops - n, closed=frozenset(stem), cut=cut)
            if rest:
                open_walks.add(stem + rest)
        open_walks -= set(found)
        if not open_walks:
            break
        best = min(open_walks, key=lambda walk: (len(walk), -_weight(known, walk), walk))
        open_walks.remove(best)
        found.append(best)
    return sorted(found, key=lambda walk: (len(walk), -_weight(known, walk), walk))


def _weight(known: _Map, walk: Walk) -> int:
    """Evidence of the walk's weakest step."""
    known.look(walk)
    return min((max(_step(known, a, b), _step(known, b, a)) for a, b in pairwise(walk)), default=0)


def _step(known: _Map, here: int, there: int) -> int:
    return next((near.weight for near in known.near[here] if near.id == there), 0)


def _shortest(
    known: _Map,
    source: int,
    target: int,
    *,
    max_hops: int,
    closed: frozenset[int],
    cut: frozenset[tuple[int, int]],
) -> Walk:
    """A shortest walk, empty if there is none; found from both ends, the smaller frontier first.

    Args:
        known: What was looked at before.
        source: Root id.
        target: Root id.
        max_hops: Longest walk.
        closed: Entities that must not be on it.
        cut: First steps that it must not take.
    """
    if source == target:
        return (source,)
    came: tuple[dict[int, int], dict[int, int]] = ({source: source}, {target: target})
    frontiers: list[list[int]] = [[source], [target]]
    for _ in range(max_hops):
        side = 0 if len(frontiers[0]) <= len(frontiers[1]) else 1
        known.look(frontiers[side])
        here_from, there_from = came[side], came[1 - side]
        reached: list[int] = []
        meeting: list[int] = []
        for here in frontiers[side]:
            for near in known.near[here]:
                step = (here, near.id) if side == 0 else (near.id, here)
                if near.id in here_from or near.id in closed or step in cut:
                    continue
                here_from[near.id] = here
                reached.append(near.id)
                if near.id in there_from:
                    meeting.append(near.id)
        if meeting:
            middle = min(meeting, key=lambda id: len(_back(there_from, id)))
            return (*reversed(_back(came[0], middle)), *_back(came[1], middle)[1:])
        frontiers[side] = reached
        if not reached:
            return ()
    return ()


def _back(came: Mapping[int, int], last: int) -> Sequence[int]:
    """From an entity back to where the search began."""
    walk = [last]
    while came[walk[-1]] != walk[-1]:
        walk.append(came[walk[-1]])
    return walk
