"""Killed at any step, between rounds or within a checkpoint, MLX ends with the weights of an undisturbed run."""

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

mx = pytest.importorskip("mlx.core", reason="needs the mlx extra")
pytest.importorskip("mlx_lm", reason="needs the mlx extra")

from preflexor_agents.backends.base import Request, complete  # noqa: E402
from preflexor_agents.config import Sampling  # noqa: E402
from preflexor_agents.errors import TrainingError  # noqa: E402
from preflexor_agents.prompts import Message  # noqa: E402
from preflexor_training.mlx_backend import checkpoint  # noqa: E402
from preflexor_training.mlx_backend.learner import MlxLearner, open_learner  # noqa: E402
from preflexor_training.mlx_backend.trees import flat  # noqa: E402
from tests.training import mlx_learning  # noqa: E402
from tests.training.mlx_teaching import small_base, small_recipe, steps_of, taught  # noqa: E402

KILLS = int(os.environ.get("PREFLEXOR_KILL_ROUNDS", "3"))
CHANGES = ("adapter.dropout=0.1", "phases.1.checkpoint_every=3", "phases.1.learning_rate=0.01")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def straight(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The weights of a run that nothing disturbed."""
    learner = mlx_learning.learn(base, tmp_path_factory.mktemp("straight"), CHANGES)
    assert learner.step == 8
    return weights(learner)


def weights(learner: MlxLearner) -> dict[str, Any]:
    return {name: value + 0 for name, value in flat(learner._ready().trainable_parameters()).items()}


def difference(a: dict[str, Any], b: dict[str, Any]) -> float:
    assert a.keys() == b.keys()
    return max(float(mx.abs(a[name] - b[name]).max().item()) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("kill", range(KILLS))
def test_a_killed_run_ends_with_the_same_weights_to_the_bit(
    base: Path, tmp_path: Path, straight: dict[str, Any], kill: int
) -> None:
    after, saving = random.Random(kill).randrange(8), kill % 3 == 2
    assert mlx_learning.killed(base, tmp_path, CHANGES, after=after, saving=saving) == -signal.SIGKILL
    resumed = mlx_learning.learn(base, tmp_path, CHANGES)
    assert resumed.step == 8
    assert difference(weights(resumed), straight) == 0.0


def test_a_round_edge_leaves_no_trace_in_the_weights(base: Path, tmp_path: Path, straight: dict[str, Any]) -> None:
    """Closed between two rounds, after a student was asked, which draws from a source of its own."""
    recipe = small_recipe(base, *CHANGES)
    first = open_learner(recipe, recipe.phases[1], base, tmp_path)
    taught(first, steps_of(recipe, phase=1))
    request = Request(messages=(Message("user", "What of it?"),), sampling=Sampling(max_tok=3), seed=3)

    async def ask() -> None:
        student = first.student()
        await complete(student, request)
        await student.aclose()

    asyncio.run(ask())
    first.close()
    mx.random.normal((5,))
    assert difference(weights(mlx_learning.learn(base, tmp_path, CHANGES)), straight) == 0.0


@pytest.mark.parametrize("lost", ["random", "optimizer"])
def test_resuming_is_no_matter_of_course(
    base: Path, tmp_path: Path, straight: dict[str, Any], monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    recipe = small_recipe(base, *CHANGES)
    taught(open_learner(recipe, recipe.phases[1], base, tmp_path), steps_of(recipe, phase=1))
    load = checkpoint.load
    begun = {"step": mx.array(0), "learning_rate": mx.array(0.0)}
    wrong = {"random": 7} if lost == "random" else {"optimizer": begun}
    monkeypatch.setattr(checkpoint, "load", lambda path: load(path)._replace(**wrong))
    assert difference(weights(mlx_learning.learn(base, tmp_path, CHANGES)), straight) > 1e-5


def test_a_stop_leaves_a_checkpoint_of_its_step(base: Path, tmp_path: Path) -> None:
    recipe = small_recipe(base, *CHANGES)
    learner, steps = open_learner(recipe, recipe.phases[1], base, tmp_path), steps_of(recipe, phase=1)

    def stop(step: int, _: object) -> None:
        if step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learner.train(steps, first=0, on_step=stop)
    again = open_learner(recipe, recipe.phases[1], base, tmp_path)
    assert (learner.step, again.step) == (2, 2)
    assert len(taught(again, steps)) == 2
    assert again.fingerprint() != learner.fingerprint()


def test_two_checkpoints_are_kept_and_no_partial_one(base: Path, tmp_path: Path) -> None:
    mlx_learning.learn(base, tmp_path, CHANGES)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["checkpoint-6", "checkpoint-8"]


def test_a_damaged_checkpoint_is_one_line_that_says_what_to_do(base: Path, tmp_path: Path) -> None:
    recipe = small_recipe(base, *CHANGES)
    taught(open_learner(recipe, recipe.phases[1], base, tmp_path), steps_of(recipe, phase=1))
    last = tmp_path / "checkpoints" / "checkpoint-4"
    os.truncate(last / "optimizer.safetensors", 100)
    with pytest.raises(TrainingError, match=r"checkpoint .*4 is damaged: .*remove it") as error:
        open_learner(recipe, recipe.phases[1], base, tmp_path)
    assert "\n" not in str(error.value)
    other = small_recipe(base, *CHANGES, "adapter.rank=8")
    with pytest.raises(TrainingError, match="another adapter"):
        (last / "optimizer.safetensors").unlink()
        (last / "optimizer.safetensors").write_bytes((last / "weights.safetensors").read_bytes())
        open_learner(other, other.phases[1], base, tmp_path)


def test_a_full_disk_leaves_the_checkpoint_before(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe(base, *CHANGES)
    learner = open_learner(recipe, recipe.phases[1], base, tmp_path)

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[save_safetensors] Failed to write")

    def on_step(step: int, _: object) -> None:
        if step == 3:
            monkeypatch.setattr(mx, "save_safetensors", full)

    with pytest.raises(TrainingError, match=r"step 4: the checkpoint .* cannot be written"):
        learner.train(steps_of(recipe, phase=1), first=0, on_step=on_step)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-3"]
