"""A real pretrained model of 260 thousand weights as a base without our tags, and real preference pairs for it."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from transformers.utils import logging

from preflexor_agents.prompts import Message
from preflexor_training import recipes
from preflexor_training.masks import masked
from preflexor_training.pairs import Pair, Reply
from preflexor_training.prepared import open_renderer
from preflexor_training.recipes import Recipe
from preflexor_training.rendering import tokenize
from preflexor_training.tokenized import Masked
from tests.quantize.folders import DATA, TAGS, stories260k

PREFERENCES = DATA / "prefs-small/rasbt/ch07/04_preference-tuning-with-dpo/instruction-data-with-preference.json"
needs_data = pytest.mark.skipif(not PREFERENCES.exists(), reason="needs the shared models and preference data")


def base(out: Path, *, tied: bool = True) -> Path:
    """The model's folder, its vocabulary as it was before tags were added."""
    logging.disable_progress_bar()
    stories260k(out)
    model = AutoModelForCausalLM.from_pretrained(out)
    size = len(model.get_input_embeddings().weight) - len(TAGS)
    model.resize_token_embeddings(size)
    if not tied:
        config, state = model.config, {name: value.clone() for name, value in model.state_dict().items()}
        config.tie_word_embeddings = False
        model = LlamaForCausalLM(config)
        model.load_state_dict(state)
    model.save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = out / name
        told = json.loads(file.read_text(encoding="utf-8"))
        told.pop("added_tokens_decoder", None)
        if "added_tokens" in told:
            told["added_tokens"] = [token for token in told["added_tokens"] if token["content"] not in TAGS]
        file.write_text(json.dumps(told), encoding="utf-8")
    return out


def recipe(folder: Path, *changes: str) -> Recipe:
    """The tiny recipe over a base, with changes as on the command line."""
    return recipes.load("tiny", changes=[f"base={folder}", *changes])


def pairs(count: int, *, most_letters: int = 420) -> list[Pair]:
    """Real pairs; what is asked stands in the thinking too, so that there is something to mask."""
    found = []
    for number, row in enumerate(json.loads(PREFERENCES.read_text(encoding="utf-8"))):
        asked = f"{row['instruction']} {row['input']}".strip()
        if (
            len(asked) + max(len(row["chosen"]), len(row["rejected"])) <= most_letters
            and row["chosen"] != row["rejected"]
        ):
            thinking = f"The task is: {row['instruction']}"
            replies = [Reply(thinking=thinking, answer=row[side]) for side in ("chosen", "rejected")]
            prompt = (Message("user", asked),)
            found.append(Pair(id=f"row-{number}", prompt=prompt, chosen=replies[0], rejected=replies[1]))
    return found[:count]


def rows(recipe: Recipe, found: Sequence[Pair], *, phase: int = 0) -> list[Masked]:
    """The pairs as a phase trains on them."""
    renderer = open_renderer(Path(recipe.base), recipe)
    mask = recipe.mask(recipe.phases[phase])
    return [masked(tokenize(pair, renderer, mask=mask), mask, seed=recipe.seed) for pair in found]


def logits(model: Any, row: Masked) -> np.ndarray[Any, Any]:
    """Of prompt and chosen reply, computed in float64: this model's own noise in float32 is 2.4e-5."""
    ids = torch.from_numpy(np.concatenate([row.pair.prompt, row.pair.chosen.ids]).astype(np.int64))[None]
    with torch.no_grad():
        return np.asarray(copy.deepcopy(model).double()(input_ids=ids).logits[0])
