"""TRL's own trainers on our rows, masks and plan: to compare with, and for losses that only TRL has.

They compute the reference in every pass, by switching the adapter off. Only this module imports TRL, and its
experimental part is imported only for ORPO.
"""

import copy
from typing import Any

import datasets  # type: ignore[import-untyped]
import peft
import torch
from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedTokenizerFast
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from preflexor_agents.errors import ConfigError
from preflexor_training.recipe_parts import Phase
from preflexor_training.torch_backend.collate import Tensors
from preflexor_training.torch_backend.trainer import Planned

NO_ROWS = datasets.Dataset.from_dict({"prompt": [""], "chosen": [""], "rejected": [""]})
"""What TRL is given in place of rows, which it would tokenise itself."""
_NAMES = (
    "rewards/margins",
    "rewards/accuracies",
    "rewards/chosen",
    "rewards/rejected",
    "logps/chosen",
    "logps/rejected",
)


class _TrlDpo(Planned, DPOTrainer):
    """DPOTrainer with the plan's rows."""

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None is wanted."""

    def compute_loss(self, model: Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss; its metrics are read at once."""
        loss = super().compute_loss(model, dpo_inputs(inputs), *args, **kwargs)  # type: ignore[no-untyped-call]
        metrics = self._metrics["train"]
        self.report.shown.append(shown_of(loss, {name: metrics[name][-1] for name in _NAMES}, nll=0.0))
        metrics.clear()
        return loss


def make(
    model: Module, phase: Phase, *, common: dict[str, Any], accumulate: int, tokenizer: PreTrainedTokenizerFast
) -> Planned:
    """TRL's trainer of the phase's loss.

    Raises:
        ConfigError: TRL has no such loss, or not in this form.
    """
    from preflexor_training.torch_backend.engines import arguments, only

    if not isinstance(model, peft.PeftModel) and phase.loss != "orpo":
        raise ConfigError(
            'step.engine "trl" takes the reference from the base below an adapter; set adapter.kind = "lora"'
        )
    if phase.loss == "simpo":
        raise ConfigError('step.engine "trl" has no simpo here; set it to "ours"')
    own = copy.deepcopy(tokenizer)
    own.pad_token = own.pad_token or own.eos_token
    if phase.loss == "orpo":
        from preflexor_training.torch_backend.trl_orpo import make_orpo

        return make_orpo(model, phase, common=common, accumulate=accumulate, tokenizer=own)
    args = arguments(
        DPOConfig,
        common,
        accumulate=accumulate,
        loss_type=[phase.loss],
        beta=phase.beta,
        label_smoothing=phase.label_smoothing,
        max_length=None,
        disable_dropout=False,
        activation_checkpointing=False,
    )
    assert isinstance(model, peft.PeftModel)
    trainer = _TrlDpo(model=model, args=args, train_dataset=NO_ROWS, data_collator=only, processing_class=own)
    model.delete_adapter("ref")
    model.set_adapter("default")
    return trainer


def dpo_inputs(batch: Tensors) -> Tensors:
    """What DPOTrainer's own collator would have made of rows of our `collate`, with our masks in it."""
    ids = batch["input_ids"]
    completion = torch.zeros_like(ids).view(-1)
    completion[batch["select"] + 1] = 1
    return {
        "input_ids": ids,
        "attention_mask": batch["attention_mask"],
        "completion_mask": completion.view_as(ids),
    }


def shown_of(loss: Tensor, metrics: dict[str, float], *, nll: float) -> Tensor:
    """In the order of `needs.SHOWN`."""
    numbers = [metrics[name] for name in _NAMES]
    return torch.tensor([float(loss.detach()), nll, *numbers, abs(metrics["rewards/margins"])], device=loss.device)
