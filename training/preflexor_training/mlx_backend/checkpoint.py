"""Checkpoints of a learner: what was learnt, the optimizer, the random state and the step, whole or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
from mlx.utils import tree_unflatten

from preflexor_agents.errors import TrainingError
from preflexor_training.mlx_backend.trees import flat, tensors

KEPT = 2
"""Checkpoints that are kept: the last, and one before it should the last turn out to be damaged."""
WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
_NAME = "checkpoint-"


class Saved(NamedTuple):
    """What training goes on from."""

    step: int
    weights: dict[str, mx.array]
    """Trained parameters by name."""
    optimizer: dict[str, Any]
    """The optimizer's state, as a tree."""
    random: int
    """MLX's random state."""


def save(folder: Path, saved: Saved) -> None:
    """Write a checkpoint into a folder of checkpoints. Raises TrainingError if there is no room."""
    final = folder / f"{_NAME}{saved.step}"
    partial = folder / "partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        mx.save_safetensors(str(partial / WEIGHTS), saved.weights, metadata={"format": "mlx"})
        optimizer = flat(saved.optimizer)
        mx.save_safetensors(str(partial / OPTIMIZER), optimizer, metadata={"format": "mlx"})
        state = {"step": saved.step, "random": saved.random}
        (partial / STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in checkpoints(folder)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    except (OSError, RuntimeError) as e:
        shutil.rmtree(partial, ignore_errors=True)
        raise TrainingError(
            f"step {saved.step}: the checkpoint {final} cannot be written: {_line(e)}; make room and resume"
        ) from None


def load(checkpoint: Path) -> Saved:
    """Read a checkpoint. Raises TrainingError if it is damaged."""
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        weights, optimizer = tensors(checkpoint / WEIGHTS), tensors(checkpoint / OPTIMIZER)
        mx.eval(weights, optimizer)
        return Saved(int(state["step"]), weights, tree_unflatten(list(optimizer.items())), int(state["random"]))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as e:
        raise TrainingError(
            f"checkpoint {checkpoint} is damaged: {_line(e)}; remove it, and training goes on from the one before"
        ) from None


def last(folder: Path) -> Path | None:
    """The latest checkpoint in a folder of checkpoints."""
    found = checkpoints(folder)
    return found[-1] if found else None


def step_of(checkpoint: Path | None) -> int:
    """Steps done when a checkpoint was written; 0 without one."""
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix(_NAME))


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = [path for path in folder.glob(f"{_NAME}*") if path.name.removeprefix(_NAME).isdecimal()]
    return sorted(found, key=step_of)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
