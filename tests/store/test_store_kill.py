"""Two writers at once that are killed at any moment, again and again: no half document, and everything agrees.

`PREFLEXOR_KILL_ROUNDS=200 python -m pytest tests/store/test_store_kill.py` does it for longer.
"""

import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from preflexor_agents.store import Store, driver
from tests.store.checking import assert_sound, contents

ROUNDS = int(os.environ.get("PREFLEXOR_KILL_ROUNDS", "6"))
WRITER = r"""
import random, sys
from contextlib import suppress
from pathlib import Path
from preflexor_agents.errors import InputError
from preflexor_agents.graph.values import Fact, Node, Quote, Run
from preflexor_agents.store import Store

folder, path, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rng = random.Random(seed)
with Store.open(path) as store:
    store._db.conn.set_trace_callback(lambda sql: print(end=".", flush=True))
    run = store.graph.begin(Run(kind="extract", model="writer"))
    for turn in range(10_000):
        file = folder / f"{rng.randrange(6)}.md"
        act = rng.random()
        if act < 0.6:
            text = "".join(f"## Part {n}\n\nsilk {n} of turn {seed}-{turn}\n\n" for n in range(rng.randrange(1, 9)))
            whole = file.with_suffix(f".{seed}")
            whole.write_text(f"# Note {file.stem}\n\nturn {seed}-{turn}\n\n{text}", encoding="utf-8")
            whole.replace(file)
            store.ingest([file])
        elif act < 0.75:
            store.remove(str(file))
        else:
            found = store.search("silk", k=2)
            ends = [Node(name=f"thing {rng.randrange(8)}") for _ in range(2)]
            quotes = tuple(Quote(chunk_id=p.chunk_id, start=0, end=4) for p in found)
            store.graph.add([Fact(subject=ends[0], kind="is", object=ends[1], quotes=quotes)], run=run)
            things = [e for n in range(8) for e in store.graph.find(f"thing {n}", k=1)]
            if len({e.id for e in things}) > 1 and act > 0.9:
                keep, gone = rng.sample(sorted({e.id for e in things}), 2)
                with suppress(InputError):  # the other writer has taken one of them away, or merged them
                    store.graph.merge(keep, gone)
"""


@pytest.mark.slow
def test_two_writers_that_are_killed_leave_whole_documents_and_indexes_that_agree(tmp_path: Path) -> None:
    rng = random.Random(11)
    docs, path = tmp_path / "docs", tmp_path / "a.db"
    docs.mkdir()
    Store.open(path).close()
    written = 0
    for turn in range(ROUNDS):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(docs), str(path), str(2 * turn + n)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for n in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.read(rng.randrange(1, 3000))
            writer.kill()
        for writer in writers:
            _, said = writer.communicate()
            assert writer.returncode == -signal.SIGKILL, said.decode()
        assert_sound(path)
        assert_whole(path)
        written += len(contents(path))
    assert written > 0


def assert_whole(path: Path) -> None:
    """Every document is of one turn from its beginning to its end."""
    db = driver.connect(path, mode="rw")
    with driver.closing(db, path):
        sql = """SELECT d.text, group_concat(c.text, '|')
                 FROM document d JOIN chunk c ON c.document_id = d.id GROUP BY d.id"""
        rows = db.conn.execute(sql).fetchall()
    for text, chunks in rows:
        turns = set(re.findall(r"turn (\d+-\d+)", text))
        assert len(turns) == 1
        assert set(re.findall(r"turn (\d+-\d+)", chunks)) == turns
