"""Finding entities by what they are called."""

import difflib
from collections import Counter

from sqlite_utils import Database

from preflexor_agents.errors import InputError
from preflexor_agents.graph.values import Entity
from preflexor_agents.store import graph_names, graph_view

_NEAR = 3
"""Names that an error suggests."""
_LIKENESS = 0.6
_COMPARED = 20_000
"""Names that a misspelled one is compared with at most."""
_PREFIX_END = "\U0010ffff"
_DEGREE = """((SELECT count(*) FROM entity m JOIN relation r ON r.subject_id = m.id WHERE m.root_id = e.root_id)
    + (SELECT count(*) FROM entity m JOIN relation r ON r.object_id = m.id WHERE m.root_id = e.root_id))"""


def find(db: Database, text: str, *, k: int) -> list[Entity]:
    """The entities that the text may mean: of that name, with names that begin so, with its words; best first.

    Every name counts, those of merged entities too. Ties go to the better connected, then by name.
    """
    folded = graph_names.identity(text)
    if not folded:
        return []
    roots: dict[int, None] = {}
    for candidates in (_named(db, folded), _prefixed(db, folded, k), _worded(db, folded, k)):
        roots.update(dict.fromkeys(candidates))
        if len(roots) >= k:
            break
    return list(graph_view.entities(db, list(roots)[:k]).values())


def root_of(db: Database, name_or_id: str | int) -> int:
    """The id under which the entity is seen.

    Raises:
        InputError: there is none of that name or id; the message names those that come near.
    """
    if isinstance(name_or_id, int):
        is_id = 0 < name_or_id < 1 << 63
        row = db.conn.execute("SELECT root_id FROM entity WHERE id = ?", (name_or_id,)).fetchone() if is_id else None
        if row is None:
            raise InputError(f"the graph has no entity with id {name_or_id}; look it up by its name")
        return int(row[0])
    named = _named(db, graph_names.identity(name_or_id))
    if named:
        return named[0]
    found = [entity.name for entity in find(db, name_or_id, k=_NEAR)]
    near = list(dict.fromkeys([*found, *_spelled_like(db, name_or_id)]))[:_NEAR]
    shown = graph_names.clean(name_or_id)[: graph_names.LONGEST_NAME]
    if near:
        raise InputError(f"the graph has no entity {shown!r}; near it are: {', '.join(near)}")
    if not db.conn.execute("SELECT 1 FROM entity LIMIT 1").fetchone():
        raise InputError(f"the graph has no entity {shown!r}, it is empty; extract facts from the documents first")
    raise InputError(f"the graph has no entity {shown!r} and none like it")


def _named(db: Database, folded: str) -> list[int]:
    return [id for (id,) in db.conn.execute("SELECT root_id FROM entity WHERE folded = ?", (folded,))]


def _prefixed(db: Database, folded: str, k: int) -> list[int]:
    sql = f"""SELECT e.root_id FROM entity e WHERE e.folded >= ?1 AND e.folded < ?2
              GROUP BY e.root_id ORDER BY {_DEGREE} DESC, min(e.folded) LIMIT ?3"""
    return [id for (id,) in db.conn.execute(sql, (folded, folded + _PREFIX_END, 2 * k))]


def _worded(db: Database, folded: str, k: int) -> list[int]:
    """With all of the words first, then with some; a shorter name says more about its words."""
    stems = sorted(graph_names.stems_of(folded))
    sql = f"""WITH hit AS (
                  SELECT w.entity_id AS id, count(*) AS words FROM entity_word w
                  WHERE w.word IN (SELECT value FROM json_each(?1)) GROUP BY w.entity_id
              )
              SELECT e.root_id FROM hit JOIN entity e ON e.id = hit.id
              GROUP BY e.root_id
              ORDER BY max(hit.words) DESC, min(length(e.folded)), {_DEGREE} DESC, min(e.folded) LIMIT ?2"""
    return [id for (id,) in db.conn.execute(sql, (graph_view.listed(stems), 2 * k))] if stems else []


def _spelled_like(db: Database, name: str) -> list[str]:
    rows = db.conn.execute("SELECT folded FROM entity ORDER BY id LIMIT ?", (_COMPARED,))
    letters = Counter(graph_names.identity(name))
    wanted = sum(letters.values())
    close = [
        folded for (folded,) in rows if (letters & Counter(folded)).total() >= _LIKENESS * max(wanted, len(folded))
    ]
    like = difflib.get_close_matches(graph_names.identity(name), close, _NEAR, _LIKENESS)
    return [entity.name for folded in like for entity in graph_view.entities(db, _named(db, folded)).values()]
