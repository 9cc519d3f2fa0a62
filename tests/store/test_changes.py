"""What stays and what goes when documents change, move or are removed."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflexor_agents.errors import InputError, StoreError
from preflexor_agents.store import Store, driver, upkeep
from preflexor_agents.store.embedders import HashEmbedder, Vectors
from tests.store import files
from tests.store.checking import Failing, assert_sound, contents
from tests.store.conftest import NACRE

Row = tuple[Any, ...]


class Counting(HashEmbedder):
    """Knows what it embedded."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, texts: Any) -> Vectors:
        self.texts += texts
        return super().embed(texts)


@pytest.fixture
def embedder() -> Counting:
    return Counting()


@pytest.fixture
def shelf(tmp_path: Path, notes: Path, embedder: Counting) -> Iterator[Store]:
    """A store that holds the notes."""
    with Store.open(tmp_path / "shelf.db", embedder=embedder) as store:
        store.ingest([notes])
        embedder.texts.clear()
        yield store


def rows(store: Store, sql: str, *values: Any) -> list[Row]:
    db = driver.connect(store.path, mode="rw")
    try:
        driver.load_vec(db.conn)
        return db.conn.execute(sql, values).fetchall()
    finally:
        db.close()


def chunk_ids(store: Store, name: str) -> dict[str, int]:
    sql = """SELECT c.text, c.id FROM chunk c JOIN document d ON d.id = c.document_id WHERE d.source LIKE ?"""
    return dict(rows(store, sql, f"%/{name}"))


def add_evidence(store: Store, chunk_id: int) -> None:
    """A fact that stands on a chunk."""
    db = driver.connect(store.path, mode="rw")
    db.conn.executescript(
        f"""INSERT INTO graph_run VALUES (1, 'extract', 'm', '', 0, '', '');
        INSERT INTO entity (id, folded) VALUES (1, 'nacre'), (2, 'tablet');
        INSERT INTO entity_name (id, entity_id, name, type) VALUES (1, 1, 'nacre', ''), (2, 2, 'tablet', '');
        INSERT INTO relation (id, subject_id, kind, object_id) VALUES (1, 1, 'has', 2);
        INSERT INTO evidence (relation_id, chunk_id, start, "end", run_id, subject_name_id, object_name_id)
        VALUES (1, {chunk_id}, 0, 5, 1, 1, 2)"""
    )
    db.close()


def test_of_a_changed_document_only_the_changed_chunk_is_embedded(
    shelf: Store, notes: Path, embedder: Counting
) -> None:
    before = chunk_ids(shelf, "nacre.md")
    text = NACRE.replace("# Nacre\n", "# Nacre\n\nA new beginning, which moves all that follows.\n").replace("70", "80")
    (notes / "nacre.md").write_text(text, encoding="utf-8")
    report = shelf.ingest([notes])
    after = chunk_ids(shelf, "nacre.md")
    same = before.keys() & after.keys()
    assert len(same) == 1 and all(before[key] == after[key] for key in same)
    assert (report.changed, report.chunks, len(embedder.texts)) == (1, 2, 2)
    assert_sound(shelf.path)
    assert upkeep.check(shelf.path) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n## New\n\nMore words.\n",
        lambda text: text.replace("## Structure", "## Build"),
        lambda text: text.replace("# Nacre\n", "# Mother of pearl\n", 1),
        lambda text: "\n\n\n" + text,
        lambda text: text[: text.index("## Properties")],
        lambda text: text + text,
        lambda text: "Another text altogether.",
    ],
)
def test_a_changed_document_equals_a_fresh_one(
    shelf: Store, notes: Path, tmp_path: Path, change: Callable[[str], str]
) -> None:
    (notes / "nacre.md").write_text(change(NACRE), encoding="utf-8")
    shelf.ingest([notes])
    shelf.ingest([notes])
    with Store.open(tmp_path / "fresh.db") as fresh:
        fresh.ingest([notes])
        sql = """SELECT d.source, d.title, d.text, d.authors, d.published, c.ord, c.start, c."end", c.body, c.page,
                 c.context, c.text, e.vector FROM document d JOIN chunk c ON c.document_id = d.id
                 JOIN embedding e ON e.chunk_id = c.id ORDER BY 1, 6"""
        assert rows(shelf, sql) == rows(fresh, sql)
    assert_sound(shelf.path)


def test_facts_stay_with_a_chunk_that_moves_in_its_document(shelf: Store, notes: Path) -> None:
    text, id = next((text, id) for text, id in chunk_ids(shelf, "nacre.md").items() if "bricks" in text)
    add_evidence(shelf, id)
    (notes / "nacre.md").write_text(NACRE.replace("# Nacre\n", "# Nacre\n\nNew.\n"), encoding="utf-8")
    shelf.ingest([notes])
    assert rows(shelf, "SELECT chunk_id FROM evidence") == [(chunk_ids(shelf, "nacre.md")[text],)] == [(id,)]


