"""Files that are hard to read, and what is said of them; a corpus of articles; the benchmarks."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from preflexor_agents.store import IngestReport, Store, sentences
from tests.store import files
from tests.store.checking import assert_sound

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
SAMPLES = DATA / "pdf-samples"
ARTICLES = DATA / "corpus-plos-jats"


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_comes_out_of_each_sample_is_as_the_page_says() -> None:
    if not SAMPLES.is_dir():
        pytest.skip(f"{SAMPLES.name} is not there")
    page = (ROOT / "docs" / "ingest.md").read_text(encoding="utf-8")
    said = [line for line in page.splitlines() if re.match(r"\| (?:\d{3}-|LICENSE|files\.json)", line)]
    assert said == program("ingest_outcomes").table(SAMPLES)[2:]
    assert len(said) == 39


def test_the_samples_can_be_ingested(store: Store) -> None:
    if not SAMPLES.is_dir():
        pytest.skip(f"{SAMPLES.name} is not there")
    report = store.ingest([SAMPLES])
    assert report.added == 31 and len(report.failed) == 7
    assert all("\n" not in line and line.startswith(str(SAMPLES.resolve())) for line in report.failed)
    assert any("imagemagick-images.pdf: 5 of 6 pages have no text" in line for line in report.notes)
    found = store.search("Knoten und Knotendiagramme", k=3)
    assert found[0].title == "Geometrie und Topologie" and found[0].page
    assert store.ingest([SAMPLES]).unchanged == 31
    assert_sound(store.path)


@pytest.fixture(scope="module")
def articles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, IngestReport]]:
    if not ARTICLES.is_dir():
        pytest.skip(f"{ARTICLES.name} is not there")
    with Store.open(tmp_path_factory.mktemp("articles") / "a.db") as store:
        yield store, store.ingest([ARTICLES / "*.xml"])


def test_every_article_has_title_authors_and_date(articles: tuple[Store, IngestReport]) -> None:
    store, report = articles
    assert (report.added, report.failed, report.notes) == (30, (), ())
    found = store._db.conn.execute("SELECT title, authors, published FROM document").fetchall()
    assert all(title and authors != "[]" and len(published) == 10 for title, authors, published in found)
    assert_sound(store.path)


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("do eye movements tell lies", "The Eyes Don"),
        ("frog with hyperossified skull from Madagascar", "New Material of Beelzebufo"),
        ("Markov chain Monte Carlo relaxed molecular clock", "Relaxed Phylogenetics"),
    ],
)
def test_questions_find_their_article(articles: tuple[Store, IngestReport], question: str, title: str) -> None:
    store = articles[0]
    passage = next(passage for passage in store.search(question, k=5) if passage.title.startswith(title))
    span = max(sentences.split(passage.text), key=lambda span: span.end - span.start)
    (citation,) = store.cite(passage.text[span.start : span.end], [passage]).citations
    assert store.check(citation) and citation.start == passage.start + span.start


def blocks() -> list[str]:
    page = (ROOT / "docs" / "ingest.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_pages_program_runs(notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes.rename(tmp_path / "papers")
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {"Store": Store, "Path": Path}
    exec(blocks()[0], known)
    assert (tmp_path / "store.db").exists() and known["report"].added == 3


def test_the_pages_plug_in_is_one(tmp_path: Path) -> None:
    known: dict[str, Any] = {"converted": bytes.decode}
    exec(blocks()[1], known)
    assert known["Rtf"].parse(b"## Wet\n\nSoft.\n", "a.rtf").title == "a.rtf"


def test_the_benchmark_prints_its_table(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(files.pdf([["Nacre is tough."]]))
    command = [sys.executable, str(ROOT / "benchmarks" / "ingest.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1) and done.stderr == ""
    for row in ("documents", "chunks/s after parsing", "peak memory", "nothing to do", "contract: "):
        assert re.search(rf"^{row}", done.stdout, re.MULTILINE), row
