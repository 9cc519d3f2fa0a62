"""Writers that die at any moment: the store equals the state before or after a document, never between."""

import itertools
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preflexor_agents.errors import StoreError
from preflexor_agents.store import Store, driver
from tests.store.checking import Failing, assert_sound, contents

WRITER = r"""
import sys
from pathlib import Path
from preflexor_agents.store import Store

folder, path = Path(sys.argv[1]), sys.argv[2]
with Store.open(path) as store:
    store._db.conn.set_trace_callback(lambda sql: print(end=".", flush=True))
    for turn in range(1000):
        for name in ("a.md", "b.md", "c.txt"):
            text = f"# {name}\n\nturn {turn}\n\n" + f"## S {turn}\n\nsilk {name}\n\n" * 8
            (folder / name).write_text(text, encoding="utf-8")
        store.ingest([folder])
"""


def test_a_killed_writer_leaves_whole_documents(tmp_path: Path) -> None:
    rng = random.Random(7)
    (tmp_path / "docs").mkdir()
    path = tmp_path / "a.db"
    Store.open(path).close()
    command = [sys.executable, "-c", WRITER, str(tmp_path / "docs"), str(path)]
    for _ in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.read(rng.randrange(1, 1200))
            writer.kill()
        assert writer.returncode == -signal.SIGKILL
        assert_sound(path)
        assert all(row[0].startswith(str(tmp_path)) for row in contents(path))
    assert contents(path)


def state(path: Path) -> list[tuple[Any, ...]]:
    assert_sound(path)
    return contents(path)


def fail_everywhere(
    failing: type[Failing], path: Path, prepare: Callable[[], None], work: Callable[[Store], Any]
) -> tuple[int, list[list[tuple[Any, ...]]]]:
    """Do the work again and again, each time failing one statement later, until it gets through.

    Returns how many statements failed and every state that was left.
    """
    states = []
    for n in itertools.count(1):
        prepare()
        with Store.open(path) as store:
            failing.left = n
            try:
                work(store)
            except StoreError as error:
                assert "injected" in str(error)
            else:
                return n - 1, states
            finally:
                failing.left = -1
            assert store.search("silk") is not None
        states.append(state(path))
    raise AssertionError


def test_a_failure_at_any_statement_of_an_ingest_changes_nothing(failing: type[Failing], tmp_path: Path) -> None:
    path, document = tmp_path / "a.db", tmp_path / "a.md"
    document.write_text("# Silk\n\nstrong\n\n## Use\n\nrope\n", encoding="utf-8")

    def prepare() -> None:
        for file in tmp_path.glob("a.db*"):
            file.unlink()
        Store.open(path).close()

    failures, states = fail_everywhere(failing, path, prepare, lambda store: store.ingest([document]))
    assert failures > 10
    assert [n for n, left in enumerate(states) if left] == []


def test_a_failure_at_any_statement_of_a_change_keeps_the_old_document(failing: type[Failing], tmp_path: Path) -> None:
    path, document = tmp_path / "a.db", tmp_path / "a.md"

    def prepare() -> None:
        document.write_text("# Silk\n\nold\n\n## Use\n\nrope\n", encoding="utf-8")
        with Store.open(path) as store:
            store.ingest([document])
        document.write_text("# Silk\n\nnew\n\n## Use\n\nnet\n\n## More\n\nweb\n", encoding="utf-8")

    prepare()
    before = state(path)
    failures, states = fail_everywhere(failing, path, prepare, lambda store: store.ingest([document]))
    assert failures > 10 and all(left == before for left in states)
    assert {row[5] for row in state(path)} >= {"## More\n\nweb"}


def test_a_failure_at_any_statement_of_making_a_store_can_be_made_good(failing: type[Failing], tmp_path: Path) -> None:
    for n in itertools.count(1):
        path = tmp_path / f"{n}.db"
        failing.left = n
        try:
            Store.open(path).close()
        except StoreError as error:
            assert "injected" in str(error)
        else:
            break
        finally:
            failing.left = -1
        Store.open(path).close()
        assert_sound(path)
    assert n > 10


def test_an_interrupt_inside_a_transaction_rolls_it_back(library: Store) -> None:
    before = contents(library.path)
    with pytest.raises(KeyboardInterrupt), driver.writing(library._db):
        library._db.conn.execute("DELETE FROM document")
        raise KeyboardInterrupt
    assert state(library.path) == before and library.search("silk")


def test_every_virtual_machine_step_of_an_ingest_may_be_the_last(library: Store, notes: Path) -> None:
    """SQLite's own interrupt stops inside statements, in triggers and in the virtual tables."""
    (notes / "silk.md").write_text("# Spider silk\n\nchanged\n\n## Use\n\nrope\n", encoding="utf-8")
    before = contents(library.path)
    stopped = 0
    for steps in itertools.count(1):
        fired = iter([0] * (steps - 1) + [1])
        library._db.conn.set_progress_handler(lambda fired=fired: next(fired, 0), 40)
        try:
            library.ingest([notes])
            break
        except StoreError:
            stopped += 1
        finally:
            library._db.conn.set_progress_handler(None, 0)
        assert contents(library.path) == before
    assert stopped > 3
    assert_sound(library.path)
