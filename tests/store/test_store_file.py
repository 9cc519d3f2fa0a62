"""The file under a store: what is refused, and that nothing is lost."""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlite_utils import Database

from preflexor_agents.errors import InputError, ModelError, StoreError, StoreFileError
from preflexor_agents.store import Store, driver, schema
from preflexor_agents.store.driver import sqlite3
from preflexor_agents.store.embedders import HashEmbedder
from tests.store.checking import Failing, assert_sound, contents


class Other(HashEmbedder):
    """An embedder of another name."""

    spec = name = "other"


def refused(path: Path, said: str, *, create: bool = True) -> str:
    """The one line with which opening fails; the file stays as it was."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreFileError, match=said) as caught:
        Store.open(path, create=create)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert (path.read_bytes() if path.is_file() else None) == before
    return str(caught.value)


@pytest.fixture
def unwritable() -> Iterator[Path]:
    """A folder that can be made read-only also for a superuser, who takes off that power meanwhile."""
    with tempfile.TemporaryDirectory(prefix="preflexor-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@contextmanager
def without_writing(folder: Path) -> Iterator[None]:
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    power = os.geteuid()
    if power == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if power == 0:
            os.seteuid(0)
        folder.chmod(0o755)


def test_a_store_is_made_with_its_folder_and_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.db"
    Store.open(path).close()
    with Store.open(str(path), create=False) as store:
        assert store.path == path and store.stats().documents == 0
    assert_sound(path)


@pytest.mark.parametrize(
    "name", ["a b.db", "per%20cent.db", "q?mode=ro.db", "h#sh.db", "ü🦪.db", "new\nline.db", "'quote\".db"]
)
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    Store.open(tmp_path / name).close()
    assert (tmp_path / name).is_file()


def test_a_missing_store_is_not_made_unless_asked(tmp_path: Path) -> None:
    assert "ingest documents" in refused(tmp_path / "a.db", "does not exist", create=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_becomes_a_store_only_if_it_may(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch()
    refused(path, "is empty", create=False)
    Store.open(path).close()
    assert_sound(path)


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder; name a file in it")


@pytest.mark.parametrize("data", [b"# Nacre\n\nJust a note.\n" * 100, b"\x00" * 5000, b"x"])
def test_another_kind_of_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a\nb.db").write_bytes(data)
    refused(tmp_path / "a\nb.db", "is no SQLite file")


def test_an_sqlite_file_of_another_program_is_refused(tmp_path: Path) -> None:
    db = Database(sqlite3.connect(tmp_path / "a.db"))
    db["notes"].insert({"text": "mine"})
    db.close()
    refused(tmp_path / "a.db", "is an SQLite file of another program")


def test_a_newer_store_is_refused(library: Store) -> None:
    library._db.conn.execute("PRAGMA user_version = 99")
    library.close()
    refused(library.path, f"has version 99, this program knows up to {schema.SCHEMA_VERSION}: update")


def test_a_truncated_store_is_refused_or_read_without_a_traceback(library: Store) -> None:
    library.close()
    whole = library.path.read_bytes()
    for size in range(1, len(whole), len(whole) // 40):
        library.path.write_bytes(whole[:size])
        try:
            with Store.open(library.path) as store:
                store.search("nacre")
                store.stats()
        except StoreError as error:
            assert "\n" not in str(error)
            assert "damaged" in str(error) or "no SQLite" in str(error)


def test_damaged_pages_give_one_line(library: Store) -> None:
    library.close()
    whole = library.path.read_bytes()
    for page in range(1, len(whole) // 8192, 3):
        library.path.write_bytes(whole[: page * 8192] + b"\xff" * 8192 + whole[(page + 1) * 8192 :])
        try:
            with Store.open(library.path) as store:
                store.search("nacre tensile strength")
                store.stats()
        except StoreError as error:
            assert "\n" not in str(error) and str(library.path) in str(error)


def test_another_embedder_is_refused_with_the_remedy(library: Store) -> None:
    with pytest.raises(
        StoreFileError, match=r"was built with embedder hash \(hash/1\), not other .*leave the embedder out"
    ):
        Store.open(library.path, embedder=Other())
    with Store.open(library.path, embedder="hash") as again:
        assert again.search("silk")


def test_an_empty_store_takes_any_embedder(store: Store) -> None:
    with Store.open(store.path, embedder=Other()) as other:
        assert other.stats().embedder is None


def test_another_process_may_choose_the_embedder_first(store: Store, notes: Path) -> None:
    with Store.open(store.path, embedder=Other()) as other:
        store.ingest([notes / "silk.md"])
        with pytest.raises(StoreFileError, match=r"built with embedder hash \(hash/1\), not other"):
            other.ingest([notes])
    assert store.stats().documents == 1


@pytest.mark.parametrize("spec", ["", "hash:x", "word2vec", "ollama:", "gguf:", "nano"])
def test_an_unknown_embedder_is_refused_and_no_file_made(tmp_path: Path, spec: str) -> None:
    with pytest.raises(InputError, match="use hash, ollama:NAME, gguf:PATH"):
        Store.open(tmp_path / "a.db", embedder=spec)
    assert list(tmp_path.iterdir()) == []


def test_a_store_whose_model_is_gone_still_opens(library: Store, tmp_path: Path) -> None:
    library._db.conn.execute("UPDATE embedding_space SET spec = ?, name = 'gguf:x'", (f"gguf:{tmp_path}/gone.gguf",))
    with Store.open(library.path) as store:
        assert store.stats().documents == 3
        with pytest.raises(ModelError, match=r"gone.gguf cannot be read"):
            store.search("silk")


def test_a_locked_store_is_read_and_not_written(library: Store, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "BUSY_TIMEOUT_S", 0.0)
    (notes / "new.md").write_text("new", encoding="utf-8")
    other = sqlite3.connect(library.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Store.open(library.path) as store:
        assert store.search("silk")
        with pytest.raises(StoreError, match="is locked by another process; try again") as caught:
            store.ingest([notes])
    assert caught.value.exit_code == 1
    other.close()
    assert library.ingest([notes]).added == 1


def test_a_read_only_store_is_searched_and_not_written(unwritable: Path, notes: Path) -> None:
    path = unwritable / "a.db"
    with Store.open(path) as store:
        store.ingest([notes / "silk.md"])
    document = unwritable / "new.md"
    document.write_text("new", encoding="utf-8")
    with without_writing(unwritable):
        with Store.open(path) as store:
            assert store.search("dragline")[0].title == "Spider silk"
            with pytest.raises(StoreFileError, match="is read-only"):
                store.ingest([document])
        with pytest.raises(StoreFileError, match=r"cannot be (opened|made)"):
            Store.open(unwritable / "other.db")
        with pytest.raises(StoreFileError, match="cannot be made"):
            Store.open(unwritable / "sub" / "other.db")
    assert_sound(path)


@pytest.mark.parametrize("room", [4, 250])
def test_a_full_disk_loses_nothing_that_was_done(library: Store, tmp_path: Path, room: int) -> None:
    before = contents(library.path)
    pages = library._db.conn.execute("PRAGMA page_count").fetchone()[0]
    library._db.conn.execute(f"PRAGMA max_page_count = {pages + room}")
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "1.txt").write_text("A small one.", encoding="utf-8")
    (docs / "2.txt").write_text("nacre is tough. " * 50_000, encoding="utf-8")
    with pytest.raises(StoreError, match=r"the disk (is|may be) full; free some space") as caught:
        library.ingest([docs])
    assert caught.value.exit_code == 1
    assert_sound(library.path)
    kept = [row for row in contents(library.path) if row not in before]
    assert [row[5] for row in kept] in ([], ["A small one."])
    library._db.conn.execute("PRAGMA max_page_count = 1000000")
    assert library.ingest([docs]).failed == () and library.stats().documents == 5


def test_a_closed_store_says_so(library: Store) -> None:
    library.close()
    library.close()
    with pytest.raises(StoreError, match="is closed; open it again"):
        library.search("silk")


def test_two_processes_may_make_one_store(tmp_path: Path) -> None:
    code = "import sys; from preflexor_agents.store import Store; Store.open(sys.argv[1]).close()"
    made = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a.db")]) for _ in range(3)]
    assert [process.wait() for process in made] == [0, 0, 0]
    assert_sound(tmp_path / "a.db")


def test_an_older_store_is_brought_up_to_date_and_a_copy_kept(old_store: Path) -> None:
    before = contents(old_store)
    with Store.open(old_store) as store:
        assert store.stats().schema_version == schema.SCHEMA_VERSION
        assert [finding.author for finding in store.findings()] == ["Ada"]
        assert [passage.title for passage in store.search("toughness of nacre", k=1)] == ["Nacre"]
    copy = old_store.with_name("old.db.v2.bak")
    assert contents(copy) == contents(old_store) == before
    assert_sound(old_store)


def test_a_failure_at_any_statement_of_a_migration_changes_nothing(failing: type[Failing], old_store: Path) -> None:
    before = old_store.read_bytes()
    for n in itertools.count(1):
        failing.left = n
        try:
            Store.open(old_store).close()
        except StoreError as error:
            assert "injected" in str(error)
        else:
            break
        finally:
            failing.left = -1
        with driver.closing(driver.connect(old_store, mode="rw"), old_store):
            pass
        assert old_store.read_bytes() == before
        assert not list(old_store.parent.glob("*.partial"))
    assert n > 10
    assert_sound(old_store)


def test_every_table_is_strict() -> None:
    db = Database(sqlite3.connect(":memory:"), execute_plugins=False)
    schema.MIGRATIONS.apply(db)
    sql = "SELECT name FROM pragma_table_list WHERE type = 'table' AND strict = 0 AND schema = 'main'"
    loose = {name for (name,) in db.conn.execute(sql)}
    db.close()
    assert loose == {"sqlite_schema", "sqlite_sequence", "_sqlite_migrations"}
