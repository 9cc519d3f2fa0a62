"""Passages are chosen so that together they tell of all that is asked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from preflexor_agents.events import Passage
from preflexor_agents.store import Store
from preflexor_agents.store.coverage import aspects
from preflexor_agents.store.diversity import choose

CORK = """# Cork

Cork is the bark of the cork oak. Cork floats.

## Structure

The cells of cork are closed boxes. Cork has no channels through its cells.

## Mechanism

Cork gives way because the walls of cork cells fold.

## Properties

The density of cork is 0.2 g/cm^3. Pressed, cork has a hardness of nothing worth telling.

## Use

Stoppers of cork seal bottles. Cork soles are soft.
"""
ENAMEL = """# Enamel

Enamel covers teeth. Nothing in the body is harder than enamel.

## Properties

The density of enamel is 2.9 g/cm^3. Old enamel is brittle.
"""


@pytest.fixture
def two(store: Store, tmp_path: Path) -> Store:
    """Much about cork, little about enamel, and something about neither."""
    folder = tmp_path / "two"
    folder.mkdir()
    (folder / "cork.md").write_text(CORK, encoding="utf-8")
    (folder / "enamel.md").write_text(ENAMEL, encoding="utf-8")
    (folder / "fern.md").write_text("# Fern\n\nFerns shed spores beside water.\n", encoding="utf-8")
    store.ingest([folder])
    return store


def test_a_question_about_two_things_gets_what_is_asked_of_both(two: Store) -> None:
    found = two.search("Put cork beside enamel: whose density is larger?", k=4)
    assert {p.title for p in found[:2]} == {"Cork", "Enamel"}
    assert {p.title for p in found if "density" in p.text} == {"Cork", "Enamel"}


def test_a_question_about_one_thing_gets_no_passage_about_another(two: Store) -> None:
    found = two.search("How dense is cork?", k=4)
    assert {p.title for p in found} == {"Cork"}


def test_fewer_passages_are_the_first_of_more(two: Store) -> None:
    many = two.search("density of cork and enamel", k=8)
    for k in range(1, 8):
        assert two.search("density of cork and enamel", k=k) == many[:k]


def test_the_best_passage_stays_first(two: Store) -> None:
    for query in ("enamel and cork", "ferns, cork and enamel", "0.2 g/cm^3"):
        found = two.search(query, k=7)
        assert found[0].score == max(p.score for p in found)


def test_two_subjects_of_one_document_are_both_found(store: Store, tmp_path: Path) -> None:
    paragraphs = [
        *(f"The heron eats fish. A heron stands {n} hours. Heron." for n in range(9)),
        "Otters eat crabs. An otter dives.",
    ]
    text = "".join(f"## Part {n}\n\n{paragraph}\n\n" for n, paragraph in enumerate(paragraphs))
    (tmp_path / "river.md").write_text(f"# River\n\n{text}", encoding="utf-8")
    store.ingest([tmp_path / "river.md"])
    assert any("Otters" in p.text for p in store.search("What do the heron and the otter eat?", k=2))


@pytest.mark.parametrize(
    ("notes", "query"),
    [
        (("Der Storch frißt Frösche. Störche klappern.", "Der Dachs gräbt. Dachse schlafen."), "Storch und Dachs?"),
        (("Аист ест лягушек. Аист летит.", "Барсук роет. Барсук спит."), "аист или барсук"),
        (("Ο πελαργός πετά. Ο πελαργός τρώει.", "Ο ασβός σκάβει. Ο ασβός."), "ΠΕΛΑΡΓΌΣ, ασβός"),
    ],
)
def test_words_of_any_language_count(store: Store, tmp_path: Path, notes: tuple[str, str], query: str) -> None:
    texts = [f"{notes[0]} {n}" for n in range(5)] + [notes[1]]
    for n, text in enumerate(texts):
        (tmp_path / f"{n}.txt").write_text(text, encoding="utf-8")
    store.ingest([tmp_path])
    assert notes[1] in [p.text for p in store.search(query, k=2)]


def test_likeness_counts_against_what_is_left_to_tell(two: Store) -> None:
    query = "cork and enamel"
    plain = two.search(query, k=7)
    assert two.search(query, k=7, diversity=1e-9) == plain
    assert two.search(query, k=7, diversity=1)[0] == plain[0]


class Liking:
    """A reranker that likes one title, and remembers what it was shown."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.shown: list[Passage] = []

    def scores(self, query: str, passages: Sequence[Passage]) -> list[float]:
        self.shown = list(passages)
        return [float(passage.title == self.title) for passage in passages]


def test_a_reranker_is_shown_what_covers_the_question_and_has_the_last_word(two: Store) -> None:
    query = "density of cork and enamel"
    liking = Liking("Fern")
    found = two.search(query, k=3, reranker=liking)
    assert [p.title for p in found] == ["Fern", *(p.title for p in two.search(query, k=2))]
    assert liking.shown == two.search(query, k=len(liking.shown))


def test_numbers_are_whole_and_names_of_three_words_weigh_as_much_as_names_of_one() -> None:
    found = aspects("Which has 0.7 g?", ["0.7 g", "0 and 7 g", "70.7", "C0.7"])
    assert found.told[:, 0].tolist() == [0.5, 0.0, 0.0, 0.0]
    named = aspects("hagfish slime thread or cork", ["Hagfish slime thread. " * 3, "Cork, cork, cork."])
    assert named.weights[0] == pytest.approx(named.weights[1:].sum()) and len(named.weights) == 4


def test_words_said_often_where_they_are_said_weigh_more_than_equally_rare_ones() -> None:
    found = aspects("Put cork beside it", ["Cork, cork and cork.", "Put it there."])
    assert found.weights.shape == (2,) and found.weights[0] > 10 * found.weights[1] > 0
    assert found.told.tolist() == [[0.75, 0.0], [0.0, 0.5]]


@pytest.mark.parametrize("query", ["", "the of and", "?!", "absent", "\0\ud800"])
def test_where_no_text_has_a_word_of_the_query_relevance_decides(query: str) -> None:
    texts = ["cork", "enamel", ""]
    assert choose([0.1, 0.3, 0.2], k=3, aspects=aspects(query, texts)) == [1, 2, 0]


def test_candidates_beyond_those_looked_at_follow_by_relevance() -> None:
    seen = aspects("cork enamel", ["cork", "cork", "enamel"])
    assert choose([0.9, 0.8, 0.7, 0.6, 0.65], k=5, aspects=seen) == [0, 2, 1, 4, 3]


def test_of_nothing_nothing_is_chosen() -> None:
    assert choose([], k=3, aspects=aspects("cork", [])) == []
    assert choose([], k=3, vectors=np.zeros((0, 4), dtype=np.float32), diversity=0.5) == []


def test_relevance_of_nought_is_still_an_order() -> None:
    assert choose([0.0, 0.0, 0.0], k=2) == [0, 1]
