"""What of a model is trained: LoRA updates and the rows of new tags, in PEFT's form, or every weight."""

import warnings
from pathlib import Path

import peft
import torch
from peft.utils.save_and_load import get_peft_model_state_dict
from safetensors.torch import save_file
from torch.nn import Linear
from transformers import PreTrainedModel

from preflexor_agents.errors import ConfigError
from preflexor_training.initial import lora_init
from preflexor_training.recipe_parts import Adapter
from preflexor_training.torch_backend.model import output_head, tied
from preflexor_training.torch_backend.token_rows import install

WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."


def attach(
    model: PreTrainedModel, settings: Adapter, *, new_ids: tuple[int, ...], seed: int
) -> PreTrainedModel | peft.PeftModel:
    """The model with what the settings train of it, everything else frozen.

    LoRA's first values are drawn by name, so that they do not depend on the order of layers or on what was drawn
    before. Its parameters are float32 whatever the base is.

    Raises:
        ConfigError: no layer bears the names of the targets.
    """
    if settings.kind == "full":
        model.requires_grad_(True)
        return model
    if settings.bits < 16:
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call]
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules="all-linear" if settings.targets == ("all-linear",) else list(settings.targets),
        trainable_token_indices=_rows(model, new_ids) if settings.token_rows and new_ids else None,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the embeddings' sizes and of layouts that PEFT corrects itself
            adapted = peft.get_peft_model(model, config)
    except ValueError:
        names = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, Linear)})
        raise ConfigError(
            f"adapter.targets {', '.join(settings.targets)} are no layers of {type(model).__name__}; it has"
            f" {', '.join(names) or 'no linear layers'}"
        ) from None
    install(adapted)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            layer, found, _ = name.removeprefix(_PREFIX).partition(".lora_A.")
            if found:
                weight.copy_(torch.from_numpy(lora_init((weight.shape[0], weight.shape[1]), seed, layer)))
    return adapted


def save_adapter(model: peft.PeftModel, folder: Path, *, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write updates and token rows as PEFT reads them: never whole embeddings, and no card.

    Args:
        model: with the adapter.
        folder: made if need be.
        state: the model's parameters where they have been gathered from several processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = get_peft_model_state_dict(model, state_dict=state, save_embedding_layers=False)
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in kept.items()}
    save_file(plain, folder / WEIGHTS, metadata={"format": "pt"})
    config = model.peft_config["default"]
    asked, config.inference_mode = config.inference_mode, True
    try:
        config.save_pretrained(str(folder))
    finally:
        config.inference_mode = asked


def _rows(model: PreTrainedModel, ids: tuple[int, ...]) -> dict[str, list[int]]:
    """PEFT's names for the tables to train rows of: one if they are tied, which it keeps so."""
    ends = [model.get_input_embeddings()] if tied(model) else [model.get_input_embeddings(), output_head(model)]
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(end)].rpartition(".")[2]: list(ids) for end in ends}
