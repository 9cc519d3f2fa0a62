"""Graphs as files: ours come back as they were, those of other programs are understood, hostile ones are refused."""

import csv
import io
import json
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflexor_agents.errors import InputError
from preflexor_agents.graph import csv_form, dot, graphml, json_form, mermaid
from preflexor_agents.graph.imported import Imported
from preflexor_agents.graph.parts import best_connected
from preflexor_agents.graph.values import Entity, Graph, Relation, Run
from tests.store.graph_files import BOMB, GEPHI, NETWORKX, YED, quote, small

Fact = tuple[str, str, str]
NASTY = [
    "</script>",
    "]]>",
    "a|b",
    '"',
    "'",
    "\r\n",
    "\x0b",
    "_x0041_",
    "_",
    "&#13;",
    "\u2028",
    "\ufffe",
    "é",
    "🦪",
    "\\",
    "#",
]
texts = st.lists(st.sampled_from(NASTY) | st.text(max_size=6), max_size=4).map("".join)
names = texts.filter(str.strip)
runs = st.builds(Run, id=st.integers(1, 9), kind=st.sampled_from(["extract", "grow"]), model=texts, note=texts)
ids = st.integers(1, 10**12)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    entities = draw(
        st.lists(
            st.builds(
                Entity, id=ids, name=names, type=st.just("") | names, aliases=st.lists(texts, max_size=2).map(tuple)
            ),
            min_size=1,
            max_size=5,
            unique_by=lambda e: e.id,
        )
    )
    ends = st.sampled_from([e.id for e in entities])
    relations = draw(
        st.lists(
            st.builds(Relation, id=ids, source=ends, kind=names, target=ends, weight=st.integers(1, 99)),
            max_size=5,
            unique_by=(lambda r: r.id, lambda r: (r.source, r.kind, r.target)),
        )
    )
    evidence = {
        r.id: tuple(
            quote(r.id, draw(texts), draw(runs), start=3, page=draw(st.none() | st.integers(1, 9))) for _ in "ab"
        )
        for r in relations
        if draw(st.booleans())
    }
    return Graph(entities=tuple(entities), relations=tuple(relations), evidence=evidence)


def facts(imported: Imported) -> set[Fact]:
    names = {e.id: e.name for e in imported.graph.entities}
    return {(names[r.source], r.kind, names[r.target]) for r in imported.graph.relations}


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_our_json_comes_back_as_it_was(graph: Graph) -> None:
    assert json_form.read(json_form.write(graph).encode()) == Imported(graph=graph)


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_our_graphml_comes_back_as_it_was(graph: Graph) -> None:
    assert graphml.read(graphml.write(graph).encode()) == Imported(graph=graph)


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_tables_hold_every_name_and_quote(graph: Graph) -> None:
    tables = csv_form.write(graph)
    entities, relations = (list(csv.DictReader(io.StringIO(text, newline=""))) for text in tables)
    assert [row["Label"].removeprefix("'") for row in entities] == [e.name.removeprefix("'") for e in graph.entities]
    for row, relation in zip(relations, graph.relations, strict=True):
        quotes = [found["quote"] for found in json.loads(row["Evidence"])]
        assert quotes == [e.quote for e in graph.evidence.get(relation.id, ())]


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_drawings_hold_no_text_that_means_something_to_the_program_that_draws(graph: Graph) -> None:
    for line in mermaid.write(graph).splitlines()[1:]:
        assert re.fullmatch(r'  n\d+(?: -->\|"[^"<>|`]*"\| n\d+|\["[^"<>|`]*"\])', line), line
    for line in dot.write(graph).splitlines()[3:-1]:
        rest = re.sub(r'"(?:[^"\\]|\\["\\])*"', "T", line)
        assert re.fullmatch(r"  n\d+(?: -> n\d+)? \[label=T(?:, class=T|, weight=\d+)?\]", rest), line


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
def test_a_spreadsheet_runs_no_cell(start: str) -> None:
    graph = Graph(entities=(Entity(id=1, name=f"{start}HYPERLINK(1)"),))
    assert list(csv.reader(io.StringIO(csv_form.write(graph).entities)))[1][1] == f"'{start}HYPERLINK(1)"


