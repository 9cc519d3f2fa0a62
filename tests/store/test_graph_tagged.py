"""Tagged graphs as models write them: what is read, what is reported, and what of it is stored."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflexor_agents.errors import InputError
from preflexor_agents.graph import chains, tagged
from preflexor_agents.graph.values import Abstraction, PatternStep
from preflexor_agents.store import Store
from preflexor_agents.store.graph_import import import_tagged
from tests.store.graph_facts import lines, put, quote

AUTHORS = (
    Path(__file__).parents[3] / "shared" / "data" / "ref-graph-preflexor" / "results" / "graph_3b_data_eval_all.jsonl"
)

TAGGED = """<think>
<graph_json>
{"nodes": [{"id": "CrackPath", "type": "process"}, {"id": "T", "label": "Toughness"}, {"id": "Mortar"}],
 "edges": [{"source": "Mortar", "relation": "diverts", "target": "CrackPath"},
           {"source": "CrackPath", "relation": "raises", "target": "T"},
           {"source": "Heat", "relation": "lowers", "target": "T"}]}
</graph_json>
<patterns>
1. Mortar → Crack path → Toughness ↑ (longer path → more work).
</patterns>
</think>"""

UNTAGGED = """**Core Concepts and Relationships:**
1. [Spider Silk] -[IS-A]-> [Protein Fibre]
- **Music** -[RELATES-TO]-> **Pattern** -[INFLUENCES]-> [Design].

**Abstract Pattern:**
α → β → γ → α
- α: spider silk
- $\\beta$ represents hierarchical structure
- γ = toughness

