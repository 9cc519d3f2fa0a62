"""Exact neighbours, whichever way they are found: in memory, by sqlite-vec, row by row."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils import Database

from preflexor_agents.store import Store, driver, scan, schema, upkeep, vectors
from preflexor_agents.store.embedders import HashEmbedder, Vectors
from preflexor_agents.store.filters import Condition
from preflexor_agents.store.matrix import Matrix
from preflexor_agents.store.vectors import Hit, Space

DIM = 16


def unit(rows: Vectors) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def put(db: Database, space: Space, rows: Vectors) -> None:
    """A document whose chunks have these vectors."""
    number = db.conn.execute("SELECT coalesce(max(id), 0) + 1 FROM document").fetchone()[0]
    with driver.writing(db):
        sql = "INSERT INTO document (source, title, sha256, parser, size_bytes, text) VALUES (?, '', ?, '', 1, ?)"
        document = db.conn.execute(sql, (str(number), str(number), "x" * len(rows))).lastrowid
        sql = "INSERT INTO chunk (document_id, ord, start, \"end\", context, text) VALUES (?, ?, ?, ?, '', 'x')"
        ids = [int(db.conn.execute(sql, (document, n, n, n + 1)).lastrowid or 0) for n in range(len(rows))]
        vectors.add(db, space, ids, rows)


def delete(db: Database, space: Space, ids: Sequence[int]) -> None:
    with driver.writing(db):
        vectors.drop(db, space, ids)
        db.conn.executemany("DELETE FROM chunk WHERE id = ?", [(id,) for id in ids])


@pytest.fixture
def db(tmp_path: Path) -> Database:
    opened = schema.open_file(tmp_path / "a.db", create=True)
    if not driver.load_vec(opened.conn):
        pytest.skip("this SQLite cannot load sqlite-vec")
    return opened


@pytest.fixture
def space(db: Database) -> Space:
    with driver.writing(db):
        added = vectors.add_space(db, HashEmbedder(), DIM)
        return vectors.prepare_index(db, added, has_vec=True)


def oracle(db: Database, query: Vectors, k: int) -> list[int]:
    rows = db.conn.execute("SELECT chunk_id, vector FROM embedding").fetchall()
    scored = [(-float(np.dot(np.frombuffer(v, "<f4").astype("f8"), query[0].astype("f8"))), id) for id, v in rows]
    return [id for _, id in sorted(scored)[:k]]


def found(db: Database, space: Space, query: Vectors, k: int, matrix: Matrix | None = None) -> list[int]:
    with driver.reading(db):
        hits = vectors.nearest(db, space, query, k=k, has_vec=True, matrix=matrix)
    return [hit.chunk_id for hit in hits]


def loaded(db: Database, space: Space, *, limit_bytes: int = 1 << 20) -> Matrix:
    """A matrix that had time to load all."""
    matrix = Matrix(limit_bytes=limit_bytes)
    matrix.budget_s = 60.0
    with driver.reading(db):
        assert matrix.catch_up(db, space)
    return matrix


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 300),
    distinct=st.integers(1, 300),
    k=st.integers(1, 60),
)
@settings(max_examples=60, deadline=None)
def test_the_scan_is_exact_and_breaks_ties_by_id(seed: int, count: int, distinct: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    pool = unit(rng.standard_normal((distinct, DIM)).astype(np.float32))
    rows, query = pool[rng.integers(0, distinct, count)], pool[rng.integers(0, distinct)]
    ids = rng.permutation(count).astype(np.int64)
    exact = (rows.astype("f8") * query.astype("f8")).sum(axis=1)
    expected = sorted(zip(-exact, ids, strict=True))[:k]
    assert [hit.chunk_id for hit in scan.nearest(ids, rows, query, k=k)] == [id for _, id in expected]


def test_all_three_ways_give_the_same_hits(db: Database, space: Space) -> None:
    rng = np.random.default_rng(5)
    rows = unit(rng.standard_normal((700, DIM)).astype(np.float32))
    put(db, space, np.concatenate([rows, rows[:300], np.repeat(rows[:1], 60, axis=0)]))
    matrix = loaded(db, space)
    for n in range(0, 40, 3):
        with driver.reading(db):
            ways = [
                vectors.nearest(db, space, rows[n : n + 1], k=10, has_vec=True, matrix=matrix),
                vectors.nearest(db, space, rows[n : n + 1], k=10, has_vec=True),
                vectors.nearest(db, space, rows[n : n + 1], k=10, has_vec=False),
            ]
        assert ways[0] == ways[1] == ways[2]
        assert [hit.chunk_id for hit in ways[0]] == oracle(db, rows[n : n + 1], 10)


def test_more_equal_vectors_than_sqlite_vec_can_give_are_still_ordered_by_id(db: Database, space: Space) -> None:
    row = unit(np.ones((1, DIM), dtype=np.float32))
    put(db, space, np.repeat(row, 4200, axis=0))
    assert found(db, space, row, 5) == [1, 2, 3, 4, 5]


def test_the_limit_to_some_chunks_holds_in_all_three_ways(db: Database, space: Space) -> None:
    rng = np.random.default_rng(5)
    rows = unit(rng.standard_normal((500, DIM)).astype(np.float32))
    put(db, space, rows)
    matrix = loaded(db, space)
    for sql, expected in (
        ("SELECT id FROM chunk WHERE id % 2", 250),
        ("SELECT id FROM chunk WHERE id > 480", 20),
        ("SELECT id FROM chunk WHERE id < 0", 0),
    ):
        among = Condition(sql, ())
        with driver.reading(db):
            ways: list[list[Hit]] = [
                vectors.nearest(db, space, rows[:1], k=30, has_vec=True, among=among, matrix=matrix),
                vectors.nearest(db, space, rows[:1], k=30, has_vec=True, among=among),
                vectors.nearest(db, space, rows[:1], k=30, has_vec=False, among=among),
            ]
            allowed = {id for (id,) in db.conn.execute(sql)}
        assert ways[0] == ways[1] == ways[2]
        assert len(ways[0]) == min(30, expected) and {hit.chunk_id for hit in ways[0]} <= allowed


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_matrix_follows_any_writes_of_its_own_and_of_other_processes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("follow") / "a.db"
    ours = schema.open_file(path, create=True)
    driver.load_vec(ours.conn)
    with driver.writing(ours):
        space = vectors.prepare_index(ours, vectors.add_space(ours, HashEmbedder(), DIM), has_vec=True)
    other = schema.open_file(path, create=False)
    driver.load_vec(other.conn)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    matrix = Matrix(limit_bytes=data.draw(st.sampled_from([0, 64 * DIM * 4, 1 << 20])))
    for _ in range(data.draw(st.integers(1, 8))):
        db = data.draw(st.sampled_from([ours, other]))
        if data.draw(st.booleans()):
            put(db, space, unit(rng.standard_normal((data.draw(st.integers(1, 40)), DIM)).astype(np.float32)))
        else:
            ids = [id for (id,) in db.conn.execute("SELECT id FROM chunk")]
            delete(db, space, [id for id in ids if rng.random() < 0.4])
        matrix.budget_s = data.draw(st.sampled_from([0.0, 1e-9, 60.0]))
        query = unit(rng.standard_normal((1, DIM)).astype(np.float32))
        assert found(ours, space, query, 7, matrix) == oracle(ours, query, 7)
    ours.close()
    other.close()


def test_loading_is_spread_over_searches_and_none_pays_for_more_than_the_last(db: Database, space: Space) -> None:
    rng = np.random.default_rng(5)
    put(db, space, unit(rng.standard_normal((5000, DIM)).astype(np.float32)))
    matrix = Matrix(limit_bytes=1 << 20)
    with driver.reading(db):
        assert not matrix.catch_up(db, space) and matrix._count == 0
        matrix.budget_s = 1e-9
        assert [matrix.catch_up(db, space) for _ in range(5)] == [False, False, False, False, True]


def test_a_store_too_large_for_memory_is_searched_without(db: Database, space: Space) -> None:
    rng = np.random.default_rng(5)
    rows = unit(rng.standard_normal((50, DIM)).astype(np.float32))
    put(db, space, rows)
    matrix = Matrix(limit_bytes=49 * DIM * 4)
    matrix.budget_s = 60.0
    with driver.reading(db):
        assert not matrix.catch_up(db, space) and not matrix.catch_up(db, space)
    delete(db, space, [50])
    with driver.reading(db):
        assert matrix.catch_up(db, space)
    assert found(db, space, rows[:1], 9, matrix) == oracle(db, rows[:1], 9)


def test_a_restored_copy_with_the_same_ids_is_noticed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Silk\n\nDragline.\n", encoding="utf-8")
    store.ingest([tmp_path / "a.md"])
    copy = upkeep.backup(store.path, tmp_path / "copy.db")
    for name, text in (("b.md", "# Bone\n\nCollagen.\n"), ("c.md", "# Wood\n\nCellulose.\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        store.ingest([tmp_path / name])
        for _ in range(3):
            assert (store.search(text)[0].vector_score or 0) > 0.9
        assert store._matrix._whole
        if name == "b.md":
            upkeep.restore(copy, store.path)


def test_another_process_adds_and_deletes_under_an_open_store(library: Store, notes: Path) -> None:
    for _ in range(3):
        library.search("silk")
    assert library._matrix._whole
    (notes / "silk.md").write_text("# Limpet\n\nTeeth of goethite.\n", encoding="utf-8")
    code = """
import sys
from pathlib import Path
from preflexor_agents.store import Store
with Store.open(sys.argv[1]) as store:
    store.ingest([Path(sys.argv[2])])
"""
    subprocess.run([sys.executable, "-c", code, str(library.path), str(notes)], check=True)
    best = library.search("goethite")[0]
    assert (best.title, best.vector_rank) == ("Limpet", 1)
    assert "Spider silk" not in {p.title for p in library.search("dragline silk of spiders", k=20)}