def test_facts_follow_a_text_under_another_title(shelf: Store, notes: Path, embedder: Counting) -> None:
    (text,) = chunk_ids(shelf, "gecko.txt")
    add_evidence(shelf, chunk_ids(shelf, "gecko.txt")[text])
    (notes / "gecko.txt").rename(notes / "lizard.txt")
    report = shelf.ingest([notes])
    assert (report.changed, report.chunks, len(embedder.texts)) == (1, 1, 1)
    assert rows(shelf, "SELECT chunk_id FROM evidence") == [(chunk_ids(shelf, "lizard.txt")[text],)]
    assert shelf.search("lizard")[0].title == "lizard"
    assert_sound(shelf.path)


def test_facts_go_with_the_text_they_stood_on(shelf: Store, notes: Path) -> None:
    add_evidence(shelf, next(id for text, id in chunk_ids(shelf, "nacre.md").items() if "bricks" in text))
    (notes / "nacre.md").write_text(NACRE.replace("bricks", "stones"), encoding="utf-8")
    shelf.ingest([notes])
    assert rows(shelf, "SELECT count(*) FROM relation") == [(0,)]
    assert upkeep.check(shelf.path) == []


def test_a_moved_document_keeps_its_chunks(shelf: Store, notes: Path, embedder: Counting) -> None:
    before = chunk_ids(shelf, "nacre.md")
    (notes / "nacre.md").rename(notes / "pearl.md")
    report = shelf.ingest([notes])
    assert chunk_ids(shelf, "pearl.md") == before
    assert (report.changed, report.chunks, embedder.texts) == (1, 0, [])


