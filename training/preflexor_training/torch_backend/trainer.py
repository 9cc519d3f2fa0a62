"""transformers' Trainer, fed with a plan of steps: what is trained in which order is decided before, not by a loader.

From the Trainer come accelerate (DDP, FSDP2, DeepSpeed), the optimizer and exact resume. One micro-batch is one item
of the data set, numbered through the phase; a resume skips those before it without making them. What is drawn in a
micro-batch depends on its number alone, so that it is the same in whichever process and after every resume.
"""

import math
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import Module
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer

from preflexor_agents.errors import TrainingError
from preflexor_training import failures
from preflexor_training.learner import Metrics
from preflexor_training.needs import SHOWN
from preflexor_training.scale import sharding
from preflexor_training.tokenized import Masked, MicroBatch, Step
from preflexor_training.torch_backend.adapter import save_adapter
from preflexor_training.torch_backend.collate import Tensors
from preflexor_training.torch_backend.model import check_whole, quiet
from preflexor_training.torch_backend.objective import Scored

KEPT = 2
"""Checkpoints that are kept: the last, and one before it should the last turn out to be damaged."""
MARGIN_MOST = 1e4
"""Reward margin, in nats, beyond which training has come apart; EXO aims at 5 to 11."""

Item = dict[str, Any]
"""`Tensors`, and the micro-batch's number in the phase under `number`."""


class PlannedSteps(Dataset[Item]):
    """Micro-batches by their number in the phase. Those of steps already done are counted, but not there.

    Of several processes each takes every `processes`-th. Where that does not come out even, a step is filled up with
    micro-batches that count for nothing, as all processes have to go through each forward and backward together.
    """

    def __init__(
        self, steps: Sequence[Step], *, first: int, collate: Callable[[MicroBatch], Tensors], processes: int = 1
    ) -> None:
        """Take the steps `first`, `first` + 1, … of the phase. Raises TrainingError if they differ in size."""
        self.accumulation = len(steps[0])
        odd = next((first + n for n, step in enumerate(steps) if len(step) != self.accumulation), None)
        if odd is not None:
            raise TrainingError(f"step {odd + 1} has another number of micro-batches than {self.accumulation}")
        self.first = first
        """Step that the plan begins with."""
        self.slots = math.ceil(self.accumulation / processes) * processes
        """Items of a step, those that count for nothing included."""
        self._steps, self._collate = steps, collate

    def __len__(self) -> int:
        return (self.first + len(self._steps)) * self.slots

    def __getitem__(self, number: int) -> Item:
        return {**self._collate(self.rows(number)), "number": number}

    @property
    def new_steps(self) -> int:
        """Steps that are there."""
        return len(self._steps)

    def rows(self, number: int) -> MicroBatch:
        """The rows of an item."""
        step, micro = divmod(number, self.slots)
        return self._steps[step - self.first][micro % self.accumulation]

    def weight(self, number: int) -> float:
        """What an item's loss counts in the mean over all items of a step, for the mean over its micro-batches."""
        return self.slots / self.accumulation if number % self.slots < self.accumulation else 0.0

    def step_rows(self, step: int) -> list[Masked]:
        """All rows of a step of the phase."""
        return [row for micro in self._steps[step - self.first] for row in micro]

    def seed(self, number: int, seed: int) -> int:
        """Seeds what is drawn in an item."""
        step, micro = divmod(number, self.slots)
        drawn = sha256(f"dropout\0{seed}\0{step * self.accumulation + micro % self.accumulation}".encode()).digest()
        return int.from_bytes(drawn[:8]) >> 1


@dataclass(slots=True)
class _Done:
    """A step whose numbers may still be under way from the device."""

    step: int
    shown: Tensor  # (len(SHOWN) + 2,), the gradient's norm and whether to stop at the end
    learning_rate: float
    seconds: float


@dataclass(slots=True)
class Report:
    """Where a training run tells what it does."""

    on_step: Callable[[int, Metrics], None]
    stopped: KeyboardInterrupt | None = None
    """What `on_step` raised to end the run."""
    shown: list[Tensor] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    """Of the step that is being taken."""
    done: deque[_Done] = field(default_factory=deque)
    began: float = 0.0


