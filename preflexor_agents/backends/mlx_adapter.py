"""LoRA adapters on MLX models: PEFT's files and mlx-lm's are read, PEFT's are written, token rows included.

MLX keeps the two matrices transposed and the scale as one number; as values here they are PEFT's way round. Rows of
tags have no place in mlx-lm's own files, so they lie beside them in a file that mlx-lm does not look at.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear
from mlx_lm.tuner.lora import LoRALinear

from preflexor_agents.backends.mlx_rows import TokenRows, ends, grow, module_at, put
from preflexor_agents.errors import ModelError

CONFIG = "adapter_config.json"
PEFT_FILE, MLX_FILE, ROWS_FILE = "adapter_model.safetensors", "adapters.safetensors", "token_rows.safetensors"
_PREFIX = "base_model.model."
_ROWS = ".token_adapter.trainable_tokens_delta"


class Update(NamedTuple):
    """What is added to a layer's weight: scale x b @ a."""

    a: mx.array  # (r, in)
    b: mx.array  # (out, r)
    scale: float


class Rows(NamedTuple):
    """Rows of an embedding or a head that take the place of the table's."""

    ids: tuple[int, ...]
    values: mx.array  # (K, D)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What was learnt, by the names of the modules."""

    updates: dict[str, Update] = field(default_factory=dict)
    rows: dict[str, Rows] = field(default_factory=dict)
    dropout: float = 0.0
    base: str = ""
    """The model that it was trained on, as its file names it."""


def read(folder: Path) -> Adapter:
    """An adapter in PEFT's files or in mlx-lm's.

    Raises:
        ModelError: it is none, damaged, or changes the model in ways that cannot be applied here.
    """
    config = _config(folder)
    if (folder / PEFT_FILE).is_file():
        return _from_peft(folder, config)
    if (folder / MLX_FILE).is_file():
        return _from_mlx(folder, config)
    pickled = sorted(folder.glob("adapter_model.*"))
    why = f"has {pickled[0].name}, a pickle" if pickled else f"has neither {PEFT_FILE} nor {MLX_FILE}"
    raise ModelError(f"{folder} {why}; save the adapter again as safetensors")


def write_peft(adapter: Adapter, folder: Path) -> None:
    """PEFT's files, into a folder that is there."""
    tensors: dict[str, mx.array] = {}
    for name, update in adapter.updates.items():
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = update.a
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = update.b
    for name, rows in adapter.rows.items():
        tensors[f"{_PREFIX}{name}{_ROWS}"] = rows.values
    ranks = {name: int(u.a.shape[0]) for name, u in adapter.updates.items()}
    alphas = {name: u.scale * ranks[name] for name, u in adapter.updates.items()}
    rank, alpha = _usual(ranks.values(), 1), _usual(alphas.values(), 1.0)
    own = {name.rpartition(".")[2]: list(rows.ids) for name, rows in adapter.rows.items()}
    indices = next(iter(own.values())) if list(own) == ["embed_tokens"] else own
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapter.base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": adapter.dropout,
        "rank_pattern": {name: r for name, r in ranks.items() if r != rank},
        "alpha_pattern": {name: a for name, a in alphas.items() if a != alpha},
        "target_modules": sorted(adapter.updates),
        "trainable_token_indices": indices or None,
        "bias": "none",
        "inference_mode": True,
    }
    mx.save_safetensors(str(folder / PEFT_FILE), tensors, metadata={"format": "pt"})
    _write_config(folder, fields)


