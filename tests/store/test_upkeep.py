"""Care for a store's file: nothing is lost, whatever is asked for and whatever is in the way."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from preflexor_agents.errors import StoreError, StoreFileError
from preflexor_agents.store import Store, driver, upkeep
from tests.store.checking import Failing, assert_sound, contents


@pytest.fixture
def path(library: Store) -> Path:
    """A store with the notes, closed."""
    library.close()
    return library.path


def spoil(path: Path, sql: str) -> None:
    db = driver.connect(path, mode="rw")
    with driver.closing(db, path):
        driver.load_vec(db.conn)
        db.conn.execute("PRAGMA foreign_keys = OFF")
        db.conn.execute(sql)


PAGE_SIZE = 8192


def pages_of(path: Path, names: tuple[str, ...]) -> list[int]:
    """The first page of each of these tables."""
    db = driver.connect(path, mode="ro")
    with driver.closing(db, path):
        marks = ", ".join("?" * len(names))
        sql = f"SELECT rootpage FROM sqlite_schema WHERE name IN ({marks})"
        return [page for (page,) in db.conn.execute(sql, names).fetchall()]


WRONG_INDEXES = {
    "the full-text index differs": "INSERT INTO chunk_fts(chunk_fts, rowid, context, text) "
    "VALUES ('delete', 1, 'x', 'y')",
    "the vector index of hash/1 differs": "DELETE FROM chunk_vec_1 WHERE chunk_id = 1",
}
WRONG_ROWS = {
    "a chunk's text is not what stands in its document": "UPDATE chunk SET start = 1 WHERE id = 1",
    "a document has no chunks": "INSERT INTO document (source, title, sha256, parser, size_bytes, text) "
    "VALUES ('a', 'b', 'c', 'd', 0, '')",
    "chunks of a document are not numbered": "UPDATE chunk SET ord = 7 WHERE id = 1",
    "a chunk's page is not in its document": "UPDATE chunk SET page = 3 WHERE id = 1",
    "a page lies outside its document": 'INSERT INTO page (document_id, number, start, "end") VALUES (1, 1, 0, 99999)',
    "a chunk has no vector": "DELETE FROM embedding WHERE chunk_id = 1",
    "a vector has another length": "UPDATE embedding SET vector = x'00' WHERE chunk_id = 1",
    "a row belongs to one that is gone": "DELETE FROM document WHERE id = 1",
}


def test_a_sound_store_has_no_problems(path: Path) -> None:
    assert upkeep.check(path) == []


@pytest.mark.parametrize(("rule", "sql"), WRONG_ROWS.items())
def test_wrong_rows_are_found_and_never_rebuilt_away(path: Path, rule: str, sql: str) -> None:
    spoil(path, sql)
    found = {str(problem): problem.remedy for problem in upkeep.check(path)}
    assert any(rule in text and remedy == "restore" for text, remedy in found.items()), found
    before = contents(path)
    with pytest.raises(StoreFileError, match="restore a backup"):
        upkeep.rebuild(path)
    assert contents(path) == before


@pytest.mark.parametrize(("rule", "sql"), WRONG_INDEXES.items())
def test_a_wrong_index_is_found_and_rebuilt(path: Path, rule: str, sql: str) -> None:
    spoil(path, sql)
    assert [rule in str(p) and p.remedy == "rebuild" for p in upkeep.check(path)] == [True]
    done = upkeep.rebuild(path)
    assert [rule in str(p) for p in done.before] == [True] and done.vectors == done.chunks > 3
    assert upkeep.check(path) == []
    assert_sound(path)


def test_damage_to_any_page_with_rows_is_found(path: Path) -> None:
    whole = path.read_bytes()
    names = ("document", "chunk", "embedding", "chunk_fts_data", "chunk_vec_1_rowids")
    for page in pages_of(path, names):
        data = bytearray(whole)
        data[(page - 1) * PAGE_SIZE : (page - 1) * PAGE_SIZE + 200] = b"\xff" * 200
        path.write_bytes(data)
        try:
            found = [str(problem) for problem in upkeep.check(path)]
        except StoreError as error:
            found = [str(error)]
        assert any("damaged" in line for line in found), (page, found)
        assert not any("\n" in line for line in found)


def test_a_backup_is_the_store_and_is_never_written_over(path: Path, tmp_path: Path) -> None:
    copy = upkeep.backup(path, tmp_path / "new" / "copy.db")
    assert contents(copy) == contents(path)
    assert_sound(copy)
    with pytest.raises(StoreFileError, match="exists already; name another file"):
        upkeep.backup(path, copy)
    into_folder, beside = upkeep.backup(path, tmp_path), upkeep.backup(path)
    assert into_folder.parent == tmp_path and beside.parent == path.parent and beside != path


def test_a_backup_without_room_or_permission_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreFileError, match="cannot be made"):
        upkeep.backup(path, path / "inside" / "copy.db")
    monkeypatch.setattr(upkeep, "_ROOM", 1e9)
    with pytest.raises(StoreError, match="make room"):
        upkeep.backup(path, path.with_name("copy.db"))
    assert not list(path.parent.glob("copy.db*"))


def test_a_backup_while_another_process_writes_is_whole(path: Path, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from preflexor_agents.store import Store
note = Path(sys.argv[2])
with Store.open(sys.argv[1]) as store:
    print("ready", flush=True)
    for turn in range(1000):
        note.write_text(f"# Note\\n\\nturn {turn}\\n", encoding="utf-8")
        store.ingest([note])
"""
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "note.md")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        copies = [upkeep.backup(path, tmp_path / f"{n}.copy") for n in range(3)]
        writer.kill()
    for copy in copies:
        assert_sound(copy)


