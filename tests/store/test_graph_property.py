"""Whatever is done to a store, its graph is that of a fresh store that was given only what remains."""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from preflexor_agents.graph.values import Fact, Node, Run
from preflexor_agents.store import Store, upkeep
from tests.store.graph_facts import quote

NAMES = ("Nacre", "nacre", "NACRE", "silk", "Silk", "bone", "hair", "horn")
DOCUMENTS = ("a.md", "b.md")

facts = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from(("material", "tissue", "")),
    st.sampled_from(("is", "has")),
    st.sampled_from(NAMES),
    st.sampled_from(("One", "Two")),
)
document = st.sampled_from(DOCUMENTS)
folded = st.sampled_from(sorted({name.lower() for name in NAMES}))
acts = st.one_of(
    st.tuples(st.just("write"), document, st.integers(0, 2)),
    st.tuples(st.just("delete"), document),
    st.tuples(st.just("add"), document, st.integers(0, 2), st.lists(facts, min_size=3, max_size=6)),
    st.tuples(st.just("remove run"), st.integers(0, 2)),
    st.tuples(st.just("merge"), folded, folded),
    st.tuples(st.just("unmerge"), folded),
)


@dataclass(slots=True)
class World:
    """A store, and what should be in it."""

    folder: Path
    store: Store
    texts: dict[str, int] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)
    facts: list[tuple[str, int, tuple[str, ...]]] = field(default_factory=list)
    above: dict[str, str] = field(default_factory=dict)
    """What each merged name was merged into."""

    def do(self, act: tuple[Any, ...]) -> None:
        match act:
            case ("write", name, version):
                self.write(name, version)
            case ("delete", name) if name in self.texts:
                self.store.remove(self.folder / name)
                del self.texts[name]
                self.forget(lambda known: known[0] == name)
            case ("add", name, run, said) if name in self.texts:
                self.add(name, run, said)
            case ("remove run", run) if run in self.runs:
                self.store.graph.remove_run(self.runs.pop(run).id)
                self.forget(lambda known: known[1] == run)
            case ("merge", keep, gone) if {keep, gone} <= self.names() and self.root(keep) != self.root(gone):
                if gone == self.root(gone):
                    self.store.graph.merge(id_of(self.store, self.root(keep)), id_of(self.store, gone))
                    self.above[gone] = self.root(keep)
            case ("unmerge", gone) if gone in self.above:
                self.store.graph.unmerge(id_of(self.store, gone))
                del self.above[gone]

    def write(self, name: str, version: int) -> None:
        """Both parts of a document are chunks; a new version changes the second."""
        text = f"# {name}\n\n## One\n\nOne of {name}\n\n## Two\n\nTwo of {name} in version {version}\n"
        (self.folder / name).write_text(text, encoding="utf-8")
        self.store.ingest([self.folder / name])
        if self.texts.get(name, version) != version:
            self.forget(lambda known: known[0] == name and known[2][-1] == "Two")
        self.texts[name] = version

    def add(self, name: str, run: int, said: list[tuple[str, ...]]) -> None:
        if run not in self.runs:
            self.runs[run] = self.store.graph.begin(Run(kind="extract", note=str(run)))
        added = self.store.graph.add([as_fact(self.store, name, each) for each in said], run=self.runs[run])
        assert not added.refused
        for each in said:
            place = (name, run, each[0].lower(), each[2], each[3].lower(), each[4])
            if place not in {(d, r, s[0].lower(), s[2], s[3].lower(), s[4]) for d, r, s in self.facts}:
                self.facts.append((name, run, each))

    def forget(self, is_gone: Any) -> None:
        """Facts go; then what no fact names; what was merged with it stays one, under the first by name."""
        self.facts = [known for known in self.facts if not is_gone(known)]
        for name in sorted(self.all_merged() - self.names()):
            stood_for = [other for other in self.all_merged() - {name} if self.root(other) == name]
            below = [low for low, up in self.above.items() if up == name]
            up = self.above.pop(name, None)
            heir = up or min(stood_for, default="")
            self.above.update(dict.fromkeys(below, heir))
            if not up:
                self.above.pop(heir, None)

    def names(self) -> set[str]:
        return {each[n].lower() for _, _, each in self.facts for n in (0, 3)}

    def all_merged(self) -> set[str]:
        return {*self.above, *self.above.values()}

    def root(self, name: str) -> str:
        while name in self.above:
            name = self.above[name]
        return name