def write_mlx(adapter: Adapter, folder: Path) -> None:
    """The files of mlx-lm, into a folder that is there; rows of tags beside them, which mlx-lm itself does not read.

    Raises:
        ModelError: the updates differ in rank or scale, which these files cannot say.
    """
    kinds = {(int(u.a.shape[0]), u.scale) for u in adapter.updates.values()}
    if len(kinds) != 1:
        raise ModelError(f"the adapter's updates have ranks and scales {sorted(kinds)}; mlx-lm takes one for all")
    ((rank, scale),) = kinds
    tensors: dict[str, mx.array] = {}
    for name, update in adapter.updates.items():
        tensors[f"{name}.lora_a"] = mx.contiguous(update.a.T)
        tensors[f"{name}.lora_b"] = mx.contiguous(update.b.T)
    told = {"rank": rank, "scale": scale, "dropout": adapter.dropout, "keys": sorted(adapter.updates)}
    mx.save_safetensors(str(folder / MLX_FILE), tensors, metadata={"format": "mlx"})
    if adapter.rows:
        rows = {name: rows.values for name, rows in adapter.rows.items()}
        ids = {name: json.dumps(rows.ids) for name, rows in adapter.rows.items()}
        mx.save_safetensors(str(folder / ROWS_FILE), rows, metadata=ids)
    _write_config(folder, {"fine_tune_type": "lora", "model": adapter.base, "num_layers": 0, "lora_parameters": told})


def attach(model: Module, adapter: Adapter) -> None:
    """Put an adapter onto a model, whose embeddings grow if it has rows for more tokens.

    Raises:
        ModelError: it does not fit.
    """
    if adapter.rows:
        grow(model, 1 + max(max(rows.ids) for rows in adapter.rows.values()))
    modules: dict[str, Module] = {}
    for name, update in adapter.updates.items():
        linear = _found(model, name)
        if not isinstance(linear, Linear | QuantizedLinear):
            raise ModelError(f"the adapter changes {name}, which is no linear layer of this model")
        rank, width = update.a.shape
        made = LoRALinear.from_base(linear, r=rank, dropout=adapter.dropout, scale=update.scale)
        if (made.lora_a.shape, made.lora_b.shape) != ((width, rank), update.b.T.shape):
            raise ModelError(f"the adapter does not fit {name}; give the base that it was trained on")
        made.lora_a, made.lora_b = mx.contiguous(update.a.T), mx.contiguous(update.b.T)
        modules[name] = made
    for name, rows in adapter.rows.items():
        table = _found(model, name)
        if "weight" not in table or rows.values.shape[0] != len(rows.ids):
            raise ModelError(f"the adapter has rows for {name}, which is no embedding of this model")
        modules[name] = TokenRows(table, rows.ids, rows.values)
    put(model, modules)
    mx.eval(model.parameters())  # type: ignore[no-untyped-call]


def taken(model: Module, *, base: str = "") -> Adapter:
    """The adapter that is on a model, with its values as they are."""
    updates: dict[str, Update] = {}
    rows: dict[str, Rows] = {}
    dropout = 0.0
    for name, module in model.named_modules():  # type: ignore[no-untyped-call]
        if isinstance(module, LoRALinear):
            a, b = mx.contiguous(module.lora_a.T), mx.contiguous(module.lora_b.T)
            updates[name] = Update(a, b, float(module.scale))
            dropout = 1 - module.dropout._p_1
        elif isinstance(module, TokenRows):
            rows[name] = Rows(module.ids, module.rows)
    return Adapter(updates=dict(sorted(updates.items())), rows=rows, dropout=round(dropout, 9), base=base)


def base_folder(folder: Path) -> Path:
    """The model that an adapter was trained on. Raises ModelError if its folder is not there."""
    config = _config(folder)
    named = str(config.get("base_model_name_or_path") or config.get("model") or "")
    for found in (Path(named).expanduser(), folder / named):
        if named and (found / "config.json").is_file():
            return found
    raise ModelError(f"{folder} is an adapter of {named!r}, which is no folder here; put the base there or merge it")


