"""Where the passages of forge rows come from."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlite_utils import Database

from preflexor_agents.errors import InputError, StoreError
from preflexor_agents.store import Store, browsing, picking
from preflexor_training.forge import contexts
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Dropped
from tests.store.graph_facts import put
from tests.training.teaching import LIBRARY, library


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with library(tmp_path_factory.mktemp("contexts") / "library.db") as opened:
        yield opened


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Store]:
    """Five notes of a chunk each."""
    for name in ("ant", "bee", "cat", "dog", "elk"):
        (tmp_path / f"{name}.txt").write_text(f"The {name} has a name of three letters.\n", encoding="utf-8")
    with Store.open(tmp_path / "small.db") as opened:
        opened.ingest(sorted(tmp_path.glob("*.txt")))
        yield opened


def drawn(store: Store, count: int, /, **settings: object) -> list[list[str]]:
    """The texts of each row's passages."""
    corpus = contexts.survey(store, ForgeSettings(**settings))  # type: ignore[arg-type]
    return [[p.text for p in contexts.draw(corpus, number=number)] for number in range(count)]


def test_random_rows_deal_out_every_chunk_once_before_one_comes_again(small: Store):
    dealt = [text for row in drawn(small, 10, passages=1) for text in row]
    assert len(set(dealt[:5])) == 5 == len(set(dealt[5:]))
    assert dealt[:5] != dealt[5:]


def test_a_row_across_two_deals_and_one_that_wants_more_than_there_is_hold_no_chunk_twice(small: Store):
    assert all(len(set(row)) == len(row) for row in drawn(small, 30, passages=3))
    assert all(len(set(row)) == len(row) == 5 for row in drawn(small, 3, passages=20))


def test_a_refresh_goes_on_where_the_one_before_ended(small: Store):
    whole = drawn(small, 4, passages=1, rows=4)
    assert drawn(small, 2, passages=1, rows=2) + drawn(small, 2, passages=1, rows=2, round=1) == whole


def test_another_seed_deals_in_another_order_and_the_same_in_the_same(store: Store):
    assert drawn(store, 5) == drawn(store, 5) != drawn(store, 5, seed=1)


def test_what_is_drawn_does_not_depend_on_the_order_or_the_place_of_the_documents(store: Store, tmp_path: Path):
    copies = []
    for note in sorted(LIBRARY.glob("*.md"), reverse=True):
        copies.append(tmp_path / note.name)
        copies[-1].write_bytes(note.read_bytes())
    with Store.open(tmp_path / "reversed.db") as other:
        other.ingest(copies)
        assert drawn(other, 20) == drawn(store, 20)


def test_lists_of_references_and_what_models_wrote_are_never_drawn(small: Store, tmp_path: Path):
    paper = tmp_path / "paper.md"
    paper.write_text("# Paper\n\nGnus run.\n\n## References\n\n- Doe, 1999, Journal\n", encoding="utf-8")
    small.ingest([paper])
    small.add_finding("The ant has a name of four letters.", owner="answers")
    dealt = {text for row in drawn(small, 40, passages=1) for text in row}
    assert any("Gnus" in text for text in dealt) and not any("Doe" in text or "four" in text for text in dealt)
    found = contexts.search(small, "The ant has a name of four letters.", k=10)
    assert found and not any("four" in passage.text for passage in found)


def test_topics_take_turns_and_each_turn_has_the_next_passages(store: Store):
    rows = drawn(store, 4, contexts="topic", topics=("nacre", "gecko feet"), passages=2)
    assert "acre" in rows[0][0] and "ecko" in rows[1][0]
    assert not set(rows[0]) & set(rows[2])


def test_a_topic_that_is_spent_begins_again_and_one_that_nothing_speaks_of_drops_the_row(small: Store, tmp_path: Path):
    rows = drawn(small, 4, contexts="topic", topics=("letters",), passages=3)
    assert rows[0] == rows[2] and len(rows[1]) == 2
    with pytest.raises(Dropped, match="no_context: a search for '… …' finds nothing"):
        drawn(small, 1, contexts="topic", topics=("… …",))


def test_related_passages_surround_a_chunk_in_its_turn(store: Store):
    rows = drawn(store, 6, contexts="related")
    corpus = contexts.survey(store, ForgeSettings(contexts="related"))
    assert [row[0] for row in rows] == [p.text for p in picking.passages(store.path, corpus.chunk_ids[:6])]
    near = contexts.search(store, rows[0][0], k=3)
    assert set(rows[0]) == {passage.text for passage in near}


def test_walks_take_the_passages_that_bear_out_their_relations(small: Store):
    put(small, "ant | fears | bee", words="The ant has")
    put(small, "bee | fears | cat", words="The bee has")
    put(small, "cat | fears | dog", words="The cat has")
    rows = drawn(small, 8, contexts="path", passages=2)
    assert rows == drawn(small, 8, contexts="path", passages=2)
    steps = {"ant", "bee", "cat"}
    assert all(len(row) == 2 and {text.split()[1] for text in row} <= steps for row in rows)


def test_walks_need_a_graph_and_topics_need_a_topic_and_all_need_documents(small: Store, tmp_path: Path):
    with pytest.raises(InputError, match="has no knowledge graph to walk in; make one: preflexor graph extract"):
        drawn(small, 1, contexts="path")
    with pytest.raises(InputError, match="no topic is given"):
        drawn(small, 1, contexts="topic", topics=(" ",))
    with Store.open(tmp_path / "empty.db") as empty, pytest.raises(InputError, match="holds no documents; ingest some"):
        drawn(empty, 1)


def test_a_walk_that_cannot_be_taken_drops_the_row(small: Store):
    put(small, "ant | fears | bee", words="The ant has")
    with pytest.raises(Dropped, match="no_context: the graph has no walk of two relations"):
        drawn(small, 1, contexts="path")


def test_given_questions_bring_what_a_search_finds_for_them(store: Store, tmp_path: Path):
    file = tmp_path / "questions.jsonl"
    asked = ("How tough is nacre?", "How do geckos stick?")
    file.write_text("\n".join(json.dumps({"question": each, "answer": "x"}) for each in asked), encoding="utf-8")
    rows = drawn(store, 3, questions=file, passages=2)
    assert "acre" in rows[0][0] and "ecko" in rows[1][0] and rows[2] == rows[0]


def test_a_chunk_that_is_gone_is_told(small: Store, tmp_path: Path):
    corpus = contexts.survey(small, ForgeSettings(passages=5))
    small.remove(tmp_path / "cat.txt")
    with pytest.raises(StoreError, match=r"chunk \d is no longer in store .*; a document was changed: start anew"):
        contexts.draw(corpus, number=0)


def test_only_the_texts_of_passages_that_are_drawn_are_read(store: Store, monkeypatch: pytest.MonkeyPatch):
    read: list[str] = []

    @contextmanager
    def watched(path: Path) -> Iterator[Database]:
        with reading(path) as db:
            db.conn.set_trace_callback(read.append)
            yield db

    reading = browsing.reading
    monkeypatch.setattr(browsing, "reading", watched)
    drawn(store, 5, passages=2)
    assert len([sql for sql in read if "c.text" in sql]) == 10 and len(read) == 11


def test_a_span_names_the_words_as_they_stand_in_the_document(store: Store):
    corpus = contexts.survey(store, ForgeSettings())
    passage = contexts.draw(corpus, number=0)[0]
    span = contexts.span(passage)
    text = Path(span.source).read_text(encoding="utf-8")
    assert text[span.start : span.end] == passage.text and len(span.sha256) == 64
