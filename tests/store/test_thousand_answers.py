"""A thousand answers put together at random: each citation's quote stands at its place, on its page, in the source."""

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pypdfium2
import pytest

from preflexor_agents.events import Citation
from preflexor_agents.store import Store, sentences

DATA = Path(__file__).parents[3] / "shared" / "data"
ANSWERS = 1000
LEAST_CITATIONS = 800


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Notes, articles and PDFs."""
    if not DATA.is_dir():
        pytest.skip("needs ../shared/data")
    books = sorted((DATA / "corpus-openstax-biology-md" / "contents").glob("*.md"))[:12]
    papers = sorted((DATA / "corpus-plos-jats").glob("*.xml"))[:3]
    with Store.open(tmp_path_factory.mktemp("shelf") / "a.db") as store:
        store.ingest([*books, *papers, DATA / "corpus-sofc-exp" / "sofc_exp_guidelines.pdf", DATA / "pdf-samples"])
        yield store


@pytest.mark.slow
def test_every_citation_of_a_thousand_answers_stands_in_its_source(shelf: Store) -> None:
    rng = random.Random(3)
    texts = [
        (row[0], row[1])
        for row in shelf._db.conn.execute("SELECT d.title, c.text FROM chunk c JOIN document d ON d.id = c.document_id")
    ]
    found = paged = 0
    for _ in range(ANSWERS):
        answer = " ".join(said(rng, *rng.choice(texts)) for _ in range(rng.randrange(1, 4)))
        for citation in shelf.cite(answer, shelf.search(answer, k=5)).citations:
            found += 1
            paged += citation.page is not None
            assert shelf.check(citation), citation
            assert stands_in_the_file(citation), citation
    assert found > LEAST_CITATIONS and paged > LEAST_CITATIONS // 20


def said(rng: random.Random, title: str, text: str) -> str:
    """A sentence of a passage, at times with words left out or changed."""
    spans = sentences.split(text)
    if not spans:
        return title
    start, end = rng.choice(spans)
    words = text[start:end].split()
    if rng.random() < 0.3 and len(words) > 6:
        del words[rng.randrange(1, len(words) - 1)]
    if rng.random() < 0.2 and words:
        words[rng.randrange(len(words))] = rng.choice(("silk", "42", "not", "[3]"))
    return " ".join(words) + "."


def stands_in_the_file(citation: Citation) -> bool:
    """Read from the file itself, by other means than the store's: at the offsets of a note, on the page of a PDF."""
    file = Path(citation.source)
    if file.suffix == ".md":
        return file.read_bytes().decode("utf-8-sig")[citation.start : citation.end] == citation.quote
    if file.suffix == ".pdf":
        assert citation.page is not None
        return squeezed(citation.quote)[:40] in "".join(page_texts(file)[citation.page - 1 : citation.page + 1])
    return citation.page is None and squeezed(citation.quote)[:40] in article_text(file)


@cache
def article_text(file: Path) -> str:
    return squeezed("".join(ElementTree.parse(file).getroot().itertext()))


@cache
def page_texts(file: Path) -> list[str]:
    with pypdfium2.PdfDocument(file) as pdf:
        return [squeezed(page.get_textpage().get_text_range()) for page in pdf]


def squeezed(text: str) -> str:
    """Letters and digits only: how a page is laid out does not count."""
    return "".join(c for c in text.casefold() if c.isalnum())
