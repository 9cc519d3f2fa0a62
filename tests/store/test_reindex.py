"""Changing a store's embedder: old vectors answer until the new are complete, whatever happens meanwhile."""

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from preflexor_agents.errors import BackendError, StoreError
from preflexor_agents.store import ReindexProgress, Store, driver, upkeep, vectors
from preflexor_agents.store.embedders import HashEmbedder, Vectors


class Turned(HashEmbedder):
    """The hash embedder with its numbers in another order: another space in which the same is near."""

    def __init__(self, name: str = "turned", dim: int = 64) -> None:
        self.name = self.spec = name  # type: ignore[misc]
        self.dim = dim  # type: ignore[misc]
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.texts += texts
        rows = super().embed(texts)[:, ::-1][:, : self.dim]
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), dtype=np.float32)


class Killed(Turned):
    """Fails at its n-th call."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.calls -= 1
        if self.calls < 0:
            raise BackendError("the model is gone")
        return super().embed(texts)


@pytest.fixture
def many(store: Store, tmp_path: Path) -> Store:
    """A store of a hundred chunks."""
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(100):
        (folder / f"{n}.md").write_text(f"# Sample {n}\n\nAlloy {n} has hardness {n * 7}.\n", encoding="utf-8")
    store.ingest([folder])
    return store


def spaces(store: Store) -> list[tuple[str, bool]]:
    return [(space.name, space.complete) for space in vectors.spaces(store._db)]


def test_a_store_searches_with_the_new_embedder_and_forgets_the_old(many: Store) -> None:
    seen: list[ReindexProgress] = []
    done = many.reindex(Turned(), progress=seen.append)
    assert (done.embedder, done.dim, done.embedded) == ("turned", 64, 100)
    assert (seen[0].chunks_done, seen[-1].chunks_done, seen[-1].chunks_total) == (32, 100, 100)
    assert spaces(many) == [("turned", True)] and many.stats().embedder == "turned"
    assert many.search("hardness of alloy 42")[0].title == "Sample 42"
    assert upkeep.check(many.path) == []


def test_the_old_vectors_answer_while_the_new_are_made(many: Store) -> None:
    before = many.search("hardness of alloy 42")
    during: list[bool] = []

    def look(seen: ReindexProgress) -> None:
        with Store.open(many.path) as other:
            during.append(many.search("hardness of alloy 42") == before == other.search("hardness of alloy 42"))

    many.reindex(Turned(), progress=look)
    assert during == [True] * 4


def test_the_new_vectors_are_those_of_an_ingest_with_the_new_embedder(many: Store, tmp_path: Path) -> None:
    many.reindex(Turned())
    with Store.open(tmp_path / "fresh.db", embedder=Turned()) as fresh:
        fresh.ingest([tmp_path / "many"])
        sql = "SELECT c.text, e.vector FROM chunk c JOIN embedding e ON e.chunk_id = c.id ORDER BY c.text"
        assert many._db.conn.execute(sql).fetchall() == fresh._db.conn.execute(sql).fetchall()


def test_after_an_interruption_only_the_rest_is_embedded(many: Store) -> None:
    with pytest.raises(BackendError):
        many.reindex(Killed(calls=2))
    assert spaces(many) == [("hash/1", True), ("turned", False)]
    assert many.search("hardness of alloy 42")[0].title == "Sample 42" and upkeep.check(many.path) == []
    again = Turned()
    assert many.reindex(again).embedded == 36 and len(again.texts) == 36
    assert upkeep.check(many.path) == []


def test_what_is_ingested_and_deleted_meanwhile_is_in_the_new_space(many: Store, tmp_path: Path) -> None:
    (tmp_path / "new.md").write_text("# Limpet\n\nTeeth of goethite.\n", encoding="utf-8")
    with Store.open(many.path) as other:

        def meddle(seen: ReindexProgress) -> None:
            if seen.chunks_done == 64:
                other.ingest([tmp_path / "new.md"])
                assert other.search("goethite")[0].vector_rank == 1
            if seen.chunks_done == 96:
                (tmp_path / "many" / "3.md").write_text("# Sample 3\n\nChanged to tin.\n", encoding="utf-8")
                other.ingest([tmp_path / "many"])

        many.reindex(Turned(), progress=meddle)
        assert many.search("goethite")[0].vector_rank == 1 and upkeep.check(many.path) == []


def test_an_open_store_follows_the_switch_of_another(many: Store) -> None:
    embedder = Turned()
    with Store.open(many.path) as other, pytest.MonkeyPatch.context() as patch:
        assert other.search("alloy 42")[0].title == "Sample 42"
        patch.setattr("preflexor_agents.store.store.open_embedder", lambda spec: embedder)
        many.reindex(Turned())
        assert other.search("hardness of alloy 42")[0].title == "Sample 42" and embedder.texts == [
            "hardness of alloy 42"
        ]


def test_a_document_in_the_works_at_the_switch_is_embedded_again(
    many: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Switching(HashEmbedder):
        def embed(self, texts: Sequence[str]) -> Vectors:
            if many.stats().embedder == "hash/1":
                many.reindex(Turned())
            return super().embed(texts)

    (tmp_path / "new.md").write_text("# Limpet\n\nTeeth of goethite.\n", encoding="utf-8")
    monkeypatch.setattr("preflexor_agents.store.store.open_embedder", lambda spec: Turned())
    with Store.open(many.path, embedder=Switching()) as other:
        assert other.ingest([tmp_path / "new.md"]).added == 1
        assert other.search("goethite")[0].vector_rank == 1
    assert upkeep.check(many.path) == []


def test_the_same_embedder_has_nothing_to_do(many: Store) -> None:
    assert many.reindex("hash").embedded == 0
    assert spaces(many) == [("hash/1", True)]


def test_an_empty_store_takes_the_embedder(store: Store, notes: Path) -> None:
    assert store.reindex(Turned()).embedded == 0
    assert store.ingest([notes]).added == 3 and spaces(store) == [("turned", True)]


def test_there_and_back_again_is_as_before(many: Store) -> None:
    before = many.search("hardness of alloy 42")
    many.reindex(Turned())
    many.reindex("hash")
    assert many.search("hardness of alloy 42") == before and upkeep.check(many.path) == []


def test_another_target_drops_what_was_begun(many: Store) -> None:
    with pytest.raises(BackendError):
        many.reindex(Killed(calls=2))
    many.reindex(Turned("third", dim=32))
    assert spaces(many) == [("third", True)] and upkeep.check(many.path) == []


def test_one_of_two_with_different_targets_gives_up(many: Store) -> None:
    with Store.open(many.path) as other:

        def meddle(seen: ReindexProgress) -> None:
            if seen.chunks_done == 32:
                other.reindex(Turned("other"))

        with pytest.raises(StoreError, match="another process gave the store another embedder"):
            many.reindex(Turned(), progress=meddle)
    assert spaces(many) == [("other", True)] and upkeep.check(many.path) == []


def test_two_with_the_same_target_share_the_work(many: Store) -> None:
    with Store.open(many.path) as other:

        def meddle(seen: ReindexProgress) -> None:
            if seen.chunks_done == 64:
                other.reindex(Turned())

        many.reindex(Turned(), progress=meddle)
    assert spaces(many) == [("turned", True)] and upkeep.check(many.path) == []


def test_a_failure_at_any_statement_leaves_a_store_that_goes_on(library: Store, failing: type) -> None:
    path = library.path
    for left in range(1, 400):
        with Store.open(path) as store:
            target = "hash" if store.stats().embedder == "turned" else Turned()
            failing.left = left
            with contextlib.suppress(StoreError):
                store.reindex(target)
            finished = failing.left > 0
            failing.left = -1
        assert upkeep.check(path) == []
        if finished:
            break
    else:
        pytest.fail("reindex did not end")
    with Store.open(path, embedder=Turned() if target != "hash" else "hash") as store:
        assert store.search("dragline silk")[0].title == "Spider silk"


def test_without_sqlite_vec_the_switch_works_and_the_index_is_built_later(
    many: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(driver, "load_vec", lambda conn: False)
        with Store.open(many.path) as bare:
            bare.reindex(Turned())
            assert bare.search("hardness of alloy 42")[0].title == "Sample 42"
    with Store.open(many.path, embedder=Turned()) as store:
        assert store.reindex(store._opened_embedder()).embedded == 0
        assert spaces(store) == [("turned", True)]
    assert upkeep.check(many.path) == []


def test_a_reindex_killed_at_once_goes_on_in_another_process(many: Store, tmp_path: Path) -> None:
    code = """
import os, sys
from preflexor_agents.store import Store
from tests.store.test_reindex import Turned
with Store.open(sys.argv[1]) as store:
    store.reindex(Turned(), progress=lambda seen: seen.chunks_done >= 64 and os.kill(os.getpid(), 9))
"""
    done = subprocess.run([sys.executable, "-c", code, str(many.path)], check=False)
    assert done.returncode == -9
    assert many.search("hardness of alloy 42")[0].title == "Sample 42"
    assert many.reindex(Turned()).embedded == 36 and upkeep.check(many.path) == []