def _from_peft(folder: Path, config: dict[str, Any]) -> Adapter:
    kind = config.get("peft_type", "LORA")
    if (
        kind != "LORA"
        or config.get("use_dora")
        or config.get("modules_to_save")
        or config.get("bias", "none") != "none"
    ):
        raise ModelError(f"{folder} changes more than LoRA matrices and token rows; merge it first: preflexor merge")
    tensors = _tensors(folder / PEFT_FILE)
    updates: dict[str, Update] = {}
    rows: dict[str, Rows] = {}
    indices = config.get("trainable_token_indices") or {}
    for key, tensor in tensors.items():
        name = key.removeprefix(_PREFIX)
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight")
            b = tensors.get(f"{_PREFIX}{module}.lora_B.weight")
            if b is None:
                raise ModelError(f"{folder} has half of an update for {module}; save the adapter again")
            rank = tensor.shape[0]
            alpha = _pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", rank))
            updates[module] = Update(tensor, b, alpha / (rank**0.5 if config.get("use_rslora") else rank))
        elif name.endswith(_ROWS):
            module = name.removesuffix(_ROWS)
            ids = indices if isinstance(indices, list) else indices.get(module.rpartition(".")[2])
            if not isinstance(ids, list) or len(ids) != tensor.shape[0]:
                raise ModelError(f"{folder} does not say whose rows {module} has; save the adapter again")
            rows[module] = Rows(tuple(int(i) for i in ids), tensor)
        elif not name.endswith(".lora_B.weight"):
            raise ModelError(f"{folder} holds {key}, which cannot be applied here; merge it first: preflexor merge")
    base = str(config.get("base_model_name_or_path") or "")
    return Adapter(updates=updates, rows=rows, dropout=float(config.get("lora_dropout") or 0.0), base=base)


def _from_mlx(folder: Path, config: dict[str, Any]) -> Adapter:
    about = config.get("lora_parameters")
    if config.get("fine_tune_type", "lora") != "lora" or not isinstance(about, dict):
        raise ModelError(f"{folder} was trained as {config.get('fine_tune_type')!r}; fuse it first: mlx_lm.fuse")
    tensors = _tensors(folder / MLX_FILE)
    updates: dict[str, Update] = {}
    for key in tensors:
        name, _, part = key.rpartition(".")
        if part not in ("lora_a", "lora_b") or f"{name}.lora_a" not in tensors or f"{name}.lora_b" not in tensors:
            raise ModelError(f"{folder} holds {key}, which is no LoRA matrix; fuse it first: mlx_lm.fuse")
        a, b = mx.contiguous(tensors[f"{name}.lora_a"].T), mx.contiguous(tensors[f"{name}.lora_b"].T)
        updates[name] = Update(a, b, float(about.get("scale", 1.0)))
    rows: dict[str, Rows] = {}
    if (folder / ROWS_FILE).is_file():
        values: dict[str, mx.array]
        ids: dict[str, str]
        values, ids = mx.load(str(folder / ROWS_FILE), return_metadata=True)  # type: ignore[assignment]
        rows = {name: Rows(tuple(json.loads(ids[name])), value) for name, value in values.items()}
    base = str(config.get("model") or "")
    return Adapter(updates=updates, rows=rows, dropout=float(about.get("dropout", 0.0)), base=base)


def _tensors(file: Path) -> dict[str, mx.array]:
    try:
        found = mx.load(str(file))
        mx.eval(found)
    except (RuntimeError, ValueError) as e:
        raise ModelError(f"{file} cannot be read: {' '.join(str(e).split())[:160]}; copy it again") from None
    assert isinstance(found, dict)
    return found


def _found(model: Module, name: str) -> Any:
    try:
        return module_at(model, name)
    except (AttributeError, LookupError, ValueError, TypeError):
        raise ModelError(f"the adapter changes {name}, which this model does not have; give its own base") from None


def _pattern(patterns: Any, module: str, otherwise: Any) -> float:
    for pattern, value in (patterns or {}).items():
        if module == pattern or module.endswith("." + pattern):
            return float(value)
    return float(otherwise)


def _usual(values: Any, otherwise: Any) -> Any:
    found = list(values)
    return max(found, key=found.count) if found else otherwise


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ModelError(f"{folder} has no readable {CONFIG}; give the folder of a LoRA adapter") from None
    if not isinstance(found, dict):
        raise ModelError(f"{folder / CONFIG} is no JSON object; save the adapter again")
    return found


def _write_config(folder: Path, fields: dict[str, Any]) -> None:
    (folder / CONFIG).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def tied(model: Module) -> bool:
    """Whether the embeddings are the output head too."""
    return ends(model).head is None
