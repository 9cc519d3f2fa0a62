"""An adapter on disk worked into its base: what `preflexor merge BASE ADAPTER OUT` does, for any PEFT adapter."""

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import SafetensorError

from preflexor_agents.backends.hf_tokens import load_tokenizer
from preflexor_agents.errors import InputError
from preflexor_training import bases
from preflexor_training.phases import leave_model
from preflexor_training.recipe_parts import Adapter
from preflexor_training.torch_backend import merging
from preflexor_training.torch_backend.model import add_rows, load_base

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TOKENIZER = "tokenizer.json"


def merge_adapter(base: str, adapter: Path, out: Path) -> None:
    """Write base and adapter as one model. The tokenizer is the adapter's, if it has one, else the base's.

    Args:
        base: folder, `nano`, or id of the Hugging Face hub.
        adapter: folder that PEFT, or a run, wrote.
        out: folder to write; it appears when it is whole.

    Raises:
        InputError: base or adapter cannot be used, do not fit together, or `out` exists.
        TrainingError: the merged model cannot be written, or its embeddings are not tied as the base's are.
    """
    if out.exists():
        raise InputError(f"{out} exists already; name another folder or remove it")
    for name in (CONFIG, WEIGHTS):
        if not (adapter / name).is_file():
            raise InputError(f"{adapter} has no {name}; name the folder of a PEFT adapter")
    folder = bases.resolve(base)
    known = len(load_tokenizer(folder))
    tokenizer = load_tokenizer(adapter if (adapter / _TOKENIZER).is_file() else folder)
    model = load_base(folder, settings=Adapter(), place=merging.merge_place(folder))
    add_rows(model, known=known, total=len(tokenizer), new=tuple(range(known, len(tokenizer))))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that embeddings are tied, which is checked when the model is in place
            adapted: Any = peft.PeftModel.from_pretrained(model, str(adapter), use_safetensors=True)
            merged = adapted.merge_and_unload(safe_merge=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, json.JSONDecodeError) as e:
        why = " ".join(str(e).split())[:200]
        raise InputError(f"{adapter} is no adapter that fits {base}: {why}") from None
    out.parent.mkdir(parents=True, exist_ok=True)
    leave_model(lambda place: merging.write(merged, tokenizer, place), base=folder, out=out)
