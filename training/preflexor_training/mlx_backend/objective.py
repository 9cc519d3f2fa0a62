"""What a phase minimises, and the numbers that are shown of it."""

from typing import NamedTuple

import mlx.core as mx

from preflexor_training.mlx_backend import losses
from preflexor_training.mlx_backend.collate import Batch
from preflexor_training.mlx_backend.forward import Tables
from preflexor_training.mlx_backend.losses import Side
from preflexor_training.recipe_parts import Phase


class Scored(NamedTuple):
    """A micro-batch's loss."""

    loss: mx.array  # ()
    margins: mx.array  # (B,) chosen over rejected reward, nats
    shown: mx.array  # (len(SHOWN),)


def objective(phase: Phase, batch: Batch, tables: Tables) -> Scored:
    """The phase's loss of a micro-batch: the mean over its pairs, and ORPO's pooled likelihood term beside it.

    Args:
        phase: with one of the losses that are not TRL's alone.
        batch: of `collate`, with the reference's log-probs if the loss needs them.
        tables: log-probs under the policy.
    """
    outcome = losses.preference(
        phase,
        Side(tables.chosen, batch.chosen_mask, batch.chosen_reference),
        Side(tables.rejected, batch.rejected_mask, batch.rejected_reference),
    )
    likelihood = mx.array(0.0)
    if phase.loss == "orpo":
        likelihood = losses.nll(mx.concatenate([tables.prompt, tables.chosen], axis=1), batch.nll_mask)
    loss = outcome.loss.mean() + likelihood
    margins = outcome.reward_chosen - outcome.reward_rejected
    numbers = (
        loss,
        likelihood,
        margins.mean(),
        (margins > 0).mean(),
        outcome.reward_chosen.mean(),
        outcome.reward_rejected.mean(),
        outcome.logp_chosen.mean(),
        outcome.logp_rejected.mean(),
        mx.abs(margins).max(),
    )
    return Scored(loss, margins, mx.stack([number.astype(mx.float32) for number in numbers]))
