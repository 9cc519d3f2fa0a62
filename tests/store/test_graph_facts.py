"""Facts in the graph: what is stored, what is refused, and what goes with its evidence."""

from dataclasses import replace
from pathlib import Path

import pytest

from preflexor_agents.errors import InputError, StoreError
from preflexor_agents.graph.values import Abstraction, Fact, Node, PatternStep, Quote, Run
from preflexor_agents.store import Store
from preflexor_agents.store.driver import sqlite3
from tests.store.graph_facts import fact, id_of, lines, put, quote, rows

TABLES = ("entity", "entity_name", "entity_word", "entity_merge", "relation", "evidence", "pattern", "pattern_use")


def test_a_fact_is_found_again_with_its_quote_and_its_run(library: Store) -> None:
    run = library.graph.begin(Run(kind="extract", model="nano", prompt_sha256="ab", seed=7, note="first"))
    words = "Nacre is built of aragonite tablets"
    added = library.graph.add([fact(library, "Nacre | built_of | aragonite tablets", words=words)], run=run)
    assert (added.entities, added.relations, added.evidence, added.refused) == (2, 1, 1, ())
    (relation,) = library.graph.whole().relations
    (piece,) = library.graph.evidence([relation.id])[relation.id]
    assert (relation.kind, relation.weight) == ("built of", 1)
    assert piece.quote == words and piece.run == run and run.started_at and piece.title == "Nacre"
    assert Path(piece.source).read_text(encoding="utf-8")[piece.start : piece.end] == words


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"subject": Node(name=" \n\t")}, "its subject is empty"),
        ({"subject": Node(name="\u0301")}, "its subject is empty"),
        ({"object": Node(name="\x00\x1b")}, "its object is empty"),
        ({"kind": "__"}, "its kind is empty"),
        ({"object": Node(name="x" * 301)}, "its object has more than 300 characters"),
        ({"quotes": ()}, "it has no quote"),
        ({"quotes": (Quote(chunk_id=99, start=0, end=1),)}, "chunk 99 is not in the store"),
        ({"quotes": (Quote(chunk_id=1 << 70, start=0, end=1),)}, "is not in the store"),
        ({"quotes": (Quote(chunk_id=1, start=-1, end=3),)}, "its quote -1-3 is not in chunk 1"),
        ({"quotes": (Quote(chunk_id=1, start=3, end=3),)}, "its quote 3-3 is not in chunk 1"),
        ({"quotes": (Quote(chunk_id=1, start=0, end=3), Quote(chunk_id=1, start=0, end=9999))}, "its quote 0-9999"),
    ],
)
def test_a_fact_that_cannot_be_stored_is_refused_with_one_line_and_the_others_are_kept(
    library: Store, change: dict[str, object], reason: str
) -> None:
    run = library.graph.begin(Run(kind="extract"))
    good = fact(library, "silk | is | strong")
    added = library.graph.add([replace(good, **change), good], run=run)  # type: ignore[arg-type]
    assert reason in added.refused[0] and len(added.refused) == 1 and added.refused[0].isprintable()
    assert lines(library.graph.whole()) == {"silk | is | strong"}


def test_names_that_differ_in_case_accents_and_spaces_are_one_entity_named_as_most_often(library: Store) -> None:
    put(library, "spider  silk | is | fibré", "Spider Silk | has | strength", "Spider\u00a0Silk | is | light")
    entity = library.graph.entity("SPIDER SILK")
    assert entity.name == "Spider Silk" and library.graph.counts().entities == 4
    assert library.graph.entity("fibre").name == "fibré"


def test_an_entity_has_the_type_that_was_given_most_often_ties_by_name(library: Store) -> None:
    run = library.graph.begin(Run(kind="extract"))
    for n, type in enumerate(("tissue", "material", "material", "tissue", "", "", "")):
        library.graph.add([fact(library, f"nacre | kind {n} | x", types=(type, ""))], run=run)
    assert library.graph.entity("nacre").type == "material"


def test_the_same_quote_counts_once_in_a_run_and_again_in_another(library: Store) -> None:
    run = library.graph.begin(Run(kind="extract"))
    assert put(library, "a | b | c", "A | B | C", run=run).evidence == 1
    assert put(library, "a | b | c", run=run).evidence == 0
    assert put(library, "a | b | c").evidence == 1
    assert library.graph.whole().relations[0].weight == 2


def test_facts_go_with_the_run_that_found_them_unless_another_found_them_too(library: Store) -> None:
    first, second = (library.graph.begin(Run(kind="extract", note=note)) for note in "12")
    put(library, "a | b | c", "d | e | f", run=first)
    put(library, "a | b | c", run=second)
    assert library.graph.remove_run(first.id) == 2
    assert lines(library.graph.whole()) == {"a | b | c"} and library.graph.runs() == [second]
    assert library.graph.remove_run(second.id) == 1
    assert [table for table in TABLES if rows(library, table)] == []


