"""Which trainer takes the steps: our own, or one of TRL's, which is imported only then."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn import Module
from transformers import PreTrainedTokenizerFast, TrainingArguments

from preflexor_agents.errors import ConfigError
from preflexor_training.rates import total_steps
from preflexor_training.recipes import Phase, Recipe
from preflexor_training.torch_backend.collate import Tensors
from preflexor_training.torch_backend.model import Place
from preflexor_training.torch_backend.objective import Scored
from preflexor_training.torch_backend.trainer import OwnTrainer, Planned, PlannedSteps, Report

NEVER = 10**9
"""Steps between checkpoints when there is to be one at the end alone."""

A = TypeVar("A", bound=TrainingArguments)


def make_trainer(
    model: Module,
    recipe: Recipe,
    phase: Phase,
    *,
    place: Place,
    folder: Path,
    plan: PlannedSteps,
    report: Report,
    loss_of: Callable[[Module, Tensors], Scored],
    tokenizer: PreTrainedTokenizerFast,
) -> Planned:
    """The trainer of the recipe's engine, ready for `train`.

    Args:
        model: with what is to be trained of it.
        recipe: decides engine and seed.
        phase: decides the loss and the optimizer's settings.
        place: where and in what precision.
        folder: for checkpoints.
        plan: the steps.
        report: who is told.
        loss_of: our own loss of a micro-batch.
        tokenizer: for TRL, which wants to know the padding.

    Raises:
        ConfigError: the engine does not have the loss.
    """
    common = {
        "output_dir": str(folder),
        "max_steps": len(plan) // plan.slots,
        "per_device_train_batch_size": 1,
        "train_sampling_strategy": "sequential",
        "learning_rate": phase.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if phase.schedule == "constant" else phase.schedule,
        "warmup_steps": phase.warmup_steps,
        "max_grad_norm": phase.max_grad_norm,
        "weight_decay": 0.0,
        "optim": "adamw_torch" if place.device.type == "mps" else "adamw_torch_fused",
        "seed": recipe.seed,
        "bf16": place.dtype == torch.bfloat16,
        "fp16": place.dtype == torch.float16,
        "use_cpu": place.device.type == "cpu",
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": phase.checkpoint_every or NEVER,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "label_names": [],
        "dataloader_pin_memory": place.device.type == "cuda",
        "ddp_find_unused_parameters": False,
    }
    if recipe.step.engine == "trl":
        from preflexor_training.torch_backend import trl_step

        trainer = trl_step.make(model, phase, common=common, accumulate=plan.accumulation, tokenizer=tokenizer)
    else:
        args = arguments(TrainingArguments, common, accumulate=plan.slots)
        own = OwnTrainer(model=model, args=args, train_dataset=plan, data_collator=only)
        own.loss_of = loss_of
        own.model_accepts_loss_kwargs = False
        trainer = own
    trainer.follow(plan, report, total_steps=total_steps(phase, first=plan.first, steps=plan.new_steps))
    return trainer


def arguments(kind: type[A], common: dict[str, Any], *, accumulate: int, **special: Any) -> A:
    """Arguments of a trainer; every process takes its share of a step's micro-batches.

    Raises:
        ConfigError: the processes cannot share them evenly.
    """
    args = kind(**common, **special)
    if accumulate % args.world_size:
        raise ConfigError(
            f'accumulation is {accumulate} with {args.world_size} processes and step.engine "trl", which cannot deal it'
            f" out unevenly; set it to a multiple of {args.world_size}"
        )
    args.gradient_accumulation_steps = accumulate // args.world_size
    return args


def only(items: list[Any]) -> Any:
    """An item is a batch already."""
    return items[0]
