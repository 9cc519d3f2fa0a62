"""Runs that are killed at random moments and go on: the log is that of an undisturbed run, nothing is paid twice."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from preflexor_training.forge.cache import CallCache
from preflexor_training.forge.run import SLOTS
from tests.training.forging import flawed, run, timeless
from tests.training.teaching import library

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("PREFLEXOR_KILL_ROUNDS", "6"))
ROWS = 24


def begin(store: Path, folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.training.forging", str(store), str(folder), str(ROWS)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def killed_after(running: "subprocess.Popen[str]", calls: int) -> list[str]:
    """The calls that had begun when it died."""
    assert running.stdout is not None
    begun = [line for _, line in zip(range(calls), running.stdout, strict=False)]
    running.send_signal(signal.SIGKILL)
    begun += running.stdout.readlines()
    running.wait()
    running.stdout.close()
    return [key.strip() for key in begun if key.endswith("\n")]


def cached(folder: Path) -> set[str]:
    if not folder.exists():
        return set()
    cache = CallCache(folder)
    cache.close()
    return set(cache)


def test_a_run_that_is_killed_again_and_again_ends_like_one_that_was_not(tmp_path: Path) -> None:
    with library(tmp_path / "store.db") as store:
        whole = run(store, tmp_path / "whole", flawed, rows=ROWS)
    assert whole.tally.kept and whole.tally.failed, "both are to be seen"
    rng = random.Random(7)
    folder, begun = tmp_path / "killed", Counter[str]()
    each = whole.spending.paid // (ROUNDS + 1)
    for _ in range(ROUNDS):
        known = cached(folder)
        calls = killed_after(begin(tmp_path / "store.db", folder), rng.randint(1, 2 * each))
        assert not known & set(calls), "a reply that was kept is never paid for again"
        assert len(set(calls) - cached(folder)) <= SLOTS, "only what was in flight is lost"
        begun.update(calls)
    last = begin(tmp_path / "store.db", folder)
    rest, _ = last.communicate()
    begun.update(rest.split())
    assert last.returncode == 0
    assert timeless(folder) == timeless(tmp_path / "whole")
    assert len(begun) == whole.spending.paid
    assert begun.total() - len(begun) <= SLOTS * ROUNDS