def test_a_drawing_of_a_large_graph_shows_the_best_connected_and_says_so() -> None:
    entities = tuple(Entity(id=n, name=f"e{n}") for n in range(1, 101))
    relations = tuple(Relation(id=n, source=7, kind="near", target=n) for n in range(1, 101))
    text = mermaid.write(Graph(entities=entities, relations=relations))
    assert "%% the 40 best connected of 100 entities" in text and 'n7["e7"]' in text
    assert len(re.findall(r'^  n\d+\["', text, re.M)) == 40
    assert len(best_connected(Graph(entities=entities, relations=relations), most=3).relations) == 3


def test_graphml_of_networkx_is_read_and_its_dangling_edge_told() -> None:
    found = graphml.read(NETWORKX.encode())
    assert facts(found) == {("nacre", "consists of", "aragonite")}
    assert [(e.name, e.type) for e in found.graph.entities] == [("nacre", "material"), ("aragonite", "")]
    assert found.left_out == ("edge 2 from 'nacre' to 'chitin': no node 'chitin'",)


def test_graphml_of_gephi_is_read_with_its_labels_and_defaults() -> None:
    found = graphml.read(GEPHI.encode())
    assert facts(found) == {("nacre", "consists of", "aragonite")}
    assert [e.type for e in found.graph.entities] == ["material", "thing"]
    assert found.left_out == ("edge 2 from '11.0' to '12.0': no node '12.0'",)


def test_graphml_of_yed_is_read_by_the_labels_in_the_drawing() -> None:
    found = graphml.read(YED.encode())
    assert facts(found) == {("nacre", "consists of", "aragonite"), ("shell", "related to", "aragonite")}
    assert found.left_out == ()


def test_graphml_in_another_encoding_and_without_a_namespace_is_read() -> None:
    graph = '<graph><node id="é"/><edge source="é" target="é"/></graph>'
    text = f'<?xml version="1.0" encoding="UTF-16"?><graphml>{graph}</graphml>'
    assert facts(graphml.read(text.encode("utf-16"))) == {("é", "related to", "é")}


def test_a_label_that_was_edited_in_yed_is_the_new_name() -> None:
    text = graphml.write(small()).replace("<y:NodeLabel>aragonite<", "<y:NodeLabel>calcite<")
    assert facts(graphml.read(text.encode())) >= {("nacre", "consists of", "calcite")}


def test_hyperedges_and_second_nodes_of_one_id_are_told() -> None:
    text = '<graphml><graph><node id="a"/><node id="a"/><hyperedge/><edge source="a" target="b"/></graph></graphml>'
    left_out = graphml.read(text.encode()).left_out
    assert [line.split(":")[0] for line in left_out] == [
        "node 'a' is there twice; the first one counts",
        "edge 1 from 'a' to 'b'",
        "1 hyperedges",
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (BOMB.encode(), "declares a document type"),
        (b'<!DOCTYPE graphml SYSTEM "file:///etc/hostname"><graphml/>', "declares a document type"),
        (b"", "no XML"),
        (b"\x00\x01\x02", "no XML"),
        (b"<graphml><graph>", "no XML"),
        (b'<?xml version="1.0" encoding="klingon"?><graphml/>', "no XML"),
        (b"<gexf/>", "the document is a 'gexf'"),
    ],
)
def test_xml_that_is_hostile_or_no_graph_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        graphml.read(data)
    assert "\n" not in str(caught.value)


