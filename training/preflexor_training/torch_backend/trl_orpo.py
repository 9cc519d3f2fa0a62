"""TRL's ORPOTrainer, which is experimental there, on our rows, masks and plan."""

from typing import Any

import torch
from torch.nn import Module
from transformers import PreTrainedTokenizerFast
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from preflexor_agents.errors import ConfigError
from preflexor_training.recipe_parts import Phase
from preflexor_training.torch_backend.collate import Tensors
from preflexor_training.torch_backend.engines import arguments, only
from preflexor_training.torch_backend.trainer import Planned
from preflexor_training.torch_backend.trl_step import NO_ROWS, shown_of


class _TrlOrpo(Planned, ORPOTrainer):
    """ORPOTrainer with the plan's rows."""

    def tokenize_row(self, feature: Any, model: Any = None) -> dict[str, Any]:
        """The row is in no use."""
        return {}

    def compute_loss(self, model: Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss; its metrics are read at once."""
        loss: Any = super().compute_loss(model, orpo_inputs(inputs), *args, **kwargs)
        metrics = {name: values[-1] for name, values in self._stored_metrics["train"].items()}
        self._stored_metrics["train"].clear()
        self.report.shown.append(shown_of(loss, metrics, nll=metrics["nll_loss"]))
        return loss


def make_orpo(
    model: Module, phase: Phase, *, common: dict[str, Any], accumulate: int, tokenizer: PreTrainedTokenizerFast
) -> Planned:
    """TRL's ORPO trainer.

    Raises:
        ConfigError: TRL's likelihood term covers the whole sequence, and another scope is asked for.
    """
    if phase.nll_scope != "all":
        raise ConfigError(
            f'nll_scope is "{phase.nll_scope}" with step.engine "trl", whose ORPO always takes "all"; set it to "ours"'
        )
    args = arguments(
        ORPOConfig, common, accumulate=accumulate, beta=phase.beta, max_length=10**6, disable_dropout=False
    )
    return _TrlOrpo(model=model, args=args, train_dataset=NO_ROWS, data_collator=only, processing_class=tokenizer)


def orpo_inputs(batch: Tensors) -> Tensors:
    """What ORPOTrainer's own collator would have made of rows of our `collate`, with our masks in its labels."""
    ids, attention = batch["input_ids"], batch["attention_mask"]
    half = len(ids) // 2
    labels = torch.full_like(ids, -100)
    for side, mask in enumerate((batch["chosen_mask"], batch["rejected_mask"])):
        starts = batch["reply_starts"]
        for n in range(half):
            row = side * half + n
            where = torch.nonzero(mask[n]).flatten() + starts[n]
            labels[row, where] = ids[row, where]
    return {
        "chosen_input_ids": ids[:half],
        "chosen_attention_mask": attention[:half],
        "chosen_labels": labels[:half],
        "rejected_input_ids": ids[half:],
        "rejected_attention_mask": attention[half:],
        "rejected_labels": labels[half:],
    }
