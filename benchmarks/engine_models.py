"""Llama models with random weights for benchmarks/engine.py: how fast they are says the same as with trained ones."""

import ctypes
import os
from pathlib import Path
from typing import NamedTuple

import gguf
import llama_cpp
import numpy as np
import platformdirs

from preflexor_agents.backends import model_file

FTYPES = {"f16": 1, "bf16": 32, "q8_0": 7, "q4_k_m": 15}
"""llama.cpp's number of each type of file."""
CONTROL = ("<|bos|>", "<|start|>", "<|end|>", "<|pad|>")
CHAT_TEMPLATE = (
    "{{ '<|bos|>' }}{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)


class Shape(NamedTuple):
    """Sizes of a Llama whose output matrix is its embedding."""

    hidden: int
    layers: int
    feed_forward: int
    heads: int
    kv_heads: int
    vocabulary: int


SHAPES = {"170m": Shape(768, 12, 2048, 12, 4, 128_256), "tiny": Shape(256, 2, 512, 4, 2, 4096)}


def random_llama(name: str, ftype: str, *, folder: Path | None = None) -> Path:
    """A file of SHAPES[name] in a type of FTYPES, made when it is first asked for and kept in the cache folder."""
    shape = SHAPES[name]
    folder = folder or Path(platformdirs.user_cache_dir("preflexor", appauthor=False)) / "benchmarks"
    path = folder / f"random-llama-{name}-{ftype}.gguf"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        if ftype == "f16":
            _write(fresh, shape)
        else:
            _quantise(random_llama(name, "f16", folder=folder), fresh, ftype)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return path


def _quantise(source: Path, target: Path, ftype: str) -> None:
    model_file._log()  # or it tells about every tensor
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FTYPES[ftype]
    params.nthread = 2
    code = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))
    if code:
        raise RuntimeError(f"llama.cpp could not write {target} (code {code})")


def _letters() -> list[str]:
    """The printable letter that stands for each byte in a GPT-2 vocabulary, in byte order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(0x100, 0x200))
    return [chr(b) if b in printable else chr(next(spare)) for b in range(256)]


def _write(path: Path, shape: Shape) -> None:
    known = [*CONTROL, *_letters(), "th"]
    tokens = [*known, *(f"t{n}" for n in range(shape.vocabulary - len(known)))]
    types = [gguf.TokenType.CONTROL] * len(CONTROL) + [gguf.TokenType.NORMAL] * (len(tokens) - len(CONTROL))
    writer = gguf.GGUFWriter(path, "llama", use_temp_file=False)
    writer.add_file_type(FTYPES["f16"])
    writer.add_context_length(8192)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    rng = np.random.default_rng(0)
    kv = shape.hidden // shape.heads * shape.kv_heads

    def matrix(name: str, rows: int, columns: int) -> None:
        weights = rng.standard_normal((rows, columns), dtype=np.float32) / np.float32(columns**0.5)
        writer.add_tensor(name, weights.astype(np.float16))

    matrix("token_embd.weight", shape.vocabulary, shape.hidden)
    writer.add_tensor("output_norm.weight", np.full(shape.hidden, 4, np.float32))
    for n in range(shape.layers):
        for part in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{n}.{part}.weight", np.ones(shape.hidden, np.float32))
        matrix(f"blk.{n}.attn_q.weight", shape.hidden, shape.hidden)
        matrix(f"blk.{n}.attn_k.weight", kv, shape.hidden)
        matrix(f"blk.{n}.attn_v.weight", kv, shape.hidden)
        matrix(f"blk.{n}.attn_output.weight", shape.hidden, shape.hidden)
        matrix(f"blk.{n}.ffn_gate.weight", shape.feed_forward, shape.hidden)
        matrix(f"blk.{n}.ffn_up.weight", shape.feed_forward, shape.hidden)
        matrix(f"blk.{n}.ffn_down.weight", shape.hidden, shape.feed_forward)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
