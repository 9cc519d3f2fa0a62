"""A very small MLX learner, for tests: a random model without our tags, and pairs of a few words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from preflexor_agents.backends.mlx_model import load
from preflexor_agents.prompts import Message
from preflexor_training import recipes
from preflexor_training.batches import plan
from preflexor_training.learner import Learner, Metrics
from preflexor_training.pairs import Pair, Reply
from preflexor_training.prepared import open_renderer
from preflexor_training.recipes import Recipe
from preflexor_training.rendering import tokenize
from preflexor_training.tokenized import Step
from tests.quantize.folders import CHAT, byte_level, split_named

WORDS = ("the shell", "of a snail", "is tough", "and light", "1234", "so it bends", "at 4.5", "not brittle")
SMALL = ("adapter.rank=4", "adapter.alpha=8.0", "adapter.dropout=0.0", "data.max_length_tok=256")


def small_base(out: Path, *, tied: bool = True) -> Path:
    """A folder with a random Llama of two layers whose tokenizer has none of our tags."""
    logging.disable_progress_bar()
    marks = {"bos_token": "<|bos|>", "eos_token": "<|end|>", "additional_special_tokens": ["<|start|>"]}
    bpe = byte_level(split_named("qwen2"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, chat_template=CHAT, **marks)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def small_recipe(base: Path, *changes: str) -> Recipe:
    """The tiny recipe with a small adapter, two pairs a forward and two forwards a step."""
    sizes = ("batch_pairs=2", "accumulation=2", "rounds=1", "passes=2")
    small = [f"phases.{n}.{key}" for n in (0, 1) for key in sizes]
    return recipes.load("tiny", changes=[f"base={base}", *SMALL, *small, *changes])


def pairs(count: int, *, first: int = 0) -> list[Pair]:
    """Pairs of unequal lengths."""

    def words(number: int) -> str:
        return " ".join(WORDS[(number * 7 + n * 3) % len(WORDS)] for n in range(1 + number % 4))

    return [
        Pair(
            id=f"row-{n}",
            prompt=(Message("user", f"What of {words(n)}?"),),
            chosen=Reply(thinking=words(n + 1), answer=f"It is {words(n + 2)}."),
            rejected=Reply(thinking=words(n + 3), answer=words(n + 5)),
        )
        for n in range(first, first + count)
    ]


def steps_of(recipe: Recipe, *, phase: int = 0, round_: int = 0, count: int = 8) -> tuple[Step, ...]:
    """The steps of a round; another round has other pairs."""
    renderer, of = open_renderer(Path(recipe.base), recipe), recipe.phases[phase]
    mask = recipe.mask(of)
    rows = [tokenize(pair, renderer, mask=mask) for pair in pairs(count, first=count * round_)]
    return plan(rows, (), phase=of, mask=mask, round=round_, seed=recipe.seed, bucket_batches=4)


def taught(learner: Learner, steps: Sequence[Step], *, first: int = 0) -> list[Metrics]:
    """The numbers of each step."""
    told: list[Metrics] = []
    learner.train(steps, first=first, on_step=lambda _, metrics: told.append(metrics))
    return told


def logits(folder: Path, ids: np.ndarray[Any, Any], *, adapter: Path | None = None) -> np.ndarray[Any, Any]:
    """What MLX makes of a text, (T, V)."""
    model = load(folder, adapter=adapter).model
    return np.array(model(mx.array(ids[None].astype(np.int32)))[0].astype(mx.float32))