def test_facts_go_with_their_document_and_leave_nothing_behind(library: Store, notes: Path) -> None:
    run = library.graph.begin(Run(kind="extract"))
    put(library, "silk | is | strong", "spiders | make | silk", run=run, words="Spiders make")
    put(library, "nacre | is | strong", run=run, words="Nacre is")
    shape = (PatternStep(source=0, kind="makes", target=1),)
    place = quote(library, "Spiders make")
    library.graph.add([], run=run, patterns=[Abstraction(steps=shape, names=("spiders", "silk"), quote=place)])
    library.graph.merge(id_of(library, "silk"), id_of(library, "spiders"))
    library.remove(notes / "silk.md")
    assert lines(library.graph.whole()) == {"nacre | is | strong"}
    library._db.conn.execute("DELETE FROM chunk")
    assert [table for table in TABLES if rows(library, table)] == []


def test_facts_of_a_part_that_did_not_change_outlive_the_change_of_another(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "a.md"
    path.write_text("# Silk\n\nSilk is strong.\n\n## Use\n\nRopes are made of it.\n", encoding="utf-8")
    store.ingest([path])
    put(store, "silk | is | strong", words="Silk is strong")
    put(store, "ropes | made of | silk", words="Ropes are made")
    path.write_text("# Silk\n\nNew words.\n\nSilk is strong.\n\n## Use\n\nRopes are made of it.\n", encoding="utf-8")
    store.ingest([path])
    (relation,) = store.graph.whole().relations
    (piece,) = store.graph.evidence([relation.id])[relation.id]
    assert piece.quote == "Ropes are made"
    assert path.read_text(encoding="utf-8")[piece.start : piece.end] == piece.quote


def test_no_edge_can_dangle_even_by_hand(library: Store) -> None:
    put(library, "a | b | c")
    with pytest.raises(sqlite3.IntegrityError):
        library._db.conn.execute("INSERT INTO relation (subject_id, kind, object_id) VALUES (1, 'x', 99)")


def test_find_looks_at_names_then_beginnings_then_words(library: Store) -> None:
    put(
        library,
        "silk | a | silkworm",
        "spider silk | b | silkworm",
        "silkworm | c | gland",
        "silk gland of spiders | d | x",
    )
    assert [e.name for e in library.graph.find("silk")] == ["silk", "silkworm", "silk gland of spiders", "spider silk"]
    assert [e.name for e in library.graph.find("spiders' silks", k=2)] == ["spider silk", "silk gland of spiders"]
    assert [library.graph.find(text) for text in ("", "   ", '" OR 1', "%", "\x00", "\ud800")] == [[]] * 6


def test_a_name_that_is_not_there_is_answered_with_those_near_it(library: Store) -> None:
    with pytest.raises(InputError, match="it is empty"):
        library.graph.entity("nacre")
    put(library, "mother of pearl | is | nacre")
    for wrong, near in (("nakre", "nacre"), ("pearl", "mother of pearl")):
        with pytest.raises(InputError, match=f"no entity '{wrong}'; near it are: {near}"):
            library.graph.entity(wrong)
    for missing in (0, -1, 99, 1 << 80):
        with pytest.raises(InputError, match=f"no entity with id {missing}"):
            library.graph.entity(missing)


def test_a_run_that_was_not_begun_here_is_refused_and_nothing_stored(library: Store) -> None:
    with pytest.raises(InputError, match="run 5 is not in the graph"):
        put(library, "a | b | c", run=Run(id=5, kind="extract"))
    with pytest.raises(InputError, match="run kind 'dream' is unknown"):
        library.graph.begin(Run(kind="dream"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="seed"):
        library.graph.begin(Run(kind="grow", seed=1 << 63))
    with pytest.raises(InputError, match="run 5 is not in the graph"):
        library.graph.remove_run(5)
    assert library.graph.counts().entities == 0 and library.graph.runs() == []


def test_text_that_no_database_can_hold_is_stored_readable(library: Store) -> None:
    run = library.graph.begin(Run(kind="answer", model="m\ud800", note="why\0?"))
    assert library.graph.runs() == [replace(run, model="m?", note="why\ufffd?")]
    put(library, "si\x1b[31mlk\ud800 | is\0a | <|eot_id|>", run=run)
    assert lines(library.graph.whole()) == {"si[31mlk | isa | <|eot_id|>"}


def test_quotes_cover_a_range_chunk_by_chunk(store: Store) -> None:
    text = "alpha " * 100 + "\n\n" + "beta " * 100
    source = store.add_finding(text, owner="x").source
    whole, part, none = store.graph.quotes(source, [(0, len(text)), (6, 11), (5000, 5001)])
    assert len(whole) == 2 and none == ()
    run = store.graph.begin(Run(kind="import"))
    given = Fact(subject=Node(name="a"), kind="b", object=Node(name="c"), quotes=part + whole)
    assert store.graph.add([given], run=run).evidence == 3
    (pieces,) = store.graph.whole().evidence.values()
    assert all(text[piece.start : piece.end] == piece.quote for piece in pieces)
    assert {piece.quote for piece in pieces} == {"alpha", ("alpha " * 100).strip(), ("beta " * 100).strip()}


def test_a_closed_store_has_no_graph(library: Store) -> None:
    library.close()
    with pytest.raises(StoreError, match="is closed"):
        library.graph.counts()