**Pattern Context:**
cause → effect
"""


def test_a_tagged_block_gives_nodes_edges_patterns_and_what_dangles() -> None:
    graph = tagged.parse(TAGGED)
    assert [(node.id, node.name, node.type) for node in graph.nodes] == [
        ("CrackPath", "CrackPath", "process"),
        ("T", "Toughness", ""),
        ("Mortar", "Mortar", ""),
    ]
    assert [(e.source.name, e.relation, e.target.name) for e in graph.edges] == [
        ("Mortar", "diverts", "CrackPath"),
        ("CrackPath", "raises", "Toughness"),
    ]
    assert json.loads(TAGGED[graph.edges[1].start : graph.edges[1].end])["relation"] == "raises"
    assert graph.dangling == ("Heat | lowers | T: 'Heat' not among the nodes",)
    (pattern,) = graph.patterns
    assert pattern.names == ("Mortar", "CrackPath", "Toughness")
    assert chains.shown(pattern.steps) == "α -diverts→ β -raises→ γ"
    assert TAGGED[pattern.start : pattern.end] == "Mortar → Crack path → Toughness ↑"


def test_lines_with_arrows_give_edges_and_greek_letters_the_pattern_they_stand_for() -> None:
    graph = tagged.parse(UNTAGGED)
    assert [(e.source.name, e.relation, e.target.name) for e in graph.edges] == [
        ("Spider Silk", "IS-A", "Protein Fibre"),
        ("Music", "RELATES-TO", "Pattern"),
        ("Pattern", "INFLUENCES", "Design"),
    ]
    (pattern,) = graph.patterns
    assert pattern.names == ("spider silk", "hierarchical structure", "toughness")
    assert chains.shown(pattern.steps) == "α → β → γ → α" == UNTAGGED[pattern.start : pattern.end]


@pytest.mark.parametrize(
    "block",
    [
        '{"nodes": ["A", "B"], "edges": [["A", "to", "B"]]}',
        '{"nodes": [{"name": "A"}, {"label": "B"}], "links": [{"from": "A", "label": "to", "to": "B"}]}',
        '```json\n{"nodes": [{"id": "A"}, {"id": "B"}], "edges": [{"source": "A", "type": "to", "target": "B"}]}\n```',
        '{"nodes": [{"id": "A"}, "B", {"id": "A"}], "edges": [{"subject": "A", "predicate": "to", "object": "B"}]}',
    ],
)
def test_usual_ways_of_writing_a_graph_are_read_alike(block: str) -> None:
    abbreviated = '<graph_json>{"nodes": [...], "edges": [...]}</graph_json>'
    for text in (block.strip("`json\n"), f"<graph_json>{block}</graph_json>{abbreviated}", f"<graph_json>\n{block}"):
        (edge,) = tagged.parse(text).edges
        assert (edge.source.name, edge.relation, edge.target.name) == ("A", "to", "B")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no graph block"),
        ("<graph_json> </graph_json>", "is empty"),
        ("<graph_json>{'nodes': []}</graph_json>", "is no JSON"),
        ("<graph_json>" + "[" * 100_000, "is no JSON"),
        ("<graph_json>[1]</graph_json>", 'has no list of "nodes"'),
        ('<graph_json>{"nodes": [], "edges": {}}</graph_json>', '"edges" are no list'),
        ("x" * 1_000_001, "more than 1000000"),
        ("-" * 400_000 + "[a]->", "no graph block"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, problem: str) -> None:
    assert problem in tagged.parse(text).problem


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "<graph_json>",
                "</graph_json>",
                '{"nodes": ["A"], ',
                '"edges": [',
                "{}",
                "[1, 2]",
                "]}",
                "<patterns>",
                "A → ",
                "α",
                " -[R]-> ",
                "\n",
                "**Abstract Pattern**\n",
                ": ",
                ";",
            ]
        ),
        max_size=30,
    )
)
def test_no_text_breaks_the_reader_and_every_place_lies_in_it(parts: list[str]) -> None:
    text = "".join(parts)
    graph = tagged.parse(text)
    for each in (*graph.edges, *graph.patterns):
        assert 0 <= each.start < each.end <= len(text)
    names = set(graph.nodes)
    assert all({edge.source, edge.target} <= names for edge in graph.edges)


def test_an_import_stores_facts_with_quotes_and_patterns_and_reports_the_rest(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    rows = [{"question": "Why tough?", "raw_output": TAGGED}, {"text": UNTAGGED}, {"raw_output": "no graph"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n", encoding="utf-8")
    report = import_tagged(store, path)
    assert (report.records, report.graphs, report.nodes, report.edges) == (4, 2, 8, 5)
    assert report.dangling == ("line 1: Heat | lowers | T: 'Heat' not among the nodes",)
    assert [line.split(":")[0] for line in report.failed] == ["line 3", "line 4"]
    assert "Heat" not in {entity.name for entity in store.graph.whole().entities}
    assert "Mortar | diverts | CrackPath" in lines(store.graph.whole()) and report.added.evidence == 5
    quotes = {piece.quote for found in store.graph.whole().evidence.values() for piece in found}
    assert "[Spider Silk] -[IS-A]-> [Protein Fibre]" in quotes
    assert store.findings(owner="import")[0].title == "Why tough?"


def test_an_import_again_adds_nothing_and_one_cut_short_goes_on(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    first = json.dumps({"raw_output": TAGGED}) + "\n"
    path.write_text(first, encoding="utf-8")
    import_tagged(store, path)
    path.write_text(first + json.dumps({"raw_output": UNTAGGED}) + "\n", encoding="utf-8")
    done: list[tuple[int, int]] = []
    report = import_tagged(store, path, progress=lambda *at: done.append(at))
    assert (report.graphs, report.known, report.added.evidence) == (2, 1, 3) and done == [(1, 2), (2, 2)]
    before = store.graph.counts()
    assert import_tagged(store, path).run is None and store.graph.counts() == before


def test_a_bare_graph_and_a_text_are_imported_too(store: Store, tmp_path: Path) -> None:
    for name, text in (("a.json", '{"nodes": ["A", "B"], "edges": [["A", "to", "B"]]}'), ("b.md", UNTAGGED)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert import_tagged(store, tmp_path / name).graphs == 1
    assert store.graph.counts().relations == 4


def test_a_file_that_cannot_be_imported_is_one_line(store: Store, tmp_path: Path) -> None:
    binary = tmp_path / "b.jsonl"
    binary.write_bytes(b"\xff\xfe\x00\xd8")
    for path, reason in (
        (tmp_path, "is no file"),
        (tmp_path / "none.jsonl", "is no file"),
        (binary, "is no UTF-8 text"),
    ):
        with pytest.raises(InputError, match=reason):
            import_tagged(store, path)
    assert store.graph.runs() == []


def test_concrete_walks_that_share_a_pattern_are_found_through_it(store: Store, tmp_path: Path) -> None:
    other = TAGGED.replace("Mortar", "Twist").replace("CrackPath", "FibrePath").replace("Crack path", "FibrePath")
    for name, text in (("a.md", TAGGED), ("b.md", other)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        import_tagged(store, tmp_path / name)
    (pattern,) = store.graph.patterns()
    assert pattern.uses == 2 and chains.shown(pattern.steps) == "α -diverts→ β -raises→ γ"
    uses = store.graph.pattern_uses(pattern.id)
    assert {use.names[0] for use in uses} == {"Mortar", "Twist"}
    assert all(
        entity is not None and entity.name == name
        for use in uses
        for entity, name in zip(use.entities, use.names, strict=True)
    )
    twist = store.graph.entity("Twist")
    assert store.graph.patterns(entity_id=twist.id) == [pattern]
    run = next(use.run for use in uses if use.names[0] == "Mortar")
    store.graph.remove_run(run.id)
    assert [use.names[0] for use in store.graph.pattern_uses(pattern.id)] == ["Twist"]
    assert store.graph.patterns()[0].uses == 1
    with pytest.raises(InputError, match="no pattern 99"):
        store.graph.pattern_uses(99)


def test_parts_of_the_graph_that_follow_a_pattern_are_found_without_a_text_that_says_so(library: Store) -> None:
    put(library, "mortar | diverts | crack", "crack | raises | toughness")
    put(
        library, "twist | diverts | light", "light | raises | colour", "heat | diverts | light", "light | lowers | cost"
    )
    put(library, "loop | diverts | back", "back | raises | loop", "glass light | raises | shine")
    steps = (PatternStep(source=0, kind="diverts", target=1), PatternStep(source=1, kind="raises", target=2))
    shape = Abstraction(steps=steps, names=("", "", ""), quote=quote(library, "Nacre"))
    library.graph.add([], run=library.graph.runs()[0], patterns=[shape])
    library.graph.merge(library.graph.entity("light").id, library.graph.entity("glass light").id)
    (pattern,) = library.graph.patterns()
    found = [tuple(entity.name for entity in each.entities) for each in library.graph.analogies(pattern.id)]
    lit = {(start, "light", end) for start in ("twist", "heat") for end in ("colour", "shine")}
    assert set(found) == {("mortar", "crack", "toughness"), *lit}
    assert len(found) == 5 and len(library.graph.analogies(pattern.id, k=2)) == 2
    with pytest.raises(InputError, match="no pattern 99"):
        library.graph.analogies(99)


@pytest.mark.skipif(not AUTHORS.exists(), reason=f"needs the authors' outputs in {AUTHORS.name}")
def test_every_graph_of_the_authors_is_imported_and_each_dangling_edge_reported(store: Store) -> None:
    report = import_tagged(store, AUTHORS)
    assert (report.records, report.graphs, report.graphs_with_dangling) == (100, 98, 43)
    assert (report.nodes, report.edges, len(report.dangling)) == (1515, 1946, 156)
    assert report.added.evidence == 1946 and report.added.refused == () and report.added.patterns > 500
    counts = store.graph.counts()
    assert (counts.entities, counts.relations, counts.evidence) == (1112, 1877, 1946)
    texts = {finding.source: finding.text for finding in store.findings(owner="import")}
    pieces = [piece for found in store.graph.whole().evidence.values() for piece in found]
    assert all(texts[piece.source][piece.start : piece.end] == piece.quote for piece in pieces)
    kinds = Counter(json.loads(piece.quote)["relation"] for piece in pieces if piece.quote.startswith("{"))
    assert kinds.total() == 1946 and kinds.most_common(1)[0][0] == "increases"
