"""Writes base and what was learnt as one Hugging Face folder, tensor by tensor under the base's own names.

One tensor is computed at a time, in float32. What mlx-lm quantised is written as what it stands for.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from preflexor_agents.backends.mlx_adapter import Rows, Update
from preflexor_agents.errors import ModelError, TrainingError
from preflexor_training.mlx_backend.trees import tensors

SHARD_BYTES = 2 << 30
_COPIED = ("generation_config.json",)
_QUANTISED = ("quantization", "quantization_config")
_HEAD = "lm_head.weight"
_COMPUTED = (".rotary_emb.inv_freq", ".masked_bias")


class Merge(NamedTuple):
    """What changed."""

    updates: Mapping[str, Update]
    """LoRA updates, by the name of the layer."""
    rows: Mapping[str, Rows]
    """Rows of embedding and head that are new or were trained, by the name of the module."""
    whole: Mapping[str, mx.array] | None = None
    """Every weight by its name, if all were trained."""


def write(base: Path, out: Path, merge: Merge, *, vocabulary: int, tied: bool, tokenizer: Any) -> None:
    """Write the merged model.

    Args:
        base: folder that was trained from.
        out: folder to write into; made if need be.
        merge: what changed.
        vocabulary: rows of the embeddings.
        tied: whether the embeddings are the output head too.
        tokenizer: with its tags.

    Raises:
        TrainingError: the disk is full, or the base's tensors have other names than the model's.
    """
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    quantised = next((config[name] for name in _QUANTISED if isinstance(config.get(name), dict)), None)
    found: set[str] = set()
    dtypes: set[mx.Dtype] = set()

    def merged() -> Iterator[tuple[str, mx.array]]:
        for name, tensor in _tensors(base, quantised):
            if name.endswith(_COMPUTED) or (tied and name == _HEAD):
                continue
            found.add(name)
            made = _merged(name, tensor, merge, vocabulary)
            if mx.issubdtype(made.dtype, mx.floating) and not mx.isfinite(made).all().item():
                raise TrainingError(f"{name} is not finite after the merge; go back to an earlier checkpoint")
            dtypes.add(made.dtype)
            yield name, made

    missing = {f"{name}.weight" for name in (*merge.updates, *merge.rows)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write_shards(merged(), out)
        if missing - found:
            raise TrainingError(f"{base} has no tensor {min(missing - found)} to merge into; use --backend trl for it")
        for name in (*_QUANTISED, "torch_dtype"):
            config.pop(name, None)
        config["dtype"] = "float32" if mx.float32 in dtypes else str(dtypes.pop()).removeprefix("mlx.core.")
        about = config if "vocab_size" in config or "text_config" not in config else config["text_config"]
        about["vocab_size"] = vocabulary
        (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in _COPIED:
            if (base / name).is_file():
                shutil.copyfile(base / name, out / name)
        tokenizer.save_pretrained(str(out))
    except (OSError, RuntimeError) as e:
        raise TrainingError(f"{out} cannot be written: {' '.join(str(e).split())[:160]}; make room") from None


def names(base: Path) -> set[str]:
    """The tensors of a folder, those that are only computed left out."""
    return {name for file in base.glob("model*.safetensors") for name in tensors(file) if not name.endswith(_COMPUTED)}


def _merged(name: str, tensor: mx.array, merge: Merge, vocabulary: int) -> mx.array:
    """What a tensor of the base becomes; float32 where it changed, since 16 bits swallow small changes."""
    if merge.whole is not None:
        return merge.whole[name]
    module = name.removesuffix(".weight")
    if module in merge.updates:
        a, b, scale = merge.updates[module]
        return tensor.astype(mx.float32) + (scale * b.astype(mx.float32)) @ a.astype(mx.float32)
    if module in merge.rows:
        ids, values = merge.rows[module]
        table = tensor.astype(mx.float32)
        if missing := max(0, vocabulary - table.shape[0]):
            table = mx.concatenate([table, mx.zeros((missing, table.shape[1]))])
        table[mx.array(list(ids))] = values.astype(mx.float32)
        return table
    return tensor.astype(mx.float32) if tensor.dtype in (mx.float16, mx.bfloat16) else tensor


def _tensors(base: Path, quantised: dict[str, Any] | None) -> Iterator[tuple[str, mx.array]]:
    """Every tensor of a folder by name; those that mlx-lm quantised as what they stand for."""
    for file in sorted(base.glob("model*.safetensors")):
        loaded = tensors(file)
        for name in sorted(loaded):
            module, _, part = name.rpartition(".")
            if f"{module}.scales" not in loaded:
                yield name, loaded[name]
            elif part == "weight":
                own = (quantised or {}).get(module)
                about = own if isinstance(own, dict) else (quantised or {})
                if not about:
                    raise ModelError(f"{base} holds quantised weights, and its config.json does not say how")
                yield (
                    name,
                    mx.dequantize(
                        loaded[name],
                        loaded[f"{module}.scales"],
                        loaded.get(f"{module}.biases"),
                        group_size=about["group_size"],
                        bits=about["bits"],
                        mode=about.get("mode", "affine"),
                    ),
                )
            elif part == "bias":
                yield name, loaded[name]


def _write_shards(named: Iterator[tuple[str, mx.array]], out: Path) -> None:
    """Shards of at most SHARD_BYTES, with an index if there are several."""
    shard: dict[str, mx.array] = {}
    files: list[tuple[Path, list[str]]] = []
    size = total = 0

    def flush() -> None:
        nonlocal shard, size
        file = out / f"part-{len(files)}.safetensors"
        mx.save_safetensors(str(file), shard, metadata={"format": "pt"})
        files.append((file, list(shard)))
        shard, size = {}, 0

    for name, tensor in named:
        if shard and size + tensor.nbytes > SHARD_BYTES:
            flush()
        shard[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    if len(files) == 1:
        files[0][0].rename(out / "model.safetensors")
        return
    places: dict[str, str] = {}
    for n, (file, names) in enumerate(files, 1):
        final = f"model-{n:05d}-of-{len(files):05d}.safetensors"
        file.rename(out / final)
        places |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
