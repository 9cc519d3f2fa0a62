"""MLX's own helpers with the types that they have here."""

from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten


def flat(tree: Any) -> dict[str, mx.array]:
    """The arrays of a tree by their names, as `model.layers.0.mlp.up_proj.weight`."""
    found = tree_flatten(tree)
    assert isinstance(found, list)
    return dict(found)


def tensors(file: Path) -> dict[str, mx.array]:
    """The arrays of a safetensors file, not read before they are used."""
    found = mx.load(str(file))
    assert isinstance(found, dict)
    return found


def number(x: mx.array) -> float:
    """The value of an array of one."""
    return float(x.item())  # type: ignore[arg-type]


def random_state() -> int:
    """MLX's random state, of which dropout is drawn; `mx.random.seed` goes on from it."""
    state: Any = mx.random.state
    high, low = state[0].tolist()
    return int(high) << 32 | int(low)