def id_of(store: Store, name: str) -> int:
    return int(store._db.conn.execute("SELECT id FROM entity WHERE folded = ?", (name,)).fetchone()[0])


def as_fact(store: Store, document: str, said: tuple[str, ...]) -> Fact:
    subject, type, kind, target, part = said
    quotes = (quote(store, f"{part} of {document}"),)
    return Fact(subject=Node(name=subject, type=type), kind=kind, object=Node(name=target), quotes=quotes)


@contextmanager
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "a.db") as store:
        yield World(Path(folder), store)


def seen(store: Store) -> Any:
    """All that the graph shows, without ids."""
    graph = store.graph.whole()
    names = {entity.id: entity.name for entity in graph.entities}
    entities = sorted((e.name, e.type, e.aliases) for e in graph.entities)
    relations = sorted((names[r.source], r.kind, names[r.target], r.weight) for r in graph.relations)
    pieces = Counter(
        (Path(p.source).name, p.start, p.quote, p.run.note) for found in graph.evidence.values() for p in found
    )
    words = store._db.conn.execute(
        "SELECT folded, word FROM entity JOIN entity_word ON entity_id = id ORDER BY 1, 2"
    ).fetchall()
    counts = replace(store.graph.counts(), runs=0)
    communities = sorted(sorted(names[id] for id in found) for found in store.graph.communities())
    return entities, relations, pieces, words, counts, sorted(map(len, communities)), merged(store)


def merged(store: Store) -> set[tuple[str, str]]:
    sql = """SELECT gone.folded, keep.folded FROM entity_merge m
             JOIN entity gone ON gone.id = m.gone_id JOIN entity keep ON keep.id = m.keep_id"""
    return set(store._db.conn.execute(sql).fetchall())


def rebuilt(old: World) -> Any:
    """A fresh store that was given the documents, the facts and the merges that remain."""
    with world() as new:
        for name, version in sorted(old.texts.items()):
            new.write(name, version)
        by_run: dict[tuple[str, int], list[tuple[str, ...]]] = defaultdict(list)
        for name, run, said in old.facts:
            by_run[name, run].append(said)
        for (name, run), said in by_run.items():
            new.add(name, run, said)
        for gone in sorted(old.above, key=lambda name: depth(old, name)):
            new.store.graph.merge(id_of(new.store, old.above[gone]), id_of(new.store, gone))
        return seen(new.store)


def depth(old: World, name: str) -> int:
    return 1 + depth(old, old.above[name]) if name in old.above else 0


HEIRS = [
    ("add", "a.md", 0, [("silk", "", "is", "bone", "One"), ("hair", "", "is", "horn", "One")]),
    ("add", "a.md", 1, [("nacre", "", "is", "hair", "One")]),
    ("merge", "nacre", "silk"),
    ("merge", "nacre", "horn"),
    ("merge", "silk", "bone"),
    ("remove run", 1),
]
"""What stands for others goes, and one that was merged into one of them is the first by name."""


@example(HEIRS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(acts, min_size=4, max_size=25))
def test_any_sequence_of_changes_leaves_the_graph_of_a_fresh_rebuild(sequence: list[tuple[Any, ...]]) -> None:
    with world() as changed:
        changed.write("a.md", 0)
        changed.write("b.md", 0)
        for act in sequence:
            changed.do(act)
        assert merged(changed.store) == set(changed.above.items())
        assert seen(changed.store) == rebuilt(changed)
        changed.store.close()
        assert upkeep.check(changed.store.path) == []
