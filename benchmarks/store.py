"""Exact vector search and hybrid search of a store, beside numpy's scan (the limit) and other engines, in one run.

python benchmarks/store.py                                    10k, 100k and 1M vectors, every engine that is installed
python benchmarks/store.py --sizes 2000 --engines preflexor,numpy
python benchmarks/store.py --out docs/benchmarks/store.md     writes the page as well

Opponents, in an environment of their own beside the project: faiss-cpu duckdb pyarrow lancedb chromadb.
Every round asks each engine one query after the other, so that a busy moment hits all alike.
"""

import argparse
import hashlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from store_engines import Chroma, DuckDB, Engine, FaissFlat, LanceFlat, Numpy, Rows, SqliteVec, empty, size_bytes

from preflexor_agents.store import Store, driver, vectors, writing
from preflexor_agents.store.chunks import Chunk
from preflexor_agents.store.documents import Document

DIM, K, TOPICS = 384, 10, 2000
CHUNKS_PER_DOCUMENT = 1000
WORDS_PER_CHUNK, VOCABULARY = 40, 20_000
LONGEST_INSERT_S = 240.0
PACKAGES = ("numpy", "sqlite-vec", "duckdb", "faiss-cpu", "lancedb", "chromadb")
NEIGHBOURS = ("sqlite-vec", "DuckDB", "lancedb flat")
"""Engines that ours must be faster than at 100k."""


class Prepared:
    """An embedder for the benchmark: a query is the number of its vector."""

    spec = name = "prepared"
    dim = DIM

    def __init__(self, queries: Rows) -> None:
        self._queries = queries

    def embed(self, texts: Sequence[str]) -> Rows:
        return self._queries[[int(text.split()[0]) for text in texts]]

    def embed_query(self, text: str) -> Rows:
        return self.embed([text])


class Preflexor:
    """A store as an ingest leaves it: text, full-text index, vectors as rows and in sqlite-vec."""

    name = "preflexor"

    def __init__(self, folder: Path, queries: Rows) -> None:
        self._path = folder / "store.db"
        self._embedder = Prepared(queries)

    def insert(self, rows: Rows) -> None:
        with Store.open(self._path, embedder=self._embedder) as store:
            for start in range(0, len(rows), CHUNKS_PER_DOCUMENT):
                block = rows[start : start + CHUNKS_PER_DOCUMENT]
                document = _document(start, len(block))
                with driver.writing(store._db):
                    writing.write(store._db, document, self._embedder, dict(enumerate(block)), has_vec=store._has_vec)

    def open(self) -> None:
        self._store = Store.open(self._path, embedder=self._embedder, create=False)

    def load(self) -> float:
        """Bring the vectors into memory; seconds that it took."""
        began = time.perf_counter()
        self._store._matrix.budget_s = 1e9
        self._nearest(np.eye(1, DIM, dtype=np.float32)[0], K, in_memory=True)
        return time.perf_counter() - began

    def nearest(self, vector: npt.NDArray[np.float32], k: int) -> Sequence[int]:
        return self._nearest(vector, k, in_memory=True)

    def nearest_on_disk(self, vector: npt.NDArray[np.float32], k: int) -> Sequence[int]:
        """What the first searches of a process do, before the vectors are in memory."""
        return self._nearest(vector, k, in_memory=False)

    def _nearest(self, vector: npt.NDArray[np.float32], k: int, *, in_memory: bool) -> Sequence[int]:
        store = self._store
        with store._using(), driver.reading(store._db):
            space = vectors.space_of(store._db)
            assert space is not None
            matrix = store._matrix if in_memory else None
            hits = vectors.nearest(store._db, space, vector[None], k=k, has_vec=store._has_vec, matrix=matrix)
        return [hit.chunk_id - 1 for hit in hits]

    def hybrid(self, query: str, k: int) -> None:
        assert len(self._store.search(query, k=k)) == k

    def close(self) -> None:
        self._store.close()


@dataclass(slots=True)
class Measured:
    """One engine at one size."""

    engine: str
    insert_s: float
    open_ms: list[float] = field(default_factory=list)
    query_ms: list[float] = field(default_factory=list)
    hybrid_ms: list[float] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    size_bytes: int = 0
    note: str = ""


