"""A trained Hugging Face folder as a folder that mlx-lm loads: weights in 16 bits, config, tokenizer.

One tensor is in memory at a time, and one shard. Names of tensors stay: mlx-lm maps them when it loads.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from preflexor_agents.errors import InputError, PreflexorError
from preflexor_quantize.files import Watch, Written, check_room
from preflexor_quantize.folder import read_folder, read_header
from preflexor_quantize.whole_folder import whole_folder

Dtype = Literal["bfloat16", "float16"]
SHARD_BYTES = 1 << 30
BITS = (2, 3, 4, 5, 6, 8)
"""What mlx-lm quantises to."""
_KEPT = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "vocab.json",
    "merges.txt",
)
_BUFFERS = (".rotary_emb.inv_freq", ".masked_bias")
"""Ends of names of what is computed, not learnt."""


class _Tensor(NamedTuple):
    file: Path
    name: str
    size_bytes: int


def export_mlx(source: Path, out: Path, *, dtype: Dtype, bits: int | None, watch: Watch) -> tuple[str, ...]:
    """Write the folder whole or not at all; return the names of its files.

    Args:
        source: folder that `save_pretrained` wrote.
        out: folder to make.
        dtype: of the weights.
        bits: quantise to so many, with mlx-lm; None to leave the weights in 16 bits.
        watch: told how far it has come.

    Raises:
        InputError: `source` is no usable model, `out` is there, or quantising is asked for without mlx-lm.
        PreflexorError: the disk has no room, or mlx-lm fails.
    """
    if bits is not None and bits not in BITS:
        raise InputError(f"--bits is {bits}; mlx-lm takes {', '.join(map(str, BITS))}")
    if bits is not None and importlib.util.find_spec("mlx_lm") is None:
        raise InputError("--bits needs mlx-lm, which is not installed: pip install 'preflexor-agents[mlx]'")
    model = read_folder(source)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    tensors = list(_tensors(source, tied=bool(config.get("tie_word_embeddings"))))
    check_room(out.absolute().parent, 2 * model.parameters if bits is None else 3 * model.parameters)
    with whole_folder(out) as work:
        plain = work if bits is None else work / "plain"
        plain.mkdir(exist_ok=True)
        _write_weights(plain, tensors, getattr(torch, dtype), watch)
        told = {**config, "dtype": dtype, "torch_dtype": dtype}
        (plain / "config.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        for name in _KEPT:
            if (source / name).is_file():
                shutil.copyfile(source / name, plain / name)
        if bits is not None:
            watch(Written(f"quantising to {bits} bits", 0, 0))
            _quantize(plain, work, bits)
        return tuple(sorted(f.name for f in work.iterdir()))


def _tensors(source: Path, *, tied: bool) -> Iterator[_Tensor]:
    for file in sorted(source.glob("model*.safetensors")):
        for name, elements in read_header(file).items():
            if not name.endswith(_BUFFERS) and not (tied and name == "lm_head.weight"):
                yield _Tensor(file, name, 2 * elements)


def _write_weights(out: Path, tensors: list[_Tensor], dtype: torch.dtype, watch: Watch) -> None:
    shards = _shards(tensors)
    total, done = sum(t.size_bytes for t in tensors), 0
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weights: dict[str, torch.Tensor] = {}
        for tensor in shard:
            weights[tensor.name] = _read(tensor, dtype)
            places[tensor.name] = name
            done += tensor.size_bytes
            watch(Written("writing weights", done, total))
        try:
            save_file(weights, out / name, metadata={"format": "mlx"})
        except SafetensorError as e:
            raise PreflexorError(f"the weights could not be written: {e}; make room or name another folder") from None
    index: dict[str, Any] = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _read(tensor: _Tensor, dtype: torch.dtype) -> torch.Tensor:
    """In the wanted numbers; whole numbers stay. Raises PreflexorError if a weight does not fit into them."""
    try:
        with safe_open(tensor.file, framework="pt") as opened:
            value: torch.Tensor = opened.get_tensor(tensor.name)
    except SafetensorError as e:
        raise InputError(f"{tensor.file} cannot be read: {e}; copy or download it again") from None
    if not value.is_floating_point():
        return value
    cast = value.to(dtype).contiguous()
    if not torch.isfinite(cast).all():
        what = (
            "is not finite" if not torch.isfinite(value).all() else f"does not fit into {dtype}; use bfloat16".strip()
        )
        raise PreflexorError(f"{tensor.name} in {tensor.file} {what}")
    return cast


def _shards(tensors: list[_Tensor]) -> list[list[_Tensor]]:
    """Neighbours together, each shard at most SHARD_BYTES unless one tensor alone is more."""
    shards: list[list[_Tensor]] = [[]]
    room = SHARD_BYTES
    for tensor in tensors:
        if shards[-1] and tensor.size_bytes > room:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(tensor)
        room -= tensor.size_bytes
    return shards


def _quantize(plain: Path, work: Path, bits: int) -> None:
    """With mlx-lm's own command, in a process of its own: it prints as it goes."""
    made = work / "quantized"
    command = [sys.executable, "-m", "mlx_lm", "convert", "--hf-path", str(plain), "--mlx-path", str(made)]
    done = subprocess.run([*command, "-q", "--q-bits", str(bits)], capture_output=True, text=True, check=False)
    if done.returncode or not (made / "config.json").is_file():
        last = (done.stderr.strip().splitlines() or ["it gives no reason"])[-1]
        raise PreflexorError(f"mlx-lm could not quantise to {bits} bits: {last}")
    shutil.rmtree(plain)
    (made / "README.md").unlink(missing_ok=True)  # it names the temporary folder as the model's origin
    for file in made.iterdir():
        file.rename(work / file.name)
    made.rmdir()
