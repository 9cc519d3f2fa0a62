"""Which chunks went into which rows, and what is left when either goes."""

import itertools
from pathlib import Path

import pytest

from preflexor_agents.errors import StoreError
from preflexor_agents.store import Store, browsing, driver
from preflexor_agents.store.forge_index import ForgeRow
from tests.store.checking import Failing, assert_sound


def row(number: int, *chunk_ids: int, state: str = "kept") -> ForgeRow:
    return ForgeRow(
        id=f"row-{number}",
        number=number,
        state=state,  # type: ignore[arg-type]
        variant="plain",
        phase=1,
        round=0,
        chunk_ids=chunk_ids,
    )


def test_a_chunks_rows_and_a_rows_chunks_are_found(library: Store) -> None:
    library.forge.record("a", [row(0, 2, 1), row(1, 3, state="dropped")], log="a/pairs.jsonl")
    library.forge.record("b", [row(0, 1)], log="b/pairs.jsonl")
    assert [(r.run, r.number) for r in library.forge.rows_of(1)] == [("a", 0), ("b", 0)]
    found = library.forge.row("row-0")
    assert found is not None
    assert found.chunk_ids == (2, 1) and found.log == str(Path("a/pairs.jsonl").absolute())
    assert [r.state for r in library.forge.rows("a")] == ["kept", "dropped"]
    assert library.forge.rows_of(99) == [] and library.forge.row("x") is None


def test_recording_again_changes_nothing_and_follows_a_run_that_was_moved(library: Store) -> None:
    for log in ("a/pairs.jsonl", "c/pairs.jsonl"):
        library.forge.record("a", [row(0, 2, 1)], log=log)
    assert [(r.chunk_ids, r.log) for r in library.forge.rows("a")] == [((2, 1), str(Path("c/pairs.jsonl").absolute()))]
    assert library.stats().documents == 3


def test_a_chunk_that_went_takes_its_links_along_and_leaves_the_row(library: Store, notes: Path) -> None:
    silk, nacre = (browsing.chunks(library.path, str(notes / name))[0].id for name in ("silk.md", "nacre.md"))
    library.forge.record("a", [row(0, silk, 777, nacre)], log="a/pairs.jsonl")
    before = library.forge.rows("a")[0].chunk_ids
    library.remove(notes / "silk.md")
    assert before == (silk, nacre) and library.forge.rows("a")[0].chunk_ids == (nacre,)
    assert_sound(library.path)


def test_forgetting_a_run_leaves_the_others_and_the_documents(library: Store) -> None:
    for run in "ab":
        library.forge.record(run, [row(0, 1)], log=f"{run}.jsonl")
    assert library.forge.forget("a") and not library.forge.forget("a")
    assert library.forge.rows("a") == [] and [r.run for r in library.forge.rows_of(1)] == ["b"]
    assert library.stats().documents == 3


def test_rows_are_recorded_all_or_none(library: Store, failing: type[Failing]) -> None:
    path = library.path
    for n in itertools.count(1):
        with Store.open(path) as store:
            failing.left = n
            try:
                store.forge.record("a", [row(0, 1), row(1, 2)], log="a.jsonl")
            except StoreError:
                failing.left = -1
                assert store.forge.rows("a") == []
            else:
                failing.left = -1
                break
    assert n > 5 and len(library.forge.rows("a")) == 2


def test_a_store_of_the_version_before_gets_the_tables(library: Store) -> None:
    conn = library._db.conn
    for table in ("forge_row_chunk", "forge_row", "forge_run"):
        conn.execute(f"DROP TABLE {table}")
    conn.execute("DELETE FROM _sqlite_migrations WHERE name = 'm007_forge'")
    conn.execute("PRAGMA user_version = 6")
    library.close()
    with Store.open(library.path) as store:
        store.forge.record("a", [row(0, 1)], log="a.jsonl")
        assert store.forge.rows("a") and store.stats().schema_version == 7
    copy = library.path.with_name(f"{library.path.name}.v6.bak")
    with driver.closing(driver.connect(copy, mode="ro"), copy):
        assert copy.exists()


def test_a_closed_store_says_so_of_its_rows(library: Store) -> None:
    library.close()
    with pytest.raises(StoreError, match="is closed"):
        library.forge.rows("a")
