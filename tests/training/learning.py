"""A phase of two rounds on real pairs, which can be killed; run in a process of its own by `killed`."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from preflexor_agents.backends.base import Completion, Request, complete
from preflexor_agents.config import Sampling
from preflexor_agents.prompts import Message
from preflexor_training.batches import plan
from preflexor_training.learner import Metrics
from preflexor_training.recipes import Recipe
from preflexor_training.tokenized import Step
from preflexor_training.torch_backend.learner import TorchLearner, open_learner
from tests.training import stories

ROUNDS, EACH = 2, 8
"""Rounds, and rows of one."""


def steps(recipe: Recipe, number: int, *, round: int) -> tuple[Step, ...]:
    """Of a round of the phase."""
    phase = recipe.phases[number]
    found = stories.rows(recipe, stories.pairs(ROUNDS * EACH)[round * EACH : (round + 1) * EACH], phase=number)
    return plan(
        [row.pair for row in found],
        [],
        phase=phase,
        mask=recipe.mask(phase),
        round=round,
        seed=recipe.seed,
        bucket_batches=recipe.step.bucket_batches,
    )


def rows_of(steps: Sequence[Step]) -> list[stories.Masked]:
    """All of them."""
    return [row for step in steps for micro in step for row in micro]


def learn(
    base: Path,
    folder: Path,
    changes: Sequence[str] = (),
    *,
    phase: int = 1,
    on_step: Callable[[int, Metrics], None] = lambda step, metrics: None,
) -> TorchLearner:
    """Go through the rounds, from wherever the folder is."""
    torch.set_num_threads(1)
    recipe = stories.recipe(base, *changes)
    learner = open_learner(recipe, recipe.phases[phase], base, folder)
    first = 0
    for number in range(ROUNDS):
        taken = steps(recipe, phase, round=number)
        learner.refer(rows_of(taken))
        learner.train(taken, first=first, on_step=on_step)
        first += len(taken)
    return learner


def _learn_and_die(base: Path, folder: Path, changes: Sequence[str], phase: int, after: int, saving: bool) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def on_step(step: int, metrics: Metrics) -> None:
        if step == after and saving:
            # In the middle of the next checkpoint: the weights are written, the optimizer is not.
            from preflexor_training.torch_backend.trainer import Planned

            Planned._save_optimizer_and_scheduler = lambda *_: die()  # type: ignore[method-assign]
        elif step == after:
            die()

    learn(base, folder, changes, phase=phase, on_step=on_step)


def killed(
    base: Path, folder: Path, changes: Sequence[str], *, phase: int, after: int, saving: bool = False
) -> int | None:
    """Run in another process, which kills itself after a step (or while it writes the checkpoint that comes next)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.learning"])
    process = context.Process(target=_learn_and_die, args=(base, folder, list(changes), phase, after, saving))
    process.start()
    process.join()
    return process.exitcode


async def ask(student: Any, *questions: str, seed: int = 0, **values: Any) -> list[Completion]:
    """Ask a student all questions at once, and let it go."""
    requests = [
        Request(messages=(Message("user", text),), sampling=Sampling(max_tok=12, **values), seed=seed + n)
        for n, text in enumerate(questions)
    ]
    try:
        return list(await asyncio.gather(*(complete(student, request) for request in requests)))
    finally:
        await student.aclose()
