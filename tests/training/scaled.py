"""Training in several processes, to be compared with one: `python -m torch.distributed.run … tests/training/scaled.py`.

Its argument is a file of cases, which are trained one after the other. accelerate shards models (FSDP2) on GPUs only;
here it is told that there are some, and everything below it, torch's fully_shard over gloo, is the real thing.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from preflexor_training.learner import Learner, Metrics
from preflexor_training.phases import OpenLearner
from preflexor_training.scale import crew, learner
from preflexor_training.scale.launching import config_file
from preflexor_training.tokenized import Masked, Reference
from preflexor_training.torch_backend import learner as learners
from preflexor_training.torch_backend.learner import TorchLearner
from preflexor_training.torch_backend.trainer import Planned
from tests.training import learning, stories

EACH, HELD = learning.EACH, 4
"""Rows of a round, and rows that are not trained on."""
BATCH_TOK = 300
"""Few rows in a group, so that there are references for each process."""


@dataclass(frozen=True, slots=True)
class Case:
    """What to train, and how; `learning.steps` has the rows of the rounds."""

    name: str
    base: str
    folder: str
    changes: tuple[str, ...]
    phase: int
    sharded: bool
    rounds: tuple[int, ...]
    """Those to train; each with a learner that is opened anew, so that it goes on from a checkpoint."""


def take(case: Case, open_learner: OpenLearner) -> None:
    """Train a case and leave its steps' numbers, what held-out rows look like afterwards, and its weights."""
    recipe = stories.recipe(Path(case.base), *case.changes)
    folder = Path(case.folder)
    for number in case.rounds:
        told: list[dict[str, float]] = []
        opened = open_learner(recipe, recipe.phases[case.phase], Path(case.base), folder)
        _round(opened, case, number, lambda _, metrics, told=told: told.append(dict(metrics)))
        held = opened.evaluate(stories.rows(recipe, stories.pairs(20 + HELD)[20:], phase=case.phase))
        opened.save_adapter(folder / f"after-{number}")
        opened.close()
        (folder / f"{number}.json").write_text(json.dumps({"told": told, "held": asdict(held)}), encoding="utf-8")


def _round(opened: Learner, case: Case, number: int, on_step: Callable[[int, Metrics], None]) -> None:
    recipe = stories.recipe(Path(case.base), *case.changes)
    taken = [learning.steps(recipe, case.phase, round=n) for n in range(number + 1)]
    opened.refer(learning.rows_of(taken[-1]))
    opened.train(taken[-1], first=sum(map(len, taken[:-1])), on_step=on_step)


def shard() -> None:
    """Set what `accelerate launch` sets for the configuration fsdp2, and let accelerate take CPUs for GPUs."""
    import yaml

    asked: dict[str, Any] = yaml.safe_load(config_file("fsdp2").read_text(encoding="utf-8"))["fsdp_config"]
    os.environ |= {key.upper(): str(value) for key, value in asked.items()}
    plain: Any = AcceleratorState.__init__

    def init(self: AcceleratorState, *args: Any, **kwargs: Any) -> None:
        PartialState(cpu=True)
        if os.environ.get("ACCELERATE_USE_FSDP") == "true":
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
            kwargs["cpu"] = False
        plain(self, *args, **kwargs)

    AcceleratorState.__init__ = init


def watch(folder: Path) -> None:
    """Write down what each process did: how many references it computed, and whether its parameters were shards."""
    refer, step = TorchLearner._refer_group, Planned.training_step

    def note(kind: str, value: object) -> None:
        with (folder / f"process-{crew.rank()}.txt").open("a", encoding="utf-8") as file:
            file.write(f"{kind} {value}\n")

    def refer_group(self: TorchLearner, rows: list[Masked]) -> list[Reference]:
        note("referred", len(rows))
        return refer(self, rows)

    def training_step(self: Planned, model: Any, *args: Any, **kwargs: Any) -> Any:
        note("shards", any(isinstance(p, DTensor) for p in model.parameters()))
        return step(self, model, *args, **kwargs)

    TorchLearner._refer_group = refer_group  # type: ignore[assignment, method-assign]
    Planned.training_step = training_step  # type: ignore[method-assign]


def main() -> None:
    """Be one of the processes."""
    file = Path(sys.argv[1])
    cases = [Case(**case) for case in json.loads(file.read_text(encoding="utf-8"))]
    sharded = {case.folder: case.sharded for case in cases}
    open_one = learner.open_learner

    def open_learner(recipe: Any, phase: Any, base: Path, folder: Path) -> TorchLearner:
        os.environ["ACCELERATE_USE_FSDP"] = str(sharded[str(folder)]).lower()
        folder.mkdir(parents=True, exist_ok=True)
        return open_one(recipe, phase, base, folder)

    learner.open_learner = open_learner
    learners.BATCH_TOK = BATCH_TOK
    shard()
    watch(file.parent)
    if crew.rank():
        with crew.following() as found:
            learner.follow(found)
        return
    with crew.leading(lambda line: sys.stderr.write(f"{line}\n")) as found:
        for case in cases:
            take(case, learner.opener(found))


if __name__ == "__main__":
    main()
