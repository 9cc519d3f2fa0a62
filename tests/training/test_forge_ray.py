"""The same rows from a Ray cluster of several processes as from one."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from preflexor_agents.cli.main import cli
from preflexor_agents.errors import DiskError, InputError, PreflexorError
from preflexor_agents.store import Store
from preflexor_training.forge import ray_job
from preflexor_training.forge.calls import BackendGone
from preflexor_training.forge.making import QuestionGate
from preflexor_training.forge.opening import Order, opened
from preflexor_training.forge.run import forge
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Dropped
from tests.training.forging import rows_of, timeless
from tests.training.served import Served
from tests.training.teaching import LIBRARY

PROGRAM = """
import sys
from pathlib import Path
import ray
from preflexor_training.forge.opening import Order
from preflexor_training.forge.ray_job import forge_on_ray
from preflexor_training.forge.settings import ForgeSettings

if __name__ == "__main__":
    spec, store, folder, rows = sys.argv[1:]
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    report = forge_on_ray(
        Order(
            settings=ForgeSettings(rows=int(rows)),
            folder=Path(folder),
            store=store,
            models=dict.fromkeys(("teacher", "student", "judge"), spec),
            slots=2,
        )
    )
    print(report.stopped, report.spending.paid)
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """Few passages, so that some questions come again."""
    path = tmp_path / "store.db"
    with Store.open(path, embedder="hash") as opened:
        opened.ingest(sorted(LIBRARY.glob("*.md"))[:3])
    yield path


def run(spec: str, store: Path, folder: Path, rows: int) -> None:
    order = Order(
        settings=ForgeSettings(rows=rows),
        folder=folder,
        store=str(store),
        models=dict.fromkeys(("teacher", "student", "judge"), spec),
    )

    async def made() -> None:
        async with opened(order) as work:
            await forge(work)

    asyncio.run(made())


def test_two_workers_go_on_with_a_run_and_make_the_rows_that_one_process_makes(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the ray extra is not installed")
    with Served() as server:
        run(server.spec, store, tmp_path / "one", 16)
        run(server.spec, store, tmp_path / "two", 3)
        made = server.answered
        words = [sys.executable, "-c", PROGRAM, server.spec, str(store), str(tmp_path / "two"), "16"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 0, done.stderr[-3000:]
        paid = server.answered - made
    assert timeless(tmp_path / "two") == timeless(tmp_path / "one")
    assert any(row.reason.startswith("duplicate") for row in rows_of(tmp_path / "two")[4:])
    assert done.stdout.split() == ["rows", str(paid)]
    assert len(list((tmp_path / "two").glob("calls-*.jsonl"))) == 2, "each worker keeps its replies"


async def test_the_gate_of_a_cluster_says_the_same_of_a_row_that_is_made_anew() -> None:
    gate = ray_job.Gate([(0, "How tough is the shell of an abalone?"), (1, "")])
    assert await gate.passing(2, "How dense is the wood of balsa trees?") is None
    refused = await gate.passing(3, "How tough is the shell of an abalone?")
    assert refused is not None and refused[0] == "duplicate" and "row 0" in refused[1]
    assert await gate.passing(2, "How dense is the wood of balsa trees?") is None
    assert await gate.passing(3, "How tough is the shell of an abalone?") == refused


async def test_a_question_waits_for_all_rows_before_it() -> None:
    gate = QuestionGate()
    later = asyncio.create_task(gate(2, "How dense is the wood of balsa trees?"))
    gate.leave(1)
    await asyncio.sleep(0)
    assert not later.done()
    await gate(0, "How dense is the wood of balsa trees?")
    with pytest.raises(Dropped, match="row 0 asks nearly the same"):
        await later


def test_what_cannot_be_opened_is_said_before_a_cluster_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    words = ["forge", "run", "--ray", "--store", "bundled", "--teacher", "what:ever", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 2 and "'what:ever' names no model" in done.stderr


@pytest.mark.parametrize("error", [BackendGone("nano is gone"), InputError("no such file"), DiskError("full")])
def test_what_ends_a_workers_part_means_the_same_here(error: PreflexorError) -> None:
    found = ray_job._error([type(error).__name__, str(error), error.exit_code])
    assert str(found) == str(error) and found is not None and found.exit_code == error.exit_code
    assert isinstance(found, BackendGone) == isinstance(error, BackendGone)


def test_without_ray_the_command_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["forge", "run", "--ray", "--store", "bundled", "--rows", "1", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, words)
    assert (
        done.exit_code == 2 and "Ray is not installed; install it: pip install 'preflexor-agents[ray]'" in done.stderr
    )
