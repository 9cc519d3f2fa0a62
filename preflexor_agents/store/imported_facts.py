"""Takes a graph from a file into a store: every fact gets a quote, from a document that is there or from a new one.

The new document lists the facts, `A | relation | B` in a line each. It is a finding, so it is searched and cited.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from preflexor_agents.graph.imported import Imported
from preflexor_agents.graph.values import Added, Entity, Evidence, Fact, Graph, Node, Quote, Relation, Run
from preflexor_agents.store import browsing, graph_names
from preflexor_agents.store.browsing import StoredChunk
from preflexor_agents.store.chunks import Span
from preflexor_agents.store.store import Store

OWNER = "graph-import"
"""Whose findings the lists of facts are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What became of a graph."""

    added: Added
    left_out: tuple[str, ...]
    """One line for each part of the file that is not in the store."""
    known: int
    """Facts that the store knew already from the same words."""
    listed: int
    """Facts whose quote is their line in the new document."""


def take_in(store: Store, imported: Imported, *, name: str) -> ImportReport:
    """Store the facts of a graph as one run; a run that brought the same graph before is taken back.

    What the store knows already, from the same words, is not stored again.

    Args:
        store: Where to.
        imported: The graph, and what reading it left out.
        name: Of the file, to tell where the facts came from.

    Raises:
        StoreError: the store could not be written.
    """
    graph = imported.graph
    names = {entity.id: entity for entity in graph.entities}
    places = _Places(store)
    quotes = {r.id: tuple(places.again(graph.evidence.get(r.id, ()))) for r in graph.relations}
    listed = [r for r in graph.relations if not quotes[r.id]]
    if listed:
        lines = [" | ".join(map(_line, (names[r.source].name, r.kind, names[r.target].name))) for r in listed]
        quotes |= dict(zip((r.id for r in listed), _listed(store, places, lines, name), strict=True))
    note = f"{name} ({_digest(graph)})"
    before = {run.id for run in store.graph.runs() if (run.kind, run.note) == ("import", note)}
    facts = [_fact(r, names, quotes[r.id]) for r in graph.relations]
    new = list(_unknown(store, facts, places, besides=before))
    run = store.graph.begin(Run(kind="import", note=note))
    added = store.graph.add(new, run=run)
    for id in (*before, *(() if added.evidence else (run.id,))):
        store.graph.remove_run(id)
    in_a_relation = {end for r in graph.relations for end in (r.source, r.target)}
    lonely = [f"node {e.name!r}: it has no relation" for e in graph.entities if e.id not in in_a_relation]
    return ImportReport(
        added=added,
        left_out=(*imported.left_out, *lonely, *added.refused),
        known=len(facts) - len(new),
        listed=len(listed),
    )


def _unknown(store: Store, facts: Iterable[Fact], places: "_Places", *, besides: set[int]) -> Iterator[Fact]:
    """The facts that say something which the store does not know from the same words, leaving some runs aside."""
    graph = store.graph.whole()
    ids = {graph_names.identity(name): e.id for e in graph.entities for name in (*e.aliases, e.name)}
    known = {
        (r.source, r.kind, r.target, e.chunk_id, e.start, e.end)
        for r in graph.relations
        for e in graph.evidence[r.id]
        if e.run.id not in besides
    }
    for fact in facts:
        subject, target = (ids.get(graph_names.identity(node.name)) for node in (fact.subject, fact.object))
        said = (subject, graph_names.kind(fact.kind), target)
        new = tuple(q for q in fact.quotes if (*said, q.chunk_id, *places.in_document(q)) not in known)
        if new:
            yield replace(fact, quotes=new)


def _fact(relation: Relation, names: dict[int, Entity], quotes: tuple[Quote, ...]) -> Fact:
    ends = (Node(name=e.name, type=e.type) for e in (names[relation.source], names[relation.target]))
    return Fact(subject=next(ends), kind=relation.kind, object=next(ends), quotes=quotes)


def _line(text: str) -> str:
    return graph_names.clean(text).replace("|", "/") or "(empty)"


def _digest(graph: Graph) -> str:
    return hashlib.sha256(repr((graph.entities, graph.relations)).encode("utf-8", "replace")).hexdigest()[:12]


def _listed(store: Store, places: "_Places", lines: Sequence[str], name: str) -> list[tuple[Quote, ...]]:
    """Store the lines as a document; for each line the words of it."""
    head = f"Relations imported from {_line(name)}\n\n"
    finding = store.add_finding(head + "\n".join(lines) + "\n", owner=OWNER, title=f"Graph from {name}")
    ends = accumulate((len(line) + 1 for line in lines), initial=len(head))
    return places.at(finding.source, [Span(start, start + len(line)) for start, line in zip(ends, lines, strict=False)])


class _Places:
    """Finds the chunks that hold a place in a document; each document is looked up once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._chunks: dict[str, list[StoredChunk]] = {}
        self._starts: dict[int, int] = {}

    def again(self, evidence: Iterable[Evidence]) -> Iterator[Quote]:
        """The quotes that stand in this store where the evidence says."""
        for e in evidence:
            chunks = self._in(e.source)
            before = bisect_right(chunks, e.start, key=lambda chunk: chunk.start)
            if not before:
                continue
            chunk = chunks[before - 1]
            start, end = e.start - chunk.start, e.end - chunk.start
            if start < end <= len(chunk.text) and chunk.text[start:end] == e.quote:
                yield Quote(chunk_id=chunk.id, start=start, end=end)

    def at(self, source: str, spans: Iterable[Span]) -> list[tuple[Quote, ...]]:
        """The words of each place in a document: one quote, or one for each chunk if they were cut."""
        self._in(source)
        return self._store.graph.quotes(source, spans)

    def in_document(self, quote: Quote) -> Span:
        """Where a quote that was found here is in its document."""
        start = self._starts[quote.chunk_id]
        return Span(start + quote.start, start + quote.end)

    def _in(self, source: str) -> list[StoredChunk]:
        if source not in self._chunks:
            found = self._chunks[source] = browsing.chunks(self._store.path, source, most=1 << 40)
            self._starts |= {chunk.id: chunk.start for chunk in found}
        return self._chunks[source]