NODES = [{"id": "a", "label": "nacre", "type": "material"}, {"id": "b", "label": "aragonite"}]
EDGE = {"source": "a", "target": "b", "relation": "consists of"}
FOREIGN = {
    "networkx": {"directed": True, "multigraph": False, "graph": {}, "nodes": NODES, "edges": [EDGE]},
    "networkx before 3.4": {"directed": True, "graph": {}, "nodes": NODES, "links": [EDGE]},
    "d3": {"nodes": NODES, "links": [{"source": NODES[0], "target": NODES[1], "type": "consists of"}]},
    "cytoscape": {"elements": {"nodes": [{"data": n} for n in NODES], "edges": [{"data": EDGE}]}},
    "graphology": {
        "nodes": [{"key": n["id"], "attributes": {k: v for k, v in n.items() if k != "id"}} for n in NODES],
        "edges": [{"key": "0", "source": "a", "target": "b", "attributes": {"label": "consists of"}}],
    },
    "json graph format": {"graph": {"nodes": {n["id"]: {"label": n["label"]} for n in NODES}, "edges": [EDGE]}},
    "vis": {"nodes": NODES, "edges": [{"from": "a", "to": "b", "label": "consists of"}]},
}


@pytest.mark.parametrize("program", FOREIGN)
def test_json_of_other_programs_is_read(program: str) -> None:
    found = json_form.read(json.dumps(FOREIGN[program]).encode())
    assert (facts(found), found.left_out) == ({("nacre", "consists of", "aragonite")}, ())


def test_dangling_edges_of_json_are_told_and_none_kept() -> None:
    found = json_form.read(
        json.dumps({"nodes": NODES, "edges": [EDGE, {"source": "a", "target": "x"}, {}, 7]}).encode()
    )
    assert facts(found) == {("nacre", "consists of", "aragonite")}
    assert len(found.left_out) == 3 and "no node 'x'" in found.left_out[0]
    ours = json.loads(json_form.write(small()))
    del ours["entities"][2]
    assert json_form.read(json.dumps(ours).encode()).left_out == ("relation 4 from 9 to 5: no entity 9",)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "holds no graph"),
        (b'{"name": 1}', "it has name"),
        (b'{"nodes": 7, "edges": []}', "must be lists, not int"),
        (b'{"format": "preflexor-graph", "version": 2}', "version 2, this program knows 1; update"),
        (b'{"format": "preflexor-graph", "version": 1, "entities": [{"id": "x"}]}', "entities.0"),
    ],
)
def test_json_that_is_no_graph_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        json_form.read(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: g["evidence"][0].update(run=9), "names run 9"),
        (lambda g: g["entities"].append(g["entities"][0]), "two entities"),
        (lambda g: g["relations"].append(g["relations"][0]), "two relations"),
    ],
)
def test_our_json_with_a_wrong_reference_is_refused(change: object, words: str) -> None:
    graph = json.loads(json_form.write(small()))
    change(graph)  # type: ignore[operator]
    with pytest.raises(InputError, match=words):
        json_form.read(json.dumps(graph).encode())


def test_the_documented_form_of_json_is_the_one_that_is_written() -> None:
    graph = json.loads(json_form.write(small()))
    assert (graph["format"], graph["version"]) == ("preflexor-graph", 1)
    doc = json_form.__doc__ or ""
    for part in ("entities", "relations", "evidence", "runs"):
        keys = doc.split(f"`{part}` (")[1].split(")")[0]
        assert set(keys.replace("\n", " ").replace(",", "").split()) == set(graph[part][0])


def test_graphml_names_nodes_and_edges_where_gephi_and_yed_look() -> None:
    root = ElementTree.fromstring(graphml.write(small()))
    places = {"g": "http://graphml.graphdrawing.org/xmlns", "y": "http://www.yworks.com/xml/graphml"}
    for kind, first, drawn in (("node", "nacre", "NodeLabel"), ("edge", "consists of", "EdgeLabel")):
        [key] = [k for k in root.findall("g:key", places) if (k.get("for"), k.get("attr.name")) == (kind, "label")]
        [element, *_] = root.findall(f".//g:{kind}", places)
        assert element.findtext(f"g:data[@key='{key.get('id')}']", "", places) == first
        assert element.findtext(f".//y:{drawn}", "", places) == first
