"""Numbers that training starts from, drawn with NumPy so that torch and MLX start from the same ones."""

import hashlib
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def lora_init(shape: tuple[int, int], seed: int, name: str) -> NDArray[np.float32]:
    """First values of a LoRA matrix A, (rank, in): uniform within 1 / sqrt(in), as PEFT draws them. B starts at zero.

    Args:
        shape: rank and inputs of the layer.
        seed: of the phase.
        name: of the layer in the Hugging Face model, as `model.layers.0.self_attn.q_proj`; each has its own draw.
    """
    bound = 1 / math.sqrt(shape[1])
    return _generator(seed, name).uniform(-bound, bound, shape).astype(np.float32)


def mean_row(chunks: Iterable[NDArray[np.floating]]) -> NDArray[np.float32]:
    """Mean of embedding rows, (D,), for the row of a new token; summed in float64.

    Args:
        chunks: the rows, (n, D) at a time; those of real tokens only, not those that pad the table.
    """
    total: NDArray[np.float64] | None = None
    count = 0
    for chunk in chunks:
        part = np.asarray(chunk, dtype=np.float64).sum(axis=0)
        total = part if total is None else total + part
        count += len(chunk)
    if total is None or not count:
        raise ValueError("no rows to average")
    return (total / count).astype(np.float32)


def _generator(seed: int, name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
