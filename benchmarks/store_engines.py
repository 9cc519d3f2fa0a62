"""What `benchmarks/store.py` compares: each engine takes vectors, opens again, and finds the nearest.

Engines other than ours and numpy are imported when they are chosen; one that is not installed is left out.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
BATCH = 1000
"""Rows in one transaction or call."""


class Engine(Protocol):
    """One way to keep vectors, (n, dim), in a folder of its own and to search them. Ids are row numbers."""

    name: str

    def insert(self, rows: Rows) -> None:
        """Write all rows and close."""

    def open(self) -> None:
        """Open what was written, ready for the first query."""

    def nearest(self, vector: npt.NDArray[np.float32], k: int) -> Sequence[int]:
        """The rows with the largest product with the vector, (dim,), best first."""

    def close(self) -> None:
        """Let go of it."""


class Numpy:
    """A matrix in memory and nothing else: the limit of any exact scan."""

    name = "numpy (the limit)"

    def __init__(self, folder: Path) -> None:
        self._file = folder / "rows.npy"

    def insert(self, rows: Rows) -> None:
        np.save(self._file, rows)

    def open(self) -> None:
        self._rows = np.load(self._file)

    def nearest(self, vector: npt.NDArray[np.float32], k: int) -> Sequence[int]:
        scores = self._rows @ vector
        best = np.argpartition(scores, len(scores) - k)[len(scores) - k :]
        found: list[int] = best[np.argsort(-scores[best])].tolist()
        return found

    def close(self) -> None:
        del self._rows


class SqliteVec:
    """sqlite-vec by itself, as its manual shows it."""

    name = "sqlite-vec"

    def __init__(self, folder: Path) -> None:
        self._file = folder / "vec.db"

    def _connect(self) -> None:
        import sqlite_vec
        from sqlite_utils.utils import sqlite3

        self._db = sqlite3.connect(str(self._file))
        self._db.enable_load_extension(True)
        sqlite_vec.load(self._db)

    def insert(self, rows: Rows) -> None:
        self._connect()
        self._db.execute(f"CREATE VIRTUAL TABLE v USING vec0(id INTEGER PRIMARY KEY, vector float[{rows.shape[1]}])")
        for start in range(0, len(rows), BATCH):
            block = rows[start : start + BATCH]
            numbered = [(start + n, row.tobytes()) for n, row in enumerate(block)]
            self._db.executemany("INSERT INTO v VALUES (?, ?)", numbered)
            self._db.commit()
        self._db.close()

    def open(self) -> None:
        self._connect()

    def nearest(self, vector: npt.NDArray[np.float32], k: int) -> Sequence[int]:
        sql = "SELECT id FROM v WHERE vector MATCH ? AND k = ? ORDER BY distance"
        return [id for (id,) in self._db.execute(sql, (vector.tobytes(), k))]

    def close(self) -> None:
        self._db.close()


class DuckDB:
    """DuckDB's array functions, no index."""

    name = "DuckDB"

    def __init__(self, folder: Path) -> None:
        import duckdb

        self._duckdb = duckdb
        self._file = folder / "duck.db"

    def insert(self, rows: Rows) -> None:
        import pyarrow

        db = self._duckdb.connect(str(self._file), config={"memory_limit": "2GB"})
        db.execute(f"CREATE TABLE v (id BIGINT, vector FLOAT[{rows.shape[1]}])")
        for start in range(0, len(rows), 10 * BATCH):
            block = rows[start : start + 10 * BATCH]
            lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(block.ravel()), rows.shape[1])
            ids = pyarrow.array(np.arange(start, start + len(block)))
            part = pyarrow.table({"id": ids, "vector": lists})
            db.register("part", part)
            db.execute("INSERT INTO v SELECT id, vector FROM part")
            db.unregister("part")
        db.close()

    def open(self) -> None:
        self._db = self._duckdb.connect(str(self._file), config={"memory_limit": "2GB"})

    def nearest(self, vector: npt.NDArray[np.float32], k: int) -> Sequence[int]:
        sql = f"""SELECT id FROM v ORDER BY array_inner_product(vector, ?::FLOAT[{len(vector)}]) DESC LIMIT {k}"""
        return [id for (id,) in self._db.execute(sql, [vector.tolist()]).fetchall()]

    def close(self) -> None:
        self._db.close()


class FaissFlat:
    """faiss IndexFlatIP, in memory, saved to a file."""

    name = "faiss flat"

    def __init__(self, folder: Path) -> None:
        import faiss

        self._faiss = faiss
        self._file = folder / "flat.faiss"

    def insert(self, rows: Rows) -> None:
        index = self._faiss.IndexFlatIP(rows.shape[1])
        for start in range(0, len(rows), BATCH):
            index.add(rows[start : start + BATCH])
        self._faiss.write_index(index, str(self._file))

    def open(self) -> None:
        self._index = self._faiss.read_index(str(self._file))

    def nearest(self, vector: npt.NDArray[np.float32], k: int) -> Sequence[int]:
        found: list[int] = self._index.search(vector[None], k)[1][0].tolist()
        return found

    def close(self) -> None:
        del self._index


class LanceFlat:
    """lancedb without an index."""

    name = "lancedb flat"

    def __init__(self, folder: Path) -> None:
        import lancedb

        self._lancedb = lancedb
        self._folder = str(folder / "lance")

    def insert(self, rows: Rows) -> None:
        import pyarrow

        def table(start: int) -> Any:
            block = rows[start : start + 10 * BATCH]
            lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(block.ravel()), rows.shape[1])
            return pyarrow.table({"id": pyarrow.array(np.arange(start, start + len(block))), "vector": lists})

        made = self._lancedb.connect(self._folder).create_table("v", table(0))
        for start in range(10 * BATCH, len(rows), 10 * BATCH):
            made.add(table(start))

    def open(self) -> None:
        self._table = self._lancedb.connect(self._folder).open_table("v")

    def nearest(self, vector: npt.NDArray[np.float32], k: int) -> Sequence[int]:
        found = self._table.search(vector).distance_type("dot").select(["id", "_distance"]).limit(k).to_arrow()
        ids: list[int] = found["id"].to_pylist()
        return ids

    def close(self) -> None:
        del self._table


class Chroma:
    """chromadb as it comes: a graph index (HNSW), not exact."""

    name = "chromadb"

    def __init__(self, folder: Path) -> None:
        import chromadb

        self._chromadb = chromadb
        self._folder = str(folder / "chroma")

    def _client(self) -> Any:
        from chromadb.config import Settings

        return self._chromadb.PersistentClient(self._folder, settings=Settings(anonymized_telemetry=False))

    def insert(self, rows: Rows) -> None:
        made = self._client().create_collection("vectors", metadata={"hnsw:space": "ip"})
        for start in range(0, len(rows), BATCH):
            block = rows[start : start + BATCH]
            made.add(ids=[str(start + n) for n in range(len(block))], embeddings=block)

    def open(self) -> None:
        self._collection = self._client().get_collection("vectors")

    def nearest(self, vector: npt.NDArray[np.float32], k: int) -> Sequence[int]:
        return [int(id) for id in self._collection.query(query_embeddings=[vector], n_results=k, include=[])["ids"][0]]

    def close(self) -> None:
        del self._collection


def size_bytes(folder: Path) -> int:
    """Of all files in the folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def empty(folder: Path) -> Path:
    """A new folder of that name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
