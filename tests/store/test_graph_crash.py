"""The graph after failures and beside other writers: as before a change or as after it, never between."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preflexor_agents.errors import StoreError, StoreFileError
from preflexor_agents.graph.values import Abstraction, PatternStep, Run
from preflexor_agents.store import Store, driver, graph_soundness
from tests.store.checking import Failing
from tests.store.graph_facts import fact, id_of, put, quote, rows

TABLES = ("entity", "entity_name", "entity_word", "entity_merge", "relation", "evidence", "pattern", "pattern_use")

ADDER = r"""
import sys
from preflexor_agents.graph.values import Fact, Node, Quote, Run
from preflexor_agents.store import Store

path, who = sys.argv[1:]
with Store.open(path) as store:
    run = store.graph.begin(Run(kind="extract", note=who))
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(40):
        ends = {"subject": Node(name=f"shared {n % 10}"), "object": Node(name=f"{who} {n}")}
        place = (Quote(chunk_id=1, start=0, end=3 + n),)
        store.graph.add([Fact(**ends, kind="to", quotes=place)], run=run)
"""


def broken(path: Path) -> list[str]:
    """Sentences about what must hold and does not."""
    db = driver.connect(path, mode="rw")
    try:
        assert db.conn.execute("PRAGMA foreign_key_check").fetchall() == []
        return [rule for rule, sql in graph_soundness.RULES if db.conn.execute(sql).fetchone()[0]]
    finally:
        db.close()


def state(store: Store) -> list[Any]:
    return [rows(store, table) for table in TABLES]


def fail_everywhere(failing: type[Failing], store: Store, work: Callable[[], Any]) -> int:
    """Do the work again and again, each time failing one statement later, until it gets through."""
    before = state(store)
    for n in itertools.count(1):
        failing.left = n
        try:
            work()
        except StoreError as error:
            assert "injected" in str(error)
        else:
            return n - 1
        finally:
            failing.left = -1
        assert state(store) == before and broken(store.path) == []
    raise AssertionError


def test_a_failure_at_any_statement_of_adding_changes_nothing(failing: type[Failing], library: Store) -> None:
    put(library, "silk | is | strong")
    run = library.graph.begin(Run(kind="extract"))
    facts = [fact(library, said) for said in ("silk | is | strong", "nacre | is | tough", "Silk | in | webs")]
    steps = (PatternStep(source=0, kind="is", target=1),)
    shape = Abstraction(steps=steps, names=("silk", "strong"), quote=quote(library, "Spiders"))
    failures = fail_everywhere(failing, library, lambda: library.graph.add(facts, run=run, patterns=[shape]))
    assert failures > 20 and library.graph.counts().relations == 3 and broken(library.path) == []


def test_a_failure_at_any_statement_of_a_merge_changes_nothing(failing: type[Failing], library: Store) -> None:
    put(library, "silk | is | strong", "nacre | is | tough", "Silk | in | webs")
    silk, nacre = id_of(library, "silk"), id_of(library, "nacre")
    assert fail_everywhere(failing, library, lambda: library.graph.merge(silk, nacre)) > 5
    assert fail_everywhere(failing, library, lambda: library.graph.unmerge(nacre)) > 3
    assert library.graph.merges() == [] and broken(library.path) == []


def test_every_virtual_machine_step_of_taking_a_run_back_may_be_the_last(library: Store) -> None:
    """SQLite's own interrupt stops inside statements and triggers."""
    run = library.graph.begin(Run(kind="extract"))
    put(library, *(f"a {n} | to | b {n}" for n in range(8)), run=run)
    put(library, "a 1 | to | b 2")
    for gone in ("a 1", "b 2", "b 3"):
        library.graph.merge(id_of(library, "a 0"), id_of(library, gone))
    before, stopped = state(library), 0
    for steps in itertools.count(1):
        fired = iter([0] * (steps - 1) + [1])
        library._db.conn.set_progress_handler(lambda fired=fired: next(fired, 0), 60)
        try:
            library.graph.remove_run(run.id)
            break
        except StoreError:
            stopped += 1
        finally:
            library._db.conn.set_progress_handler(None, 0)
        assert state(library) == before
    assert stopped > 3 and broken(library.path) == [] and library.graph.counts().relations == 1
    assert library.graph.entity("b 2").name == "a 1"


def test_two_processes_add_to_one_graph_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Store.open(path) as store:
        store.add_finding("word " * 30, owner="x")
        command = [sys.executable, "-c", ADDER, str(path)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        writers = [subprocess.Popen([*command, who], **pipes) for who in ("left", "right")]  # type: ignore[call-overload]
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        for writer in writers:
            assert store.graph.counts().runs == 2
            writer.communicate()
            assert writer.returncode == 0
        counts = store.graph.counts()
        assert (counts.entities, counts.relations, counts.evidence) == (90, 80, 80)
    assert broken(path) == []


def test_a_graph_in_a_file_that_cannot_be_written_can_be_read(library: Store) -> None:
    put(library, "silk | is | strong")
    path = library.path
    library.close()
    path.chmod(0o400)
    with Store.open(path) as store:
        store._db.conn.execute("PRAGMA query_only = ON")
        assert store.graph.find("silk") and store.graph.whole().relations
        with pytest.raises(StoreFileError, match="read-only"):
            store.graph.merge(1, 2)


def test_a_full_disk_leaves_the_graph_as_it_was(library: Store) -> None:
    put(library, "silk | is | strong")
    before = state(library)
    pages = library._db.conn.execute("PRAGMA page_count").fetchone()[0]
    library._db.conn.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreError, match="disk is full"):
        put(library, *(f"entity number {n} | to | entity {n * n}" for n in range(3000)))
    assert state(library) == before and broken(library.path) == []


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        ("UPDATE relation SET weight = 5", "a relation's weight"),
        ("UPDATE entity SET root_id = 2 WHERE id = 1", "seen under another"),
        ("UPDATE entity_name SET uses = 9", "not used as often"),
        ('UPDATE evidence SET "end" = 99999', "outside its chunk"),
        ("INSERT INTO entity (folded) VALUES ('lone')", "the end of no relation"),
        ("INSERT INTO pattern (shape) VALUES ('[]')", "shown by no text"),
        ("UPDATE evidence SET subject_name_id = object_name_id", "does not join"),
    ],
)
def test_damage_to_the_graph_is_found(library: Store, damage: str, rule: str) -> None:
    put(library, "silk | is | strong")
    assert broken(library.path) == []
    library._db.conn.execute(damage)
    assert any(rule in each for each in broken(library.path)), json.dumps(broken(library.path))