def test_what_is_unchanged_is_not_parsed_again(shelf: Store, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("preflexor_agents.store.documents.Reader.parse")
    (notes / "copy.md").write_text(NACRE, encoding="utf-8")
    report = shelf.ingest([notes])
    assert (report.unchanged, report.duplicates) == (3, 1)


def test_a_document_stays_in_its_collection_until_told_otherwise(shelf: Store, notes: Path) -> None:
    sql = "SELECT DISTINCT collection FROM document"
    assert rows(shelf, sql) == [("default",)]
    assert shelf.ingest([notes], collection="shells").changed == 3
    assert shelf.ingest([notes]).unchanged == shelf.ingest([notes], collection="shells").unchanged == 3
    assert rows(shelf, sql) == [("shells",)]
    assert len({id for (id,) in rows(shelf, "SELECT id FROM chunk")} & {1, 2, 3, 4, 5, 6}) == 6


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x1b[31m", "x" * 201])
def test_a_collection_needs_a_name(shelf: Store, notes: Path, name: str) -> None:
    with pytest.raises(InputError, match="is no name"):
        shelf.ingest([notes], collection=name)


def test_removing_a_document_leaves_nothing_of_it(shelf: Store, notes: Path) -> None:
    add_evidence(shelf, next(iter(chunk_ids(shelf, "nacre.md").values())))
    shelf.add_finding("Nacre is a finding.", owner="me")
    assert shelf.remove(str(notes / "nacre.md")) == (str(notes / "nacre.md"),)
    assert not any("aragonite" in p.text for p in shelf.search("nacre aragonite tablets", k=50))
    for table in ("relation", "entity", "entity_name", "evidence", "page"):
        assert rows(shelf, f"SELECT count(*) FROM {table}") == [(0,)], table
    assert rows(shelf, "SELECT count(*) FROM chunk_fts WHERE chunk_fts MATCH 'aragonite'") == [(0,)]
    assert shelf.stats().documents == 3 and len(shelf.findings()) == 1
    assert_sound(shelf.path)
    assert upkeep.check(shelf.path) == []


def test_removing_everything_and_vacuuming_leaves_no_word_in_the_file(shelf: Store, notes: Path) -> None:
    assert len(shelf.remove(notes)) == 3
    shelf.close()
    upkeep.vacuum(shelf.path)
    left = b"".join(path.read_bytes().lower() for path in shelf.path.parent.glob("shelf.db*"))
    assert not [word for word in (b"aragonite", b"dragline", b"gecko", b"nacre") if word in left]


@pytest.mark.parametrize("given", ["notes", "notes/", "./notes/../notes", "{tmp}/notes", "{tmp}/notes/"])
def test_a_folder_is_removed_however_it_is_written(
    shelf: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    beside = tmp_path / "notes and more"
    beside.mkdir()
    (beside / "wool.md").write_text("# Wool\n\nKeratin.\n", encoding="utf-8")
    shelf.ingest([beside])
    monkeypatch.chdir(tmp_path)
    assert len(shelf.remove(given.format(tmp=tmp_path))) == 3
    assert shelf.stats().documents == 1


@pytest.mark.parametrize("given", ["", "nowhere", "no%", "not_s"])
def test_removing_what_is_not_there_changes_nothing(shelf: Store, given: str) -> None:
    assert shelf.remove(given) == () and shelf.stats().documents == 3


def test_pages_authors_and_date_are_stored(store: Store, tmp_path: Path) -> None:
    info = {"Title": "On Silk", "Author": "Ann Lee; Bo Day", "CreationDate": "D:20200301"}
    (tmp_path / "a.pdf").write_bytes(files.pdf([["Silk is a fibre."], ["It is tough."]], info=info))
    store.ingest([tmp_path / "a.pdf"])
    ((title, authors, published),) = rows(store, "SELECT title, authors, published FROM document")
    assert (title, json.loads(authors), published) == ("On Silk", ["Ann Lee", "Bo Day"], "2020-03-01")
    assert rows(store, 'SELECT number, start, "end" FROM page') == [(1, 0, 18), (2, 18, 30)]
    assert upkeep.check(store.path) == []


def test_a_citation_names_the_page_of_its_own_words(store: Store, tmp_path: Path) -> None:
    first = ["Spider silk is a protein fibre.", "It is spun by glands in the abdomen."]
    second = ["Dragline silk has a tensile strength of 1100 MPa."]
    (tmp_path / "a.pdf").write_bytes(files.pdf([first, [], second]))
    store.ingest([tmp_path / "a.pdf"])
    (passage,) = store.search("dragline silk strength")
    assert passage.page == 1 and "1100" in passage.text
    answer = "Spider silk is a protein fibre. Dragline silk has a tensile strength of 1100 MPa."
    cited = store.cite(answer, [passage])
    assert [citation.page for citation in cited.citations] == [1, 3] and cited.unsupported == ()
    assert all(store.check(citation) for citation in cited.citations)
    assert not store.check(replace(cited.citations[1], page=1))


def test_a_failure_at_any_statement_of_a_removal_keeps_everything(
    failing: type[Failing], shelf: Store, notes: Path
) -> None:
    shelf.close()
    before, n = contents(shelf.path), 0
    while contents(shelf.path) == before:
        n += 1
        with Store.open(shelf.path) as store, suppress(StoreError):
            failing.left = n
            store.remove(notes)
        failing.left = -1
        assert_sound(shelf.path)
    assert n > 5 and contents(shelf.path) == []


def test_a_failure_at_any_statement_of_a_move_leaves_the_facts(
    failing: type[Failing], shelf: Store, notes: Path
) -> None:
    add_evidence(shelf, next(iter(chunk_ids(shelf, "gecko.txt").values())))
    shelf.close()
    (notes / "gecko.txt").rename(notes / "lizard.txt")
    for n in range(1, 100):
        with Store.open(shelf.path) as store, suppress(StoreError):
            failing.left = n
            report = store.ingest([notes / "lizard.txt"])
            break
        failing.left = -1
        assert len(chunk_ids(shelf, "gecko.txt")) == 1
        assert upkeep.check(shelf.path) == []
    failing.left = -1
    assert (report.changed, rows(shelf, "SELECT count(*) FROM relation")) == (1, [(1,)])
    assert n > 10 and upkeep.check(shelf.path) == []


TEXTS = ["", "# A\n\nsilk", "# A\n\n## B\n\nbone " * 40, "# A\n\n## B\n\nsilk\n\n## C\n\nnacre", "nacre"]
STEP = st.tuples(st.sampled_from(["a.md", "b.md", "c.txt"]), st.sampled_from([*TEXTS, "remove", "move"]))


@given(st.lists(STEP, min_size=2, max_size=7))
@settings(max_examples=25, deadline=None)
def test_any_history_leaves_the_chunks_and_vectors_of_a_fresh_store(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("history")
    docs = folder / "docs"
    docs.mkdir()
    moved: Counter[str] = Counter()
    with Store.open(folder / "old.db") as old:
        for n, (name, text) in enumerate(steps):
            if text == "remove":
                (docs / name).unlink(missing_ok=True)
                old.remove(docs / name)
            elif text == "move" and (docs / name).exists():
                (docs / name).rename(docs / f"{n}{name}")
                moved[name] += 1  # of two equal documents the first one stays, which a fresh store cannot know
            else:
                (docs / name).write_text(f"{text}\n<!-- {name} {moved[name]} -->\n", encoding="utf-8")
            old.ingest([docs])
        with Store.open(folder / "new.db") as new:
            new.ingest([docs])
            sql = """SELECT d.source, d.sha256, d.title, c.ord, c.start, c.body, c.context, c.text, e.vector
                     FROM document d JOIN chunk c ON c.document_id = d.id JOIN embedding e ON e.chunk_id = c.id
                     ORDER BY 1, 4"""
            assert rows(old, sql) == rows(new, sql)
    assert upkeep.check(folder / "old.db") == []
