"""A real corpus: chapters of a biology textbook in Markdown, as people write it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from preflexor_agents.store import IngestReport, Store
from preflexor_agents.store.chunks import LIMIT
from tests.store.checking import assert_sound

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "data" / "corpus-openstax-biology-md" / "contents"
CHAPTERS = 60


@pytest.fixture(scope="module")
def textbook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, IngestReport]]:
    """A store with the first chapters, and what its ingest reported."""
    if not CORPUS.is_dir():
        pytest.skip(f"the corpus {CORPUS.parent.name} is not there")
    with Store.open(tmp_path_factory.mktemp("textbook") / "a.db") as store:
        yield store, store.ingest(sorted(CORPUS.glob("*.md"))[:CHAPTERS])


def test_every_chapter_is_ingested_once(textbook: tuple[Store, IngestReport]) -> None:
    store, report = textbook
    assert (report.added, report.failed, report.notes) == (CHAPTERS, (), ())
    assert 1000 < report.chunks < 4000
    assert store.ingest(sorted(CORPUS.glob("*.md"))[:CHAPTERS]).unchanged == CHAPTERS
    assert_sound(store.path)


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("three subtypes of carbohydrates", "Carbohydrates"),
        ("parts of a DNA nucleotide", "Nucleic Acids"),
        ("functions of the Golgi apparatus", "The Endomembrane System and Proteins"),
    ],
)
def test_questions_find_their_chapter(textbook: tuple[Store, IngestReport], question: str, title: str) -> None:
    assert title in [p.title for p in textbook[0].search(question, k=3)]


def test_passages_are_exact_spans_of_their_files(textbook: tuple[Store, IngestReport]) -> None:
    found = textbook[0].search("cell membrane proteins energy water", k=200)
    assert len(found) > 50
    for passage in found:
        text = Path(passage.source).read_bytes().decode()
        assert passage.text == text[passage.start : passage.end] and len(passage.text) <= LIMIT