class Planned(Trainer):
    """Everything but the loss. `compute_loss` of a subclass puts its numbers into `report.shown`."""

    report: Report
    plan: PlannedSteps
    total_steps: int
    """Of the phase, for the learning rate's schedule."""

    def follow(self, plan: PlannedSteps, report: Report, *, total_steps: int) -> None:
        """Set what to train on and whom to tell, before `train`."""
        self.plan, self.report, self.total_steps = plan, report, total_steps
        self.train_dataset = plan
        self.remove_callback(PrinterCallback)
        if self.is_fsdp_enabled:  # shards keep the precision of the whole; autocast decides what is computed in
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = None
        self.report.began = time.perf_counter()

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Over the whole phase, whatever part of it this call trains."""
        return super().create_scheduler(self.total_steps, optimizer)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        with sharding.ties_shown(self.accelerator.unwrap_model(self.model)):
            return super()._prepare_for_training(*args, **kwargs)  # type: ignore[no-untyped-call]

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted."""
        return 0

    def training_step(self, model: Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """As the Trainer's; out of memory names the rows."""
        number = inputs.pop("number")
        self.report.numbers.append(number)
        torch.manual_seed(self.plan.seed(number, self.args.seed))
        try:
            return super().training_step(model, inputs, num_items_in_batch)
        except failures.MEMORY as e:
            failures.check_memory(e, step=self.state.global_step + 1, rows=self.plan.rows(number))
            raise

    def _maybe_log_save_evaluate(self, tr_loss: Tensor, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
        """After each step (and once more after the last, with nothing new): tell, then save if it is time."""
        if self.report.numbers:
            self._note(grad_norm, kwargs.get("learning_rate"))
        lag = 1 if self.args.device.type == "cuda" and not self.control.should_save else 0
        self._tell(lag)
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)

    def _note(self, grad_norm: Any, learning_rate: float | None) -> None:
        """Keep a step's numbers on the device; on a GPU they are read when the next step is on its way."""
        report, now = self.report, time.perf_counter()
        shown = torch.stack(report.shown)
        if self.plan.slots != self.plan.accumulation:
            shown = shown * shown.new_tensor([self.plan.weight(n) > 0 for n in report.numbers])[:, None]
        norm = torch.as_tensor(sharding.whole(grad_norm)).to(shown).reshape(1)
        stop = shown.new_tensor([float(report.stopped is not None)])
        here = torch.cat([shown[:, :-1].sum(0), shown[:, -1:].amax(0), norm, stop])
        there: Any = self.accelerator.gather(here[None])  # (processes, len(SHOWN) + 2)
        means = there[:, : len(SHOWN) - 1].sum(0) / self.plan.accumulation
        together = torch.cat([means, there[:, len(SHOWN) - 1 :].amax(0)])
        rate = self._get_learning_rate() if learning_rate is None else learning_rate
        report.done.append(_Done(self.state.global_step, together, rate, now - report.began))
        report.shown, report.numbers, report.began = [], [], now

    def _tell(self, lag: int) -> None:
        """Hand out what is known of all but the last `lag` steps. Raises TrainingError if a number is none.

        Of several processes, all have to stop after the same step: the one after that in which one was told to.
        """
        while len(self.report.done) > lag:
            done = self.report.done.popleft()
            *numbers, margin_most, grad_norm, stop = done.shown.tolist()
            rows = self.plan.step_rows(done.step - 1)
            tokens = sum(len(r.pair.prompt) + len(r.pair.chosen.ids) + len(r.pair.rejected.ids) for r in rows)
            metrics = dict(zip(SHOWN, numbers, strict=False)) | {
                "grad_norm": grad_norm,
                "lr": done.learning_rate,
                "tokens": float(tokens),
                "seconds": done.seconds,
            }
            failures.check_numbers(metrics, margin_most, step=done.step, rows=rows, limit=MARGIN_MOST)
            try:
                self.report.on_step(done.step - 1, metrics)
            except KeyboardInterrupt as e:
                self.report.stopped = e
                stop = stop or self.args.world_size == 1
            if stop:
                self.control.should_training_stop = self.control.should_save = True

    def _get_output_dir(self, trial: Any) -> str:
        """A checkpoint is written beside its place."""
        return str(Path(self.args.output_dir or ".") / "partial")

    def _save_checkpoint(self, model: Module, trial: Any) -> None:
        """Whole or not at all, and never of a step whose loss was not finite."""
        self._tell(0)
        final = Path(self.args.output_dir or ".") / f"checkpoint-{self.state.global_step}"
        partial = Path(self._get_output_dir(trial))
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                shutil.rmtree(final, ignore_errors=True)
                (partial / final.name).rename(final)
                shutil.rmtree(partial, ignore_errors=True)
                for old in checkpoints(final.parent)[:-KEPT]:
                    shutil.rmtree(old, ignore_errors=True)
        except (OSError, SafetensorError, RuntimeError) as e:
            shutil.rmtree(partial, ignore_errors=True)
            raise TrainingError(
                f"step {self.state.global_step}: the checkpoint {final} cannot be written: {failures.line(e)}; make"
                " room and resume"
            ) from None
        self.accelerator.wait_for_everyone()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """What is trained, whole, wherever parts of it lie."""
        if self.is_fsdp_enabled:
            self._save(output_dir, sharding.trained(self.accelerator.unwrap_model(self.model)))
        else:
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """The adapter alone, or the whole model if all of it is trained; no pickled arguments."""
        if not self.args.should_save or output_dir is None:
            return
        model = self.accelerator.unwrap_model(self.model)
        if isinstance(model, peft.PeftModel):
            save_adapter(model, Path(output_dir), state=state_dict)
        else:
            with quiet():
                model.save_pretrained(output_dir, state_dict=state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """The same files from sharded training as from any other, so that either goes on from the other's."""
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        sharding.save_states(
            Path(output_dir), optimizer=self.optimizer, scheduler=self.lr_scheduler, write=self.args.should_save
        )

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
        else:
            sharding.load_states(Path(checkpoint), optimizer=self.optimizer, scheduler=self.lr_scheduler)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Module | None = None) -> None:
        """A model that is sharded already has taken its weights over when it was opened."""
        if not self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """A tied head is stored once; anything else that a checkpoint lacks is an error."""
        check_whole(self.accelerator.unwrap_model(self.model), lacking=load_result.missing_keys)


class OwnTrainer(Planned):
    """Our own step."""

    loss_of: Callable[[Module, Tensors], Scored]
    """Loss of a micro-batch under the model as it is wrapped."""

    def compute_loss(
        self, model: Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss; its numbers stay on the device."""
        scored = self.loss_of(model, inputs)
        self.report.shown.append(scored.shown)
        loss = scored.loss
        if self.plan.slots != self.plan.accumulation:
            loss = loss * self.plan.weight(self.report.numbers[-1])
        return (loss, scored) if return_outputs else loss


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = [(int(path.name[11:]), path) for path in folder.glob("checkpoint-*") if path.name[11:].isdecimal()]
    return [path for _, path in sorted(found)]
