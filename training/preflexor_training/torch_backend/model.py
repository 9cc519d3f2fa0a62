"""The base of a phase: loaded from a folder, with rows for the tags that its vocabulary lacks."""

import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import Module
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.utils import logging

from preflexor_agents.errors import ConfigError, ModelError, TrainingError
from preflexor_training.initial import mean_row
from preflexor_training.recipe_parts import Adapter, Phase

_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_ROWS_AT_ONCE = 8192
_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError, SafetensorError)


class Place(NamedTuple):
    """Where a model computes and in what."""

    device: torch.device
    dtype: torch.dtype
    """Of activations; weights that are trained are float32 in any case."""


def place(phase: Phase) -> Place:
    """The fastest device there is, and the precision that the phase asks for.

    Raises:
        ConfigError: float16 without a GPU.
    """
    if torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    elif torch.backends.mps.is_available():
        device = torch.device("mps")
    else:
        device = torch.device("cpu")
    if phase.precision == "auto":
        bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return Place(device, torch.bfloat16 if bfloat16 else torch.float32)
    if phase.precision == "float16" and device.type != "cuda":
        raise ConfigError(f'phase {phase.name}: precision is "float16" on a {device.type}; set it to "auto"')
    return Place(device, getattr(torch, phase.precision))


def load_base(folder: Path, *, settings: Adapter, place: Place) -> PreTrainedModel:
    """The model of a folder, in evaluation mode: safetensors from this disk, no code of the folder's own.

    Weights that will be trained are float32; a frozen base has the place's precision, or `settings.bits`.

    Raises:
        ModelError: the folder holds no model that can be loaded.
        ConfigError: the base is to be quantised and bitsandbytes is missing.
    """
    check_folder(folder)
    options: dict[str, Any] = {"dtype": place.dtype if settings.kind == "lora" else torch.float32}
    if settings.bits < 16:
        options |= {"quantization_config": _quantised(settings.bits, place), "device_map": {"": place.device}}
    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
    except _UNREADABLE as e:
        why = "its weights are of other sizes than its config.json says" if "mismatched_sizes" in str(e) else line(e)
        raise ModelError(f"{folder} cannot be loaded: {why}; give the folder of a whole text model") from None
    model, found = loaded
    assert isinstance(model, PreTrainedModel)
    if lacking := sorted(map(str, found["missing_keys"])):
        raise ModelError(
            f"{folder} lacks {len(lacking)} weights, as {lacking[0]}; give the folder of a whole text model"
        )
    if model.get_output_embeddings() is None:  # type: ignore[no-untyped-call]
        raise ModelError(f"{folder} holds a {type(model).__name__}, which writes no text; give a causal language model")
    if settings.bits == 16:
        torch.nn.Module.to(model, place.device)
    model.train(mode=False)
    return model


def check_folder(folder: Path) -> None:
    """Raises ModelError, in one line, if a folder is clearly no model with its weights as safetensors."""
    if not folder.is_dir():
        raise ModelError(f"{folder} is no folder; give the one that save_pretrained wrote")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json; give the folder of a whole model")
    if any(folder.glob("model*.safetensors")):
        return
    pickled = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLED)
    if pickled:
        raise ModelError(f"{folder} has its weights as a pickle ({pickled[0]}); save the model again as safetensors")
    raise ModelError(f"{folder} has no model*.safetensors; give the folder of a whole model")


def add_rows(model: PreTrainedModel, *, known: int, total: int, new: tuple[int, ...]) -> None:
    """Give new tokens their rows, each the mean of the rows of known tokens. Tied embeddings stay tied.

    The table is never made smaller: many vocabularies leave rows unused at its end, and new tokens take those.

    Args:
        model: just loaded.
        known: tokens before the new ones were added.
        total: tokens there are with them.
        new: ids of the new tokens.
    """
    if not new:
        return
    was_tied = tied(model)
    if total > table_rows(model):
        model.resize_token_embeddings(total, mean_resizing=False)
    head = output_head(model)
    tables = [_table(model.get_input_embeddings())]
    tables += [] if was_tied else [_table(head)]
    with torch.no_grad():
        for table in tables:
            table[list(new)] = torch.from_numpy(mean_row(_chunks(table, known))).to(table)
        if isinstance(bias := getattr(head, "bias", None), Tensor):
            bias[list(new)] = bias[:known].double().mean().to(bias)
    if was_tied and not tied(model):
        raise ModelError(
            f'{type(model).__name__} lost its tied embeddings when rows were added; use tags.mode = "text"'
        )


def output_head(model: PreTrainedModel) -> Module:
    """The module that makes logits of hidden states."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    assert isinstance(head, Module)
    return head


def table_rows(model: PreTrainedModel) -> int:
    """Tokens that the embeddings have rows for."""
    return len(_table(model.get_input_embeddings()))


def tied(model: PreTrainedModel) -> bool:
    """Whether input and output embeddings are one tensor."""
    return model.get_input_embeddings().weight is output_head(model).weight


def check_whole(model: Module, *, lacking: Iterable[str]) -> None:
    """Raises TrainingError if one of these names, which a file lacks, is a weight of its own and not a tied one's."""
    found = sorted({*lacking} & {name for name, _ in model.named_parameters()})
    if found:
        raise TrainingError(f"a checkpoint lacks {len(found)} weights, as {found[0]}; remove it and resume")


@contextmanager
def quiet() -> Iterator[None]:
    """Without Transformers' own progress bars and reports for a while; what they say is checked and told in a line."""
    shows, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shows:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def line(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _table(module: Module) -> Tensor:
    found = module.weight
    assert isinstance(found, Tensor)
    return found


def _chunks(table: Tensor, count: int) -> Iterator[NDArray[np.float32]]:
    for at in range(0, count, _ROWS_AT_ONCE):
        yield table[at : min(count, at + _ROWS_AT_ONCE)].detach().float().cpu().numpy()


def _quantised(bits: int, place: Place) -> BitsAndBytesConfig:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"adapter.bits is {bits}, which needs bitsandbytes: pip install bitsandbytes, or set it to 16"
        )
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=place.dtype,
    )
