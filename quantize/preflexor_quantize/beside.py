"""Proof that a GGUF adapter, loaded beside its base, computes what the merged model computes."""

from pathlib import Path

import numpy as np
import torch

from preflexor_agents.errors import PreflexorError
from preflexor_quantize.adapter import peft_folder
from preflexor_quantize.engine import Engine
from preflexor_quantize.hf_model import load_model, merged
from preflexor_quantize.verify import QUESTIONS

TOLERANCE = 0.02
"""Largest difference of a logit, over the standard deviation of the logits: 16-bit weights cost about a tenth of it."""


def logit_difference(base_folder: Path, adapter: Path, base: Path, adapter_file: Path) -> float:
    """Largest difference of any logit between llama.cpp with the adapter and PEFT's merged model in float32.

    Divided by the standard deviation of the merged model's logits.

    Raises:
        PreflexorError: it is more than TOLERANCE, or the adapter does nothing in one and something in the other.
    """
    with Engine(base, adapter=adapter_file) as engine:
        prompts = [engine.tokens_of(question) for question in QUESTIONS]
        ours = [engine.logits(ids) for ids in prompts]
    plain = load_model(base_folder, dtype=torch.float32)
    with peft_folder(adapter) as folder, torch.no_grad():
        whole = merged(plain, folder)
        theirs = [whole(input_ids=torch.tensor([ids])).logits[0].float().numpy() for ids in prompts]
    spread = float(np.concatenate(theirs).std())
    worst = max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)) / spread
    if not worst <= TOLERANCE:
        raise PreflexorError(
            f"{adapter_file.name} beside {base.name} is not the merged model: a logit is off by {worst:.2f} "
            f"of their spread, {TOLERANCE} is allowed; merge the adapter instead"
        )
    return worst
