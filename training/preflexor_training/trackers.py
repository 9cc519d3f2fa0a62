"""Sends a run's numbers to TensorBoard or Weights & Biases, for those who watch their runs there."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from preflexor_agents.errors import InputError

Kind = Literal["tensorboard", "wandb"]
KINDS: tuple[Kind, ...] = ("tensorboard", "wandb")


class Tracker(Protocol):
    """Takes the lines of metrics.jsonl as they are written."""

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Take one."""


@contextmanager
def tracking(kinds: tuple[Kind, ...], *, folder: Path, config: Mapping[str, Any]) -> Iterator[Tracker]:
    """What passes each line on to all of them.

    Args:
        kinds: which; none is fine.
        folder: of the run; TensorBoard's files go into `tensorboard/` in it.
        config: the recipe, shown beside the curves.

    Raises:
        InputError: a library is missing.
    """
    trackers: list[_TensorBoard | _WandB] = [_OPENED[kind](folder, config) for kind in dict.fromkeys(kinds)]

    def track(line: Mapping[str, Any]) -> None:
        step = int(line["step"])
        numbers = {k: float(v) for k, v in line.items() if isinstance(v, int | float) and k not in ("step", "t_s")}
        for tracker in trackers:
            tracker.add(step, numbers)

    try:
        yield track
    finally:
        for tracker in trackers:
            tracker.close()


class _TensorBoard:
    """Writes event files; needs no torch."""

    def __init__(self, folder: Path, _: Mapping[str, Any]) -> None:
        try:
            self._event = import_module("tensorboard.compat.proto.event_pb2").Event
            self._summary = import_module("tensorboard.compat.proto.summary_pb2").Summary
            writer = import_module("tensorboard.summary.writer.event_file_writer").EventFileWriter
        except ImportError:
            raise InputError(
                "TensorBoard is missing; get it with: pip install 'preflexor-agents[tensorboard]'"
            ) from None
        self._writer = writer(str(folder / "tensorboard"))

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        event = self._event(wall_time=time.time(), step=step, summary=self._summary(value=values))
        self._writer.add_event(event)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """Logs to the account of the machine, or offline with WANDB_MODE=offline."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            wandb = import_module("wandb")
        except ImportError:
            raise InputError(
                "Weights & Biases is missing; get it with: pip install 'preflexor-agents[wandb]'"
            ) from None
        self._run = wandb.init(
            project="preflexor", name=folder.name, dir=str(folder), config=dict(config), resume="allow"
        )

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


_OPENED: dict[Kind, type[_TensorBoard | _WandB]] = {"tensorboard": _TensorBoard, "wandb": _WandB}
