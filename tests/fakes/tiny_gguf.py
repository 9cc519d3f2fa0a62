"""Writes small GGUF files with a real byte-level BPE: random weights that say words, or weights that say a given chain.

In a chain model attention and feed-forward add nothing, so the next token depends on the last one alone: the
output matrix maps each token's embedding to its successor. What it says is known before it runs.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np

BOS, START, END, PAD = "<|bos|>", "<|start|>", "<|end|>", "<|pad|>"
CONTROL = (BOS, START, END, PAD)
TAGS = ("<|thinking|>", "<|/thinking|>", "<|reflect|>", "<|/reflect|>")
WORDS = tuple(
    f"Ġ{word}"
    for word in [
        "silk",
        "is",
        "a",
        "protein",
        "fibre",
        "of",
        "spiders",
        "strong",
        "tough",
        "light",
        "yes",
        "no",
        "so",
        "it",
        "holds",
    ]
)
CHAT_TEMPLATE = (
    "{{ '<|bos|>' }}{% for m in messages %}{{ '<|start|>' + m['role'] + '\\n' + m['content'] + '<|end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}"
)
WIDTH, CONTEXT = 256, 512


def byte_letters() -> list[str]:
    """The printable letter that stands for each byte in a GPT-2 vocabulary, in byte order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(0x100, 0x200))
    return [chr(b) if b in printable else chr(next(spare)) for b in range(256)]


def vocabulary(tags: Sequence[str]) -> list[str]:
    """All tokens: control tokens, bytes, words with the pieces that lead to them, tags."""
    pieces = dict.fromkeys(word[:n] for word in WORDS for n in range(2, len(word) + 1))
    return [*CONTROL, *byte_letters(), *pieces, *tags]


def write_gguf(
    path: Path,
    *,
    chain: Mapping[str, str] | None = None,
    tags: Sequence[str] = TAGS,
    tag_type: gguf.TokenType = gguf.TokenType.USER_DEFINED,
    chat_template: str | None = CHAT_TEMPLATE,
    context: int = CONTEXT,
    layers: int = 2,
    seed: int = 0,
    extra: Mapping[str, int | bool] | None = None,
) -> Path:
    """Write a model file.

    Args:
        path: where to.
        chain: token text -> next token text (bytes as their letters, as `Ċ` for a line break); None for random weights.
        tags: extra tokens at the end of the vocabulary.
        tag_type: their type.
        chat_template: Jinja source, None to leave it out.
        context: trained context length.
        layers: blocks.
        seed: of the weights.
        extra: further metadata.
    """
    tokens = vocabulary(tags)
    types = [gguf.TokenType.CONTROL] * len(CONTROL)
    types += [gguf.TokenType.NORMAL] * (len(tokens) - len(CONTROL) - len(tags))
    types += [tag_type] * len(tags)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_rope_dimension_count(WIDTH // 4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([f"{t[:-1]} {t[-1]}" for t in tokens[len(CONTROL) + 256 : len(tokens) - len(tags)]])
    writer.add_bos_token_id(tokens.index(BOS))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_add_bos_token(False)
    for key, value in (extra or {}).items():
        writer.add_bool(key, value) if isinstance(value, bool) else writer.add_uint32(key, value)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    for name, weights in _tensors(tokens, chain, layers, seed).items():
        writer.add_tensor(name, weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_vocabulary(
    path: Path,
    *,
    tokens: Sequence[str],
    types: Sequence[int],
    model: str,
    pre: str = "default",
    merges: Sequence[str] = (),
    scores: Sequence[float] = (),
    bos: int | None = None,
    space_prefix: bool = True,
) -> Path:
    """Write a file with a vocabulary and no weights, to be loaded with `vocab_only`."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_add_bos_token(bos is not None)
    writer.add_add_space_prefix(space_prefix)
    if bos is not None:
        writer.add_bos_token_id(bos)
    if merges:
        writer.add_token_merges(merges)
    if scores:
        writer.add_token_scores(scores)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def chain_of(*texts: str) -> dict[str, str]:
    """Each token followed by the next one."""
    return dict(pairwise(texts))


def _tensors(tokens: list[str], chain: Mapping[str, str] | None, layers: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def random(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) / np.sqrt(shape[-1])

    silent = 1.0 if chain is None else 0.0
    embedding = rng.normal(size=(len(tokens), WIDTH))
    tensors = {"token_embd.weight": embedding, "output_norm.weight": np.ones(WIDTH)}
    for n in range(layers):
        for part in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{n}.{part}.weight"] = np.ones(WIDTH)
        for part in ("attn_q", "attn_k", "attn_v"):
            tensors[f"blk.{n}.{part}.weight"] = random(WIDTH, WIDTH)
        tensors[f"blk.{n}.attn_output.weight"] = random(WIDTH, WIDTH) * silent
        tensors[f"blk.{n}.ffn_gate.weight"] = random(2 * WIDTH, WIDTH)
        tensors[f"blk.{n}.ffn_up.weight"] = random(2 * WIDTH, WIDTH)
        tensors[f"blk.{n}.ffn_down.weight"] = random(WIDTH, 2 * WIDTH) * silent
    output = np.zeros((len(tokens), WIDTH))
    if chain is None:
        words = [n for n, token in enumerate(tokens) if token in WORDS]
        output[words] = random(len(words), WIDTH) * 4
    for before, after in (chain or {}).items():
        output[tokens.index(after)] += embedding[tokens.index(before)] / 4
    return {**tensors, "output.weight": output}
