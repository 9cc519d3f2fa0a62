"""Base and adapter as one model folder, which any other tool reads."""

import os
import warnings
from pathlib import Path
from typing import Any

import peft
import torch
from peft.utils.save_and_load import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from preflexor_agents.errors import TrainingError
from preflexor_training.recipe_parts import Adapter
from preflexor_training.torch_backend.adapter import attach
from preflexor_training.torch_backend.model import Place, line, quiet, tied


def merge_place(base: Path) -> Place:
    """Where to merge: on the CPU, in float32 where memory is there for it, since 16 bits swallow small changes."""
    parameters, kept = 0, torch.float32
    for file in base.glob("model*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                part = tensors.get_slice(name)
                parameters += int(torch.Size(part.get_shape()).numel())
                kept = torch.bfloat16 if part.get_dtype() in ("BF16", "F16") else kept
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return Place(torch.device("cpu"), torch.float32 if not free or 5 * parameters < free else kept)


def merge(
    base: PreTrainedModel,
    trained: peft.PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    settings: Adapter,
    new_ids: tuple[int, ...],
) -> None:
    """Work a trained adapter into a freshly loaded base, and write it.

    Args:
        base: with rows for the new tokens; changed.
        trained: the model that was taught; not changed.
        tokenizer: with the tags.
        folder: to write.
        settings: of the adapter, with 16 bits.
        new_ids: tokens whose rows were trained.

    Raises:
        TrainingError: embeddings that were tied are not any more, or a weight is no number.
    """
    was_tied = tied(base)
    adapted = attach(base, settings, new_ids=new_ids, seed=0)
    state = {name: weight.cpu() for name, weight in _state(trained).items()}
    set_peft_model_state_dict(adapted, state)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that embeddings are tied, which is checked below
            merged: Any = adapted.merge_and_unload(safe_merge=True)  # type: ignore[operator]
    except ValueError as e:
        raise TrainingError(f"the adapter cannot be merged: {line(e)}; go back to an earlier checkpoint") from None
    if was_tied != tied(merged):
        raise TrainingError("the merge untied the embeddings of the base; report this with the base's name")
    write(merged, tokenizer, folder)


def write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a whole model with its tokenizer."""
    settings = model.generation_config
    if settings is not None and not settings.do_sample and (settings.temperature or settings.top_p or settings.top_k):
        settings.do_sample = True  # or Transformers refuses to write what many bases come with
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _state(model: peft.PeftModel) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return found
