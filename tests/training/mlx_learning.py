"""A phase of two rounds in MLX, which can be killed; run in a process of its own by `killed`."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import mlx.core as mx

from preflexor_training.learner import Metrics
from preflexor_training.mlx_backend.learner import MlxLearner, open_learner
from preflexor_training.prepared import referred
from tests.training.mlx_teaching import small_recipe, steps_of

ROUNDS = 2


def learn(
    base: Path,
    folder: Path,
    changes: Sequence[str] = (),
    *,
    on_step: Callable[[int, Metrics], None] = lambda step, metrics: None,
) -> MlxLearner:
    """Go through the rounds of Phase II, from wherever the folder is."""
    recipe = small_recipe(base, *changes)
    learner = open_learner(recipe, recipe.phases[1], base, folder)
    first = 0
    for number in range(ROUNDS):
        taken = steps_of(recipe, phase=1, round_=number)
        learner.refer(referred(taken, []))
        learner.train(taken, first=first, on_step=on_step)
        first += len(taken)
    return learner


def _learn_and_die(base: Path, folder: Path, changes: Sequence[str], after: int, saving: bool) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    save = mx.save_safetensors

    def save_and_die(file: str, *rest: object, **more: object) -> None:
        """In the middle of a checkpoint: the weights are written, the optimizer is not."""
        if file.endswith("optimizer.safetensors"):
            die()
        save(file, *rest, **more)  # type: ignore[arg-type]

    def on_step(step: int, metrics: Metrics) -> None:
        if step == after and saving:
            mx.save_safetensors = save_and_die  # type: ignore[assignment]
        elif step == after:
            die()

    learn(base, folder, changes, on_step=on_step)


def killed(base: Path, folder: Path, changes: Sequence[str], *, after: int, saving: bool = False) -> int | None:
    """Run in another process, which kills itself after a step (or while it writes the checkpoint that comes next)."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_learn_and_die, args=(base, folder, list(changes), after, saving))
    process.start()
    process.join()
    return process.exitcode
