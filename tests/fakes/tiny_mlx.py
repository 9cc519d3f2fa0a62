"""The small models of `tiny_gguf` as Hugging Face folders, which mlx-lm opens."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.fakes.tiny_gguf import BOS, CHAT_TEMPLATE, CONTEXT, CONTROL, END, TAGS, WIDTH, _tensors, vocabulary

SPLIT = r"\s?\w+|[^\w\s]+|\s"
_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def write_folder(
    folder: Path,
    *,
    chain: Mapping[str, str] | None = None,
    tags: Sequence[str] = TAGS,
    tags_are_tokens: bool = True,
    chat_template: str | None = CHAT_TEMPLATE,
    context: int = CONTEXT,
    layers: int = 2,
    seed: int = 0,
) -> Path:
    """Write a model folder; arguments as of `tiny_gguf.write_gguf`, and whether the tags are tokens of it."""
    folder.mkdir(parents=True)
    tokens = vocabulary(tags)
    known = {token: n for n, token in enumerate(tokens) if token not in tags}
    pieces = tokens[len(CONTROL) + 256 : len(tokens) - len(tags)]
    bpe = Tokenizer(models.BPE(known, [(token[:-1], token[-1]) for token in pieces]))
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.Sequence([split, letters]), decoders.ByteLevel()
    bpe.add_special_tokens(list(CONTROL))
    if tags_are_tokens:
        bpe.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=BOS, eos_token=END, chat_template=chat_template)
    tokenizer.save_pretrained(folder)
    tensors = {_name(name): _value(name, made) for name, made in _tensors(tokens, chain, layers, seed).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": context,
        "vocab_size": len(tokens),
        "tie_word_embeddings": False,
        "bos_token_id": tokens.index(BOS),
        "eos_token_id": tokens.index(END),
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _value(name: str, made: np.ndarray) -> np.ndarray:
    """In the order of Transformers: values that are rotated together lie half a head apart, not side by side."""
    if name.endswith(("attn_q.weight", "attn_k.weight")):
        made = made.reshape(4, -1, 2, WIDTH).swapaxes(1, 2).reshape(WIDTH, WIDTH)
    return np.ascontiguousarray(made, dtype=np.float32)


def _name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _ENDS:
        return f"{_ENDS[stem]}.weight"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{_NAMES[part]}.weight"
