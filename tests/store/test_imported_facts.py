"""Graphs from files in a store: each fact has a quote, nothing comes in twice, and what does not come in is told."""

import pytest

from preflexor_agents.graph import graphml, json_form
from preflexor_agents.graph.imported import Imported
from preflexor_agents.graph.values import Entity, Fact, Graph, GraphCounts, Node, Quote, Relation, Run
from preflexor_agents.store import Store, browsing
from preflexor_agents.store.imported_facts import take_in
from tests.store.graph_files import GEPHI, NETWORKX

TEXT = "# Nacre\n\nNacre consists of aragonite. Chitin lies between the tablets.\n"


@pytest.fixture
def known(store: Store) -> Store:
    """A store with a text and two facts that it says."""
    fill(store)
    return store


def fill(store: Store) -> None:
    finding = store.add_finding(TEXT, owner="test", title="Nacre")
    [chunk] = browsing.chunks(store.path, finding.source)
    run = store.graph.begin(Run(kind="extract", model="nano"))

    def said(subject: str, kind: str, target: str, words: str) -> Fact:
        start = chunk.text.index(words)
        quote = Quote(chunk_id=chunk.id, start=start, end=start + len(words))
        return Fact(subject=Node(name=subject, type="material"), kind=kind, object=Node(name=target), quotes=(quote,))

    facts = [
        said("Nacre", "consists of", "aragonite", "Nacre consists of aragonite."),
        said("Chitin", "lies between", "tablets", "Chitin lies between the tablets."),
    ]
    assert store.graph.add(facts, run=run).refused == ()


def said(store: Store) -> set[tuple[str, str, str, str, str]]:
    """Every fact with its quotes."""
    graph = store.graph.whole()
    names = {e.id: e.name for e in graph.entities}
    return {
        (names[r.source], r.kind, names[r.target], e.source, e.quote)
        for r in graph.relations
        for e in graph.evidence[r.id]
    }


def read(text: str) -> Imported:
    return (graphml if text.lstrip().startswith("<") else json_form).read(text.encode())


@pytest.mark.parametrize("form", [json_form, graphml])
def test_our_file_brings_the_same_facts_and_quotes_into_a_store_with_the_same_texts(known: Store, form: object) -> None:
    text = form.write(known.graph.whole())  # type: ignore[attr-defined]
    facts = said(known)
    for run in known.graph.runs():
        known.graph.remove_run(run.id)
    report = take_in(known, read(text), name="graph")
    assert said(known) == facts
    assert (report.left_out, report.listed, report.added.evidence) == ((), 0, 2)


def test_what_the_store_knows_already_is_not_counted_twice(known: Store) -> None:
    before = known.graph.counts()
    report = take_in(known, read(json_form.write(known.graph.whole())), name="graph.json")
    assert (report.known, report.added.evidence) == (2, 0)
    assert known.graph.counts() == before


def test_where_the_texts_are_not_there_each_fact_is_a_line_of_a_new_document(known: Store) -> None:
    with Store.open(known.path.with_name("other.db")) as other:
        report = take_in(other, read(json_form.write(known.graph.whole())), name="graph.json")
        assert report.listed == 2
        [document] = other.findings()
        assert {quote for *_, quote in said(other)} == {
            "Nacre | consists of | aragonite",
            "Chitin | lies between | tablets",
        }
        assert all(quote in document.text.splitlines() for *_, quote in said(other))
        assert other.search("lies between tablets")[0].source == document.source


def test_a_quote_that_was_changed_in_the_text_is_not_taken_for_evidence(known: Store) -> None:
    text = json_form.write(known.graph.whole()).replace("Nacre consists of aragonite.", "Nacre consists of chocolate!")
    report = take_in(known, read(text), name="graph.json")
    assert report.listed == 1
    assert not any("chocolate" in quote for *_, quote in said(known))


def test_the_same_file_again_replaces_what_it_brought(store: Store) -> None:
    for _ in range(3):
        take_in(store, read(GEPHI), name="gephi.graphml")
    assert store.graph.counts() == GraphCounts(entities=2, relations=1, evidence=1, runs=1)
    assert len(store.findings()) == 1


def test_taking_the_run_back_takes_the_graph_back(known: Store) -> None:
    before = said(known)
    take_in(known, read(NETWORKX), name="networkx.graphml")
    assert said(known) > before
    known.graph.remove_run(known.graph.runs()[-1].id)
    assert said(known) == before


def test_dangling_edges_lonely_nodes_and_refused_facts_are_told(store: Store) -> None:
    graph = Graph(
        entities=tuple(Entity(id=n, name=name) for n, name in enumerate(("a", "b", "alone", "\u200b", "x" * 400), 1)),
        relations=tuple(Relation(id=n, source=1, kind="is", target=n) for n in (2, 4, 5)),
    )
    report = take_in(store, Imported(graph=graph, left_out=("edge 9",)), name="g.json")
    assert report.left_out[:2] == ("edge 9", "node 'alone': it has no relation")
    assert [line.rsplit(": ", 1)[1] for line in report.left_out[2:]] == [
        "its object is empty",
        "its object has more than 300 characters",
    ]
    assert store.graph.counts().relations == 1


def test_names_with_lines_and_bars_stay_in_their_line(store: Store) -> None:
    graph = Graph(
        entities=(Entity(id=1, name="a\n|b|\x1b[31m"), Entity(id=2, name="c\u2028d")),
        relations=(Relation(id=1, source=1, kind="is\r\nnear", target=2),),
    )
    take_in(store, Imported(graph=graph), name="g.json")
    [(subject, kind, target, _, quote)] = said(store)
    assert (subject, kind, target, quote) == ("a |b|[31m", "is near", "c d", "a /b/[31m | is near | c d")


def test_a_thousand_facts_of_every_length_are_quoted_whole(store: Store) -> None:
    entities = tuple(Entity(id=n, name=f"entity {n} " + "long " * (n % 55)) for n in range(1, 1001))
    relations = tuple(Relation(id=n, source=n, kind="is before", target=n % 1000 + 1) for n in range(1, 1001))
    report = take_in(store, Imported(graph=Graph(entities=entities, relations=relations)), name="g.json")
    assert (report.added.relations, report.left_out) == (1000, ())
    graph = store.graph.whole()
    names = {e.id: e.name for e in graph.entities}
    for r in graph.relations:
        words = " ".join(e.quote for e in graph.evidence[r.id]).split()
        assert words == f"{names[r.source]} | is before | {names[r.target]}".split()


def test_a_graph_without_relations_stores_nothing(store: Store) -> None:
    report = take_in(store, Imported(graph=Graph(entities=(Entity(id=1, name="a"),))), name="g.json")
    assert report.left_out == ("node 'a': it has no relation",)
    assert store.graph.runs() == [] and store.findings() == []
