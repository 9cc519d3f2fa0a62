"""Findings: texts without a file, kept with where they came from, removed without a trace."""

from pathlib import Path

import pytest

from preflexor_agents.errors import InputError
from preflexor_agents.store import Finding, Store, driver
from preflexor_agents.store.driver import sqlite3
from tests.store.checking import assert_sound
from tests.store.test_store_crash import Failing, fail_everywhere, state

TEETH = "Limpet teeth hold goethite fibres and reach a tensile strength of 4.9 GPa."


def add(store: Store, text: str = TEETH, *, owner: str = "notebook") -> Finding:
    return store.add_finding(text, owner=owner, author="Ann", metadata={"doi": "10.1/x", "year": 2015})


def test_a_finding_is_found_and_cited_like_a_document(library: Store) -> None:
    found = add(library)
    passages = library.search("strength of limpet teeth")
    assert passages[0].source == found.source and passages[0].text == TEETH
    cited = library.cite("Limpet teeth have a tensile strength of 4.9 GPa.", passages)
    assert [c.source for c in cited.citations] == [found.source]


def test_a_finding_remembers_where_it_came_from_after_reopening(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as store:
        added = add(store)
    with Store.open(tmp_path / "a.db", create=False) as store:
        assert store.findings() == [added]
    assert (added.author, added.owner, added.mime_type) == ("Ann", "notebook", "text/plain")
    assert added.metadata == {"doi": "10.1/x", "year": 2015} and added.added_at.endswith("+00:00")


def test_the_same_text_of_one_owner_is_kept_once_with_the_later_record(store: Store) -> None:
    add(store)
    again = store.add_finding(TEETH, owner="notebook", author="Bob", title="Limpets")
    assert store.findings() == [again] and store.stats().chunks == 1
    assert [(p.title, p.source) for p in store.search("limpet")] == [("Limpets", again.source)]


def test_clearing_an_owner_leaves_documents_and_the_same_text_of_others(library: Store) -> None:
    documents = library.stats().documents
    add(library)
    add(library, "Limpets graze on rocks.")
    theirs = add(library, owner="another")
    assert library.clear_findings("notebook") == 2
    assert library.findings() == [theirs] and library.stats().documents == documents + 1
    assert library.clear_findings("notebook") == 0
    assert_sound(library.path)


def test_removing_a_finding_leaves_nothing_behind(library: Store) -> None:
    before = library.stats()
    source = add(library, TEETH * 40).source
    assert library.stats().chunks > before.chunks + 1
    assert library.remove_finding(source) and not library.remove_finding(source)
    assert (library.stats().chunks, library.stats().documents) == (before.chunks, before.documents)
    assert source not in {p.source for p in library.search("limpet teeth goethite")}
    assert_sound(library.path)


def test_only_findings_can_be_removed_as_such(library: Store, notes: Path) -> None:
    assert not library.remove_finding(str(notes / "nacre.md"))
    assert library.stats().documents == 3


def test_a_file_with_the_words_of_a_finding_is_a_document_of_its_own(library: Store, notes: Path) -> None:
    add(library)
    (notes / "limpet.txt").write_text(TEETH, encoding="utf-8")
    assert library.ingest([notes]).added == 1
    library.clear_findings("notebook")
    assert [Path(p.source).name for p in library.search("limpet")[:1]] == ["limpet.txt"]


def test_a_process_without_the_vector_extension_removes_and_the_index_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    with Store.open(path) as store:
        source = add(store).source
        kept = add(store, "Limpets graze on rocks.").source
    with monkeypatch.context() as patch:
        patch.setattr(driver, "load_vec", lambda conn: False)
        with Store.open(path) as store:
            assert store.remove_finding(source)
    assert_sound(path)
    with Store.open(path) as store:
        add(store, "Limpets are snails.")
        assert kept in {p.source for p in store.search("limpets graze")}
    assert_sound(path)


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_finding_is_refused(store: Store, text: str) -> None:
    with pytest.raises(InputError, match="the finding is empty"):
        add(store, text)
    assert store.stats().documents == 0


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_metadata_that_is_no_json_is_refused(store: Store, value: object) -> None:
    with pytest.raises(InputError, match="metadata of the finding"):
        store.add_finding(TEETH, owner="notebook", metadata={"key": value})
    assert store.stats().documents == 0


def test_characters_that_no_file_could_hold_are_replaced(store: Store) -> None:
    store.add_finding(
        "Limpet\0 teeth \ud800 hold", owner="a\ud800", author="\ud800", title="\0", metadata={"k": "\udfff"}
    )
    (found,) = store.findings()
    assert found.text == "Limpet\ufffd teeth \ufffd hold" and found.metadata == {"k": "\ufffd"}
    assert store.clear_findings(found.owner) == 1


def test_a_markdown_finding_is_cut_at_its_headings(store: Store) -> None:
    text = f"# Limpets\n\n## Teeth\n\n{TEETH}\n\n## Food\n\nLimpets graze on rocks.\n"
    store.add_finding(text, owner="notebook", mime_type="text/markdown")
    assert [p.text.splitlines()[0] for p in store.search("graze rocks food", k=1)] == ["## Food"]


def test_a_store_from_before_findings_is_brought_up_to_date(library: Store) -> None:
    with library._using():
        library._db.conn.executescript(
            "DROP TABLE finding; DELETE FROM _sqlite_migrations WHERE name = 'm002_findings'; PRAGMA user_version = 1"
        )
    path, documents = library.path, library.stats().documents
    library.close()
    with Store.open(path) as store:
        add(store)
        assert store.stats().documents == documents + 1 and store.stats().schema_version >= 2
    assert_sound(path)
    copy = driver.connect(path.with_name(f"{path.name}.v1.bak"), mode="rw")
    assert copy.conn.execute("SELECT count(*) FROM document").fetchone()[0] == documents
    copy.close()


def test_a_failure_at_any_statement_leaves_a_finding_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, plain = tmp_path / "a.db", sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: plain(*args, factory=Failing, **options))

    def prepare() -> None:
        with Store.open(path) as store:
            store.clear_findings("notebook")
            add(store, "Limpets graze.", owner="another")

    prepare()
    before = state(path)
    failures, states = fail_everywhere(Failing, path, prepare, add)
    assert failures > 10 and all(left == before for left in states)
    whole = state(path)
    failures, states = fail_everywhere(Failing, path, lambda: None, lambda store: store.clear_findings("notebook"))
    assert failures > 5 and all(left == whole for left in states) and state(path) == before