def made_rows(count: int, seed: int = 1) -> Rows:
    """Vectors around topic centres with a decaying spectrum inside each topic, (count, DIM), of length 1."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((TOPICS, DIM), dtype=np.float32)
    spectrum = (np.arange(1, DIM + 1, dtype=np.float32) ** -0.5) * 3
    rows = np.empty((count, DIM), dtype=np.float32)
    for start in range(0, count, 50_000):
        block = rows[start : start + 50_000]
        block[:] = rng.standard_normal(block.shape, dtype=np.float32) * spectrum
        block += centres[rng.integers(0, TOPICS, len(block))]
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return rows


def made_queries(rows: Rows, count: int) -> Rows:
    """Vectors near some of the rows, (count, DIM)."""
    rng = np.random.default_rng(7)
    near = rows[rng.integers(0, len(rows), count)] + 0.02 * rng.standard_normal((count, DIM), dtype=np.float32)
    return np.asarray(near / np.linalg.norm(near, axis=1, keepdims=True), dtype=np.float32)


def _document(start: int, count: int) -> Document:
    """A document of words that are as unevenly frequent as in a language (Zipf), one line for each chunk."""
    rng = np.random.default_rng(start)
    numbers = np.minimum(rng.zipf(1.15, (count, WORDS_PER_CHUNK)), VOCABULARY)
    lines = [" ".join(f"w{n}" for n in line) for line in numbers]
    ends = np.cumsum([len(line) + 1 for line in lines]).tolist()
    spans = [(end - len(line) - 1, end - 1) for line, end in zip(lines, ends, strict=True)]
    text = "\n".join(lines)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Document(
        source=f"made:{start}",
        title=f"Made {start}",
        sha256=digest,
        parser="made/1",
        encoding="utf-8",
        size_bytes=len(text),
        text=text,
        chunks=tuple(Chunk(start=a, end=b, body=a, context="") for a, b in spans),
    )


def hybrid_queries(count: int) -> list[str]:
    """The number of the vector, and a question of two telling words and two common ones."""
    rng = np.random.default_rng(9)
    return [
        f"{n} " + " ".join(f"w{rng.integers(*span)}" for span in ((500, 2000), (100, 500), (20, 100), (5, 20)))
        for n in range(count)
    ]


def timed(action: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1e3


def measure(makers: dict[str, Callable[[Path], Engine]], size: int, rounds: int, work: Path) -> list[Measured]:
    """All engines at one size; what would take too long to fill is left out with a note."""
    rows = made_rows(size)
    queries = made_queries(rows, rounds + 2)
    exact = [set(np.argsort(-(rows @ query), kind="stable")[:K].tolist()) for query in queries]
    ours = Preflexor(empty(work / "preflexor"), queries)
    engines: list[Engine] = [ours, *(make(empty(work / name)) for name, make in makers.items())]
    results: dict[str, Measured] = {}
    for engine in list(engines):
        print(f"  {size:,}: filling {engine.name}", file=sys.stderr)
        part = min(size, 20_000)
        began = time.perf_counter()
        if size > part and isinstance(engine, Chroma):
            Chroma(empty(work / "chromadb, a part")).insert(rows[:part])
            if (time.perf_counter() - began) * size / part > LONGEST_INSERT_S:
                results[engine.name] = Measured(engine.name, 0.0, note="left out: filling it takes too long")
                engines.remove(engine)
                continue
            began = time.perf_counter()
        engine.insert(rows)
        results[engine.name] = Measured(engine.name, time.perf_counter() - began)
    del rows
    for engine in engines:
        engine.open()
        engine.close()
        results[engine.name].open_ms = [timed(engine.open)]
        results[engine.name].size_bytes = size_bytes(work / engine.name.split(" (")[0])
    disk = results["preflexor, first searches"] = Measured("preflexor, first searches", 0.0)
    disk.note = "from disk, with sqlite-vec"
    queried = {engine.name: engine.nearest for engine in engines} | {disk.engine: ours.nearest_on_disk}
    results["preflexor"].note = f"from memory, after {ours.load():.2f} s of loading in all"
    texts = hybrid_queries(len(queries))
    for number, query in enumerate(queries):
        for name, nearest in queried.items():
            found: list[Sequence[int]] = []
            taken = timed(lambda nearest=nearest, found=found, query=query: found.append(nearest(query, K)))
            if number >= 2:
                results[name].query_ms.append(taken)
                results[name].recalls.append(len(exact[number] & set(found[0])) / K)
        taken = timed(lambda text=texts[number]: ours.hybrid(text, K))
        if number >= 2:
            results["preflexor"].hybrid_ms.append(taken)
    for engine in engines:
        engine.close()
    return list(results.values())


def table(size: int, results: Sequence[Measured]) -> list[str]:
    """Markdown lines for one size."""
    limit = next((statistics.median(m.query_ms) for m in results if m.engine.startswith("numpy")), None)
    lines = [
        f"### {size:,} vectors of {DIM} dimensions",
        "",
        "| engine | query ms | x numpy | hybrid ms | recall@10 | rows/s in | open ms | MB | |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for m in sorted(results, key=lambda m: statistics.median(m.query_ms) if m.query_ms else float("inf")):
        query = statistics.median(m.query_ms) if m.query_ms else None
        cells = [
            m.engine,
            f"{query:.2f}" if query else "",
            f"{query / limit:.2f}" if query and limit else "",
            f"{statistics.median(m.hybrid_ms):.2f}" if m.hybrid_ms else "",
            f"{statistics.mean(m.recalls):.3f}" if m.recalls else "",
            f"{size / m.insert_s:,.0f}" if m.insert_s else "",
            f"{statistics.median(m.open_ms):.0f}" if m.open_ms else "",
            f"{m.size_bytes / 1e6:.0f}" if m.size_bytes else "",
            m.note,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def contracts(size: int, results: Sequence[Measured]) -> dict[str, bool]:
    """What is promised at 100k, and whether it holds."""
    medians = {m.engine: statistics.median(m.query_ms) for m in results if m.query_ms}
    ours = next(m for m in results if m.engine == "preflexor")
    limit, query = medians.get(Numpy.name), medians["preflexor"]
    kept = {f"{size:,}: opens in under 100 ms": statistics.median(ours.open_ms) < 100}
    if limit:
        kept[f"{size:,}: exact k=10 at most 1.5 x numpy ({query / limit:.2f})"] = query <= 1.5 * limit
        hybrid = statistics.median(ours.hybrid_ms)
        kept[f"{size:,}: hybrid at most 3 x numpy ({hybrid / limit:.2f})"] = hybrid <= 3 * limit
    for name in NEIGHBOURS:
        if name in medians:
            kept[f"{size:,}: faster than {name} ({medians[name] / query:.1f} x)"] = query < medians[name]
    return kept


def growth(medians: dict[int, float]) -> list[str]:
    """How the time of a query grows: milliseconds for each 100,000 vectors."""
    said = [f"{ms / size * 100_000:.2f} ms at {size:,}" for size, ms in sorted(medians.items())]
    return [f"A query of preflexor takes, for each 100,000 vectors: {'; '.join(said)}.", ""]


def machine() -> str:
    """What the figures were measured on."""
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    where = f"{platform.machine()}, {os.cpu_count()} cores, BLAS threads {threads}, Python {platform.python_version()}"
    return f"{where}, SQLite {driver.sqlite3.sqlite_version}; {', '.join(versions)}."


def main() -> None:
    """Print the table; exit code 1 if a contract is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--engines", default="preflexor,numpy,faiss,sqlite-vec,DuckDB,lancedb,chromadb")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, help="write the tables into this Markdown file too")
    args = parser.parse_args()
    known = {kind.name: kind for kind in (Numpy, FaissFlat, SqliteVec, DuckDB, LanceFlat, Chroma)}
    chosen = {name: kind for name, kind in known.items() if name.split(" ")[0] in args.engines.split(",")}
    lines: list[str] = []
    for name in list(chosen):
        try:
            with tempfile.TemporaryDirectory() as folder:
                chosen[name](Path(folder))
        except ImportError as error:
            lines.append(f"{name} is left out: {error}")
            del chosen[name]
    kept: dict[str, bool] = {}
    medians: dict[int, float] = {}
    for size in map(int, args.sizes.split(",")):
        with tempfile.TemporaryDirectory(prefix="preflexor-bench-") as work:
            makers = {name.split(" (")[0]: kind for name, kind in chosen.items()}
            results = measure(makers, size, args.rounds, Path(work))
        lines += table(size, results)
        medians[size] = statistics.median(next(m for m in results if m.engine == "preflexor").query_ms)
        if size == 100_000:
            kept = contracts(size, results)
    lines += growth(medians)
    lines += [f"- {what}: {'kept' if holds else 'BROKEN'}" for what, holds in kept.items()]
    print("\n".join(lines))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(page(lines, args.sizes, args.engines), encoding="utf-8")
    sys.exit(not all(kept.values()))


def page(lines: Sequence[str], sizes: str, engines: str) -> str:
    """The tables as a page, with the command that made them."""
    head = [
        "# Search: how fast, beside others",
        "",
        "Exact nearest neighbours by inner product, k = 10, median of one run in which all engines answer in turn;",
        "`numpy` is a matrix in memory and the limit of any exact scan. `rows/s in` of preflexor includes text,",
        "full-text index, the vectors as rows and the sqlite-vec index. Hybrid is the whole of `Store.search`, words",
        "and vectors, without the embedding of the query.",
        "",
        "```",
        f"python benchmarks/store.py --sizes {sizes} --engines {engines} --out docs/benchmarks/store.md",
        "```",
        "",
        machine(),
        "",
    ]
    return "\n".join([*head, *lines]) + "\n"


if __name__ == "__main__":
    main()
