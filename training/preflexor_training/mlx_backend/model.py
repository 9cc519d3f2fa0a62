"""The model of a phase: loaded from its base, with rows for the tags that its vocabulary lacks, and what is trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear, quantize
from mlx_lm.tuner.lora import LoRALinear
from numpy.typing import NDArray

from preflexor_agents.backends import mlx_adapter, mlx_rows
from preflexor_agents.backends.mlx_adapter import Rows, Update
from preflexor_agents.backends.mlx_model import load_weights
from preflexor_agents.backends.mlx_rows import TokenRows
from preflexor_agents.errors import ConfigError, ModelError
from preflexor_training.initial import lora_init, mean_row
from preflexor_training.recipe_parts import Adapter, Phase

GROUPS = (64, 32)
"""Weights that share a scale in a quantised base: mlx-lm's default, and what narrow layers take."""
_ROWS_AT_ONCE = 8192


def dtype(phase: Phase) -> mx.Dtype:
    """What weights and activations are held in; weights that are trained are float32 in any case."""
    if phase.precision == "auto":
        return mx.bfloat16 if mx.default_device() == mx.Device(mx.gpu) else mx.float32
    found: mx.Dtype = getattr(mx, phase.precision)
    return found


def load_base(folder: Path, *, settings: Adapter, phase: Phase) -> tuple[Any, dict[str, Any]]:
    """mlx-lm's module of a folder, in evaluation mode and not quantised by us yet, and its configuration.

    Raises:
        ModelError: the folder holds no model that mlx-lm can load.
        ConfigError: it is quantised in another way than the recipe says, or all of it is to be trained.
    """
    held = dtype(phase) if settings.kind == "lora" else mx.float32
    model, config = load_weights(folder, dtype=held, lazy=settings.bits < 16)
    quantised = config.get("quantization")
    if isinstance(quantised, dict):
        if settings.kind == "full":
            raise ConfigError(f'{folder} is quantised and adapter.kind is "full"; use its whole form, or kind = "lora"')
        if settings.bits not in (16, quantised.get("bits")):
            raise ConfigError(
                f"adapter.bits is {settings.bits}, but {folder} is quantised to {quantised.get('bits')} bits; set it to"
                f" {quantised.get('bits')} or 16, which both leave it as it is"
            )
    return model, config


def add_rows(model: Any, *, known: int, total: int, new: tuple[int, ...]) -> None:
    """Give new tokens their rows, each the mean of the rows of known tokens. Tied embeddings stay tied.

    Args:
        model: just loaded.
        known: tokens before the new ones were added.
        total: tokens there are with them.
        new: ids of the new tokens.
    """
    if not new:
        return
    mlx_rows.grow(model, total)
    for _, table in mlx_rows.tables(model):
        mean = mx.array(mean_row(_chunks(table, known)))
        mlx_rows.set_rows(table, new, mx.broadcast_to(mean, (len(new), len(mean))))
        if "bias" in table:
            table.bias[mx.array(list(new))] = table.bias[:known].mean()


def attach(model: Any, settings: Adapter, *, new: tuple[int, ...], seed: int) -> None:
    """Make the model trainable as the settings say, everything else frozen; quantise what is frozen if asked.

    Raises:
        ConfigError: no layer bears the names of the targets.
        ModelError: the base's weights are damaged.
    """
    if settings.kind == "full":
        model.unfreeze()
        return
    names = targets(model, settings)
    if settings.bits < 16:
        _quantise(model, settings.bits)
    rows = _rows(model, new) if settings.token_rows and new else {}
    model.freeze()
    updates = {}
    for name in names:
        linear = mlx_rows.module_at(model, name)
        height, width = _shape(linear)
        a = mx.array(lora_init((settings.rank, width), seed, name))
        updates[name] = Update(a, mx.zeros((height, settings.rank)), settings.alpha / settings.rank)
    mlx_adapter.attach(model, mlx_adapter.Adapter(updates=updates, rows=rows, dropout=settings.dropout))
    model.unfreeze(keys=["lora_a", "lora_b", "rows"], strict=False)


def targets(model: Any, settings: Adapter) -> tuple[str, ...]:
    """The layers that get updates, in order. Raises ConfigError if there are none."""
    linear = [name for name, module in model.named_modules() if isinstance(module, Linear | QuantizedLinear)]
    linear = sorted(name for name in linear if name != mlx_rows.ends(model).head)
    if settings.targets == ("all-linear",):
        return tuple(linear)
    found = tuple(n for n in linear if any(n == t or n.endswith("." + t) for t in settings.targets))
    if not found:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear})) or "no linear layers"
        raise ConfigError(f"adapter.targets {', '.join(settings.targets)} are no layers of this model; it has {known}")
    return found


@contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """The base alone, for as long as the context is open."""
    on: dict[str, Module] = {}
    off: dict[str, Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear | TokenRows):
            on[name] = module
            off[name] = module.linear if isinstance(module, LoRALinear) else module.base
    mlx_rows.put(model, off)
    try:
        yield
    finally:
        mlx_rows.put(model, on)


def _rows(model: Any, ids: tuple[int, ...]) -> dict[str, Rows]:
    return {name: Rows(ids, mlx_rows.rows_of(table, ids)) for name, table in mlx_rows.tables(model)}


def _quantise(model: Any, bits: int) -> None:
    """As mlx-lm does: every layer whose width the groups divide; what is quantised already stays."""
    for group in GROUPS:

        def wanted(_: str, module: Any, group: int = group) -> bool:
            return isinstance(module, Linear | Embedding) and module.weight.shape[-1] % group == 0

        quantize(model, group_size=group, bits=bits, class_predicate=wanted)
    try:
        mx.eval(model.parameters())
    except RuntimeError as e:
        raise ModelError(f"the base cannot be read: {' '.join(str(e).split())[:160]}; download it again") from None


def _shape(linear: Any) -> tuple[int, int]:
    height, width = linear.weight.shape
    return height, width * 32 // linear.bits if isinstance(linear, QuantizedLinear) else width


def _chunks(table: Any, count: int) -> Iterator[NDArray[np.float32]]:
    for at in range(0, count, _ROWS_AT_ONCE):
        yield np.array(mlx_rows.rows_of(table, slice(at, min(count, at + _ROWS_AT_ONCE))))
