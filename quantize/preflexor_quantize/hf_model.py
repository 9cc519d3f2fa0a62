"""Loads a folder's model with Transformers: from this disk alone, as safetensors, without code from the folder."""

import os
import warnings
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM
from transformers.utils import logging

from preflexor_agents.errors import ModelError


def load_model(folder: Path, *, dtype: Any) -> Any:
    """The model, ready to compute; `dtype` is torch's, or `auto` for the folder's own.

    Raises:
        ModelError: it cannot be loaded.
    """
    shows = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as e:
        raise ModelError(f"{folder} cannot be loaded: {' '.join(str(e).split())[:200]}") from None
    finally:
        if shows:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    return model.train(mode=False)


def precision(parameters: int) -> Any:
    """Float32 where the memory is there for it, else the folder's own."""
    import torch

    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return torch.float32 if not free or 5 * parameters < free else "auto"


def merged(model: Any, adapter: Path) -> Any:
    """The model with a PEFT adapter worked in. Raises what PEFT raises where they do not fit."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it unties embeddings, and uses an old name of Transformers
        return peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
