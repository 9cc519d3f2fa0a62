"""The optimizer's steps: gradients of the micro-batches added up, clipped, and given to AdamW, as torch does it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import mlx.core as mx
from mlx.nn.utils import value_and_grad
from mlx.optimizers import AdamW, clip_grad_norm
from mlx.utils import tree_map

from preflexor_training import failures
from preflexor_training.learner import Metrics
from preflexor_training.mlx_backend.collate import Batch
from preflexor_training.mlx_backend.objective import Scored
from preflexor_training.mlx_backend.trees import flat, random_state
from preflexor_training.mlx_backend.trees import number as number_of
from preflexor_training.needs import SHOWN
from preflexor_training.recipe_parts import Phase
from preflexor_training.tokenized import MicroBatch, Step

MARGIN_MOST = 1e4
"""Reward margin, in nats, beyond which training has come apart; EXO aims at 5 to 11."""
CACHE_BYTES = 1 << 30
"""Freed memory that MLX may keep for arrays of the same size; rows of many lengths would let it grow without end."""


def make_optimizer(phase: Phase) -> AdamW:
    """AdamW as transformers sets it: no weight decay, moments corrected for their beginning."""
    return AdamW(
        learning_rate=phase.learning_rate, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.0, bias_correction=True
    )


@dataclass(slots=True)
class Loop:
    """One model and its optimizer."""

    model: Any
    optimizer: AdamW
    phase: Phase
    collate: Callable[[MicroBatch], Batch]
    loss_of: Callable[[Any, Batch], Scored]

    def step(self, micro_batches: Step, *, number: int, rate: float) -> Metrics:
        """Take one step.

        Args:
            micro_batches: whose mean loss is lowered.
            number: of the step in the phase, from 1; for errors.
            rate: of learning.

        Raises:
            TrainingError: a number is none, a margin has exploded, or memory ran out; the weights are as before then.
        """
        began = time.perf_counter()
        rows = [row for micro in micro_batches for row in micro]
        try:
            gradients, shown = self._gradients(micro_batches)
            norm = _norm(gradients)
            if self.phase.max_grad_norm:
                gradients, norm = clip_grad_norm(gradients, self.phase.max_grad_norm)  # type: ignore[no-untyped-call]
            mx.eval(gradients, norm, shown)
            metrics = _numbers(shown) | {"grad_norm": number_of(norm), "lr": rate}
            most = metrics.pop("margin_most")
            failures.check_numbers(metrics, most, step=number, rows=rows, limit=MARGIN_MOST)
            self.optimizer.learning_rate = rate
            self.optimizer.update(self.model, gradients)
            mx.eval(self.model.trainable_parameters(), self.optimizer.state)
        except failures.MEMORY as e:
            failures.check_memory(e, step=number, rows=rows)
            raise
        if mx.get_cache_memory() > CACHE_BYTES:
            mx.clear_cache()
        tokens = sum(len(r.pair.prompt) + len(r.pair.chosen.ids) + len(r.pair.rejected.ids) for r in rows)
        return metrics | {"tokens": float(tokens), "seconds": time.perf_counter() - began}

    def _gradients(self, micro_batches: Step) -> tuple[Any, list[mx.array]]:
        """Mean gradients, and the numbers of each micro-batch."""
        shown: list[mx.array] = []

        def loss(batch: Batch) -> tuple[mx.array, mx.array]:
            scored = self.loss_of(self.model, batch)
            return scored.loss, scored.shown

        step = value_and_grad(self.model, loss)
        total: Any = None
        state = random_state()
        for place, micro in enumerate(micro_batches):
            mx.random.seed(_drawn(state, place))  # whatever a backward pass leaves behind
            (_, numbers), gradients = step(self.collate(micro))
            total = gradients if total is None else tree_map(mx.add, total, gradients)
            shown.append(mx.stop_gradient(numbers))
            mx.eval(total, numbers)
        mx.random.seed(_drawn(state, -1))
        count = len(micro_batches)
        return total if count == 1 else tree_map(lambda g: g / count, total), shown


def _drawn(state: int, place: int) -> int:
    """The random state of a micro-batch; of the next step at -1."""
    return int.from_bytes(sha256(f"{state}:{place}".encode()).digest()[:8], "little")


def _norm(gradients: Any) -> mx.array:
    return mx.sqrt(sum((mx.square(g).sum() for g in flat(gradients).values()), mx.array(0.0)))


def _numbers(shown: Sequence[mx.array]) -> dict[str, float]:
    together = mx.stack(list(shown))
    means: list[float] = together[:, :-1].mean(axis=0).tolist()  # type: ignore[assignment]
    return dict(zip(SHOWN, [*means, number_of(together[:, -1].max())], strict=True))
