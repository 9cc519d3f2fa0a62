"""What the rounds need of a trainer, in torch or in MLX: one model that is taught, and its own checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from preflexor_agents.backends.base import Backend
from preflexor_training.tokenized import Masked, Step

Metrics = Mapping[str, float]
"""Numbers of one optimizer step: loss, nll, margin (chosen over rejected reward, nats), accuracy, reward_chosen,
reward_rejected, logp_chosen, logp_rejected, grad_norm, lr, tokens (prompt and replies), seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the model makes of pairs that it does not train on."""

    loss: float
    margins: tuple[float, ...]
    """Reward margin of each pair, nats; a pair counts as right if it is positive."""


class Learner(Protocol):
    """The model of one phase. Opened by a backend package; everything it needs to go on after a kill is in its folder.

    A learner owns `folder` (checkpoints, adapter); it writes nothing elsewhere but where it is told to.
    """

    @property
    def step(self) -> int:
        """Optimizer steps done in this phase, those before a resume included."""

    def refer(self, rows: Sequence[Masked]) -> None:
        """Make sure that the reference's per-token log-probs of these rows are at hand (nothing to do for ORPO)."""

    def train(self, steps: Sequence[Step], *, first: int, on_step: Callable[[int, Metrics], None]) -> None:
        """Take the optimizer steps `first`, `first` + 1, … of the phase; those already done are skipped.

        Calls `on_step(step, metrics)` after each; a KeyboardInterrupt that it raises is let through after a checkpoint
        of that step has been written. A checkpoint is also written as the recipe says, and at the end.
        Raises TrainingError: the loss is not finite, memory ran out; names the step and the rows.
        """

    def evaluate(self, rows: Sequence[Masked]) -> Held:
        """Loss and margins, without learning."""

    def student(self) -> Backend:
        """The model as it is at the moment, as a backend that can be asked; not while `train` runs."""

    def save_adapter(self, folder: Path) -> None:
        """Write what was learnt as a PEFT adapter (or the whole model, if all of it was trained)."""

    def load_adapter(self, folder: Path) -> None:
        """Take over the weights that `save_adapter` wrote, to be asked or merged; no training goes on from them."""

    def merge(self, folder: Path) -> None:
        """Write base and adapter as one Hugging Face folder; tied embeddings stay tied."""

    def fingerprint(self) -> str:
        """SHA-256 of the weights as they are at the moment, adapter included."""

    def close(self) -> None:
        """Let the model go. Idempotent."""
