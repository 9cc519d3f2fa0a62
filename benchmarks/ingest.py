"""How fast documents get into a store, and how much memory it takes. The contract is at least 2,000 chunks a
second after parsing, in under 400 MB.

By default a textbook in Markdown and articles in JATS XML beside the repository; name other files and folders to take
those. The embedder is `hash`, so that the figures are about reading, cutting, indexing and writing.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from preflexor_agents.store import Store, ingest
from preflexor_agents.store.documents import Document, File, Reader

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CORPORA = (DATA / "corpus-openstax-biology-md", DATA / "corpus-plos-jats")
LEAST_CHUNKS_PER_S, MOST_RSS_MB = 2000, 400
RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


class Timed(Reader):
    """Knows how long it parsed."""

    seconds = 0.0

    def parse(self, file: File) -> Document:
        began = time.perf_counter()
        try:
            return super().parse(file)
        finally:
            Timed.seconds += time.perf_counter() - began


def main() -> None:
    """Ingest into a new store, then once more with nothing to do."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, default=list(CORPORA), help="files and folders")
    paths = [path for path in parser.parse_args().paths if path.exists()]
    if not paths:
        print("nothing to ingest: the corpora are not beside the repository; name files or folders")
        return
    ingest.Reader = Timed  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "bench.db", embedder="hash") as store:
        cpu = time.process_time()
        first = store.ingest(paths)
        cpu = time.process_time() - cpu
        again = store.ingest(paths)
        stats = store.stats()
    writing_s = first.seconds - Timed.seconds
    peak_mb, child_mb = (
        resource.getrusage(who).ru_maxrss * RSS_UNIT_BYTES / 1e6
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    per_s = first.chunks / writing_s
    rows = (
        ("documents", f"{stats.documents}", f"{len(first.failed)} failed"),
        ("characters", f"{stats.characters}", f"file of {stats.size_bytes / 1e6:.1f} MB"),
        ("chunks", f"{first.chunks}", ""),
        ("parsing", f"{Timed.seconds:.2f} s", ""),
        ("the rest", f"{writing_s:.2f} s", f"processor time of this process, all in all: {cpu:.2f} s"),
        ("chunks/s after parsing", f"{per_s:.0f}", f"at least {LEAST_CHUNKS_PER_S}"),
        ("peak memory", f"{peak_mb:.0f} MB", f"under {MOST_RSS_MB} MB; the parsing process {child_mb:.0f} MB"),
        ("nothing to do", f"{again.seconds:.2f} s", f"{again.unchanged} unchanged"),
    )
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")
    for name, value, note in rows:
        print(f"{name:24} {value:>12}   {note}")
    kept = per_s >= LEAST_CHUNKS_PER_S and peak_mb < MOST_RSS_MB
    print(f"contract: {'kept' if kept else 'BROKEN'}")
    sys.exit(not kept)


if __name__ == "__main__":
    main()