def test_a_restored_store_is_the_copy_and_the_replaced_one_is_kept(path: Path, tmp_path: Path) -> None:
    copy = upkeep.backup(path, tmp_path / "copy.db")
    old = contents(path)
    with Store.open(path) as store:
        store.add_finding("Wood floats.", owner="me")
        newer = contents(path)
        done = upkeep.restore(copy, path)
        assert store.findings() == [] and store.search("toughness of nacre")
    assert contents(path) == old and done.documents == 3
    assert done.kept is not None and contents(done.kept) == newer
    assert_sound(path)


def test_a_damaged_store_is_set_aside_by_a_restore(path: Path, tmp_path: Path) -> None:
    copy = upkeep.backup(path, tmp_path / "copy.db")
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 9000)
    done = upkeep.restore(copy, path)
    assert contents(path) == contents(copy)
    assert done.kept is not None and done.kept.read_bytes().endswith(b"\xff" * 9000)


def test_a_store_can_be_restored_where_there_is_none(path: Path, tmp_path: Path) -> None:
    done = upkeep.restore(path, tmp_path / "new" / "b.db")
    assert done.kept is None and contents(tmp_path / "new" / "b.db") == contents(path)


def test_only_a_whole_copy_is_restored(path: Path, tmp_path: Path) -> None:
    before = contents(path)
    bad = tmp_path / "bad.db"
    with pytest.raises(StoreFileError, match="does not exist"):
        upkeep.restore(bad, path)
    upkeep.backup(path, bad)
    spoil(bad, WRONG_ROWS["a chunk has no vector"])
    with pytest.raises(StoreFileError, match="is not whole: a chunk has no vector"):
        upkeep.restore(bad, path)
    with pytest.raises(StoreFileError, match="is the store itself"):
        upkeep.restore(path, path)
    assert contents(path) == before and not list(path.parent.glob("*replaced*"))


def test_a_failure_at_any_statement_of_a_rebuild_changes_nothing(failing: type[Failing], path: Path) -> None:
    before = contents(path)
    for n in itertools.count(1):
        failing.left = n
        try:
            upkeep.rebuild(path)
        except StoreError as error:
            assert "injected" in str(error)
        else:
            break
        finally:
            failing.left = -1
        assert contents(path) == before
        assert_sound(path)
    assert n > 10


def test_vacuum_gives_space_back(path: Path, tmp_path: Path) -> None:
    with Store.open(path) as store:
        for n in range(40):
            store.add_finding(f"Finding {n}. " + f"word{n} " * 3000, owner="me")
        store.clear_findings("me")
    before, after = upkeep.vacuum(path)
    assert after < before / 2 and path.stat().st_size == after
    assert_sound(path)
