"""What a phase minimises, and the numbers that are shown of it."""

from typing import NamedTuple

import torch
from torch import Tensor

from preflexor_training.recipe_parts import TRL_ONLY, Phase
from preflexor_training.torch_backend import losses
from preflexor_training.torch_backend.collate import Tensors
from preflexor_training.torch_backend.forward import Tables
from preflexor_training.torch_backend.losses import Side


class Scored(NamedTuple):
    """A micro-batch's loss."""

    loss: Tensor  # ()
    margins: Tensor  # (B,) chosen over rejected reward, nats; no gradient
    shown: Tensor  # (len(SHOWN),) float32; no gradient


def objective(phase: Phase, batch: Tensors, tables: Tables) -> Scored:
    """The phase's loss of a micro-batch: the mean over its pairs, and ORPO's pooled likelihood term beside it.

    In place of a loss that only TRL computes stands DPO's; rows that are held out are scored so.

    Args:
        phase: decides the loss.
        batch: of `collate`, with the reference's log-probs if the loss needs them.
        tables: log-probs under the policy.
    """
    chosen = Side(tables.chosen, batch["chosen_mask"], batch.get("chosen_reference"))
    rejected = Side(tables.rejected, batch["rejected_mask"], batch.get("rejected_reference"))
    likelihood = torch.zeros((), device=tables.chosen.device)
    if phase.loss == "orpo":
        outcome = losses.orpo(chosen, rejected, beta=phase.beta)
        likelihood = losses.nll(torch.cat([tables.prompt, tables.chosen], 1), batch["nll_mask"])
    elif phase.loss == "simpo":
        outcome = losses.simpo(chosen, rejected, beta=phase.beta, gamma=phase.gamma)
    else:
        name = "sigmoid" if phase.loss in TRL_ONLY else phase.loss
        outcome = losses.preference(name, chosen, rejected, beta=phase.beta, label_smoothing=phase.label_smoothing)
    loss = outcome.loss.mean() + likelihood
    margins = outcome.reward_chosen - outcome.reward_rejected
    numbers = (
        loss.detach(),
        likelihood.detach(),
        margins.mean(),
        (margins > 0).float().mean(),
        outcome.reward_chosen.mean(),
        outcome.reward_rejected.mean(),
        outcome.logp_chosen.mean(),
        outcome.logp_rejected.mean(),
        margins.abs().max(),
    )
    return Scored(loss, margins, torch.stack([number.float() for number in numbers]))
