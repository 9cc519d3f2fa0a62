"""A very small MLX learner, for tests: a random model without our tags, and pairs of a few words."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

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

WORDS = ("the shell", "of a snail", "is tough", "and light", "1234", "so it bends", "at 4.5", "not brittle")
CHAT = "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m['role'] + '\\n' + m['content'] + '<|end|>\\n' }}"
CHAT += "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}"
SMALL = ("adapter.rank=4", "adapter.alpha=8.0", "adapter.dropout=0.0", "data.max_length_tok=256")


def small_base(out: Path, *, tied: bool = True) -> Path:
    """A folder with a random Llama of two layers whose tokenizer has none of our tags."""
    out.mkdir(parents=True)
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(out)
    width, inner, layers, heads, rows = 32, 48, 2, 4, len(tokenizer)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": rows,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "dtype": "float32",
    }
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shapes = {"model.embed_tokens": (rows, width)} | ({} if tied else {"lm_head": (rows, width)})
    for n in range(layers):
        attention = {"q": (width, width), "k": (width // 2, width), "v": (width // 2, width), "o": (width, width)}
        mlp = {"gate": (inner, width), "up": (inner, width), "down": (width, inner)}
        shapes |= {f"model.layers.{n}.self_attn.{name}_proj": shape for name, shape in attention.items()}
        shapes |= {f"model.layers.{n}.mlp.{name}_proj": shape for name, shape in mlp.items()}
    rng = np.random.default_rng(3)
    weights = {f"{name}.weight": rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    norms = [f"model.layers.{n}.{which}_layernorm" for n in range(layers) for which in ("input", "post_attention")]
    weights |= {f"{name}.weight": np.ones(width, dtype=np.float32) for name in (*norms, "model.norm")}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    return out


def _tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    marks = ["<|bos|>", "<|start|>", "<|end|>"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=marks, initial_alphabet=letters, show_progress=False)
    bpe.train_from_iterator([*WORDS] * 9, trainer)
    special = {"bos_token": marks[0], "eos_token": marks[2], "additional_special_tokens": [marks[1]]}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, chat_template=CHAT, **special)


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
