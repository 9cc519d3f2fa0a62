"""Facts for tests of the graph, each quoting words that stand in the store."""

from typing import Any

from preflexor_agents.graph.values import Added, Fact, Graph, Node, Quote, Run
from preflexor_agents.store import Store


def quote(store: Store, words: str) -> Quote:
    """The first place in the store where the words stand."""
    sql = "SELECT id, instr(text, ?1) - 1 FROM chunk WHERE instr(text, ?1) ORDER BY id LIMIT 1"
    id, start = store._db.conn.execute(sql, (words,)).fetchone()
    return Quote(chunk_id=id, start=start, end=start + len(words))


def fact(store: Store, said: str, *, words: str = "", types: tuple[str, str] = ("", "")) -> Fact:
    """`A | relation | B`, on the words, else on the first chunk's first word."""
    subject, kind, target = said.split(" | ")
    if not words:
        words = store._db.conn.execute("SELECT substr(text, 1, 3) FROM chunk ORDER BY id LIMIT 1").fetchone()[0]
    ends = [Node(name=name, type=type) for name, type in zip((subject, target), types, strict=True)]
    return Fact(subject=ends[0], kind=kind, object=ends[1], quotes=(quote(store, words),))


def put(store: Store, *said: str, run: Run | None = None, words: str = "") -> Added:
    """Store facts under a run, a new one if none is given."""
    under = run or store.graph.begin(Run(kind="extract", model="nano"))
    return store.graph.add([fact(store, each, words=words) for each in said], run=under)


def id_of(store: Store, name: str) -> int:
    return store.graph.entity(name).id


def lines(graph: Graph) -> set[str]:
    """The relations of a graph as `A | relation | B`."""
    names = {entity.id: entity.name for entity in graph.entities}
    return {f"{names[r.source]} | {r.kind} | {names[r.target]}" for r in graph.relations}


def rows(store: Store, table: str) -> list[tuple[Any, ...]]:
    return store._db.conn.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
