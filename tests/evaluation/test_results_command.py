"""The command that makes the table of results: at toy size with nano, and its stopping and going on with a script."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from preflexor_agents.backends.base import Request
from preflexor_agents.evaluation.tasks import Task
from preflexor_agents.store import Store
from tests.evaluation.speaking import speak

ROOT = Path(__file__).parents[2]
PAGE = "before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n"


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "benchmarks" / "results.py"), "--work", str(folder / "work"), *arguments]
    places = {name: str(folder) for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
    environment = {**os.environ, **places, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def lines(folder: Path) -> int:
    return sum(file.read_text(encoding="utf-8").count("\n") for file in folder.rglob("results.jsonl"))


def test_nano_as_every_phase_shows_nothing_and_is_asked_once(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the pictures need the train extra")
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    small = ["--questions", "1", "--columns", "single", "--seeds", "0", "--phase1", "nano", "--phase2", "nano"]
    done = run(tmp_path, *small, "--out", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("after\n") and "\nold\n" not in text
    assert done.stdout.strip() in text and str(tmp_path) not in text
    assert "**Phase I over base, both thinking: not shown.** Separate intervals in 0 of 1 columns;" in text
    assert "**The gate: not worse than round 1.**" in text and "## At equal budgets" in text
    for name in ("accuracy", "cost", "sweeps"):
        assert f"(figures/results-{name}.svg)" in text
        assert ElementTree.parse(tmp_path / "figures" / f"results-{name}.svg").getroot().tag.endswith("svg")
    asked = lines(tmp_path / "work")
    again = run(tmp_path, *small, "--out", str(page))
    assert again.returncode == 0 and "\n0 of " in f"\n{again.stderr}" and lines(tmp_path / "work") == asked
    assert page.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--columns", "poems"], "there is no column 'poems'; there are: single"),
        (["--phase2", "none.gguf"], "none.gguf cannot be read: No such file"),
        (["--ablation", "phase2=nano"], "'phase2' is taken; give it another name"),
        (["--ablation", "nano"], "'nano' is not NAME=PATH"),
        (["--seeds", "0,x"], "'0,x' are no seeds"),
        (["--minutes", "nan"], "--minutes is nan"),
        (["--out", "none.md"], "none.md is no page with a place for results"),
    ],
)
def test_what_cannot_be_asked_is_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield SimpleNamespace(plan=import_module("results_plan"), run=import_module("results_run"))


def reply(request: Request) -> str:
    """What every model says; one that is asked to judge, criticise or merge says the same, which no run minds."""
    return "x" if request.thinking is not None else "<think>As it stands there.</think>x"


@pytest.mark.parametrize("budget_tok", [None, 60])
async def test_a_run_that_is_stopped_goes_on_and_asks_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: Any, budget_tok: int | None
) -> None:
    speak(monkeypatch, reply)
    tasks = tuple(Task(id=str(n), question=f"What is {n}?", kind="exact", answer="x", column="c") for n in range(12))
    suite = parts.plan.Suite({"c": tasks}, frozenset())
    model = tmp_path / "model.gguf"
    model.write_bytes(b"weights")
    models = [parts.run.model_of(name, model) for name in ("base", "phase1", "phase2")]
    how = parts.run.Asking(sizes=parts.plan.Sizes.of(12), seeds=(0, 1), slots=2, budget_tok=budget_tok)
    said: list[str] = []
    with Store.open(tmp_path / "store.db") as store:
        for until in (-1.0, -1.0, math.inf):
            with closing(parts.run.Bench(tmp_path / "work", models, suite, store, how)) as bench:
                before = bench.left(bench.all_entries())
                whole = await bench.ask(until=until, say=said.append)
                after = bench.left(bench.all_entries())
            assert whole == (until > 0) and (after.answers == 0) == whole
            assert after.of - after.answers > before.of - before.answers
        with closing(parts.run.Bench(tmp_path / "work", models, suite, store, how)) as bench:
            assert await bench.ask(until=math.inf, say=said.append)
            found = {entry: bench.results(entry) for entry in bench.all_entries()}
    assert all(len(results) == len({(r.task, r.seed) for r in results}) > 0 for results in found.values())
    keys = [
        line for file in (tmp_path / "work").rglob("results.jsonl") for line in file.read_text("utf-8").splitlines()
    ]
    assert len(keys) == after.of, "an answer is kept once, and one file is asked once whatever it is called"
    assert {entry.kind for entry in found} == {"draft", "loop", "equal", "sweep", "seeds"}
    limits = {r.tokens_generated <= 60 for e, rs in found.items() if e.kind == "equal" for r in rs}
    assert budget_tok is None or limits == {True}


async def test_other_passages_are_another_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: Any
) -> None:
    task = Task(id="1", question="How tough is nacre?", kind="exact", answer="x", column="c")
    suite = parts.plan.Suite({"c": (task,)}, frozenset())
    (tmp_path / "note.md").write_text("# Nacre\n\nNacre is tough.\n", encoding="utf-8")
    with Store.open(tmp_path / "store.db") as store:
        before = parts.run.shown(suite, store, {"think"})
        assert parts.run.shown(suite, store, {"think"}) == before != parts.run.shown(suite, store, {"default"})
        store.ingest([tmp_path / "note.md"])
        assert parts.run.shown(suite, store, {"think"}) != before
