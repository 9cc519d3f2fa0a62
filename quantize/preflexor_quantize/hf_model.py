"""Loads a folder's model with Transformers: from this disk alone, as safetensors, without code from the folder."""

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
