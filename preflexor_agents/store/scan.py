"""Exact search among vectors in memory: one pass of BLAS, then the best again in double precision.

The second look makes scores independent of where a row stands in the matrix, so that equal vectors tie exactly and
every way of searching gives the same hits in the same order.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LITTLE_FLOAT = np.dtype("<f4")
"""How a vector's numbers stand in the file."""
SLACK = 1e-5
"""More than single precision can be wrong by in the product of two vectors of length 1."""
_BLOCK = 4096


class Hit(NamedTuple):
    """A chunk found by one side of the search; larger scores are better."""

    chunk_id: int
    score: float


def nearest(
    ids: npt.NDArray[np.int64], rows: npt.NDArray[np.float32], vector: npt.NDArray[np.float32], *, k: int
) -> list[Hit]:
    """The k rows, (n, dim), with the largest product with the vector, (dim,), best first, ties by id, (n,)."""
    return _ordered(ids, rows, vector, rows @ vector, k=k)


def nearest_at(
    positions: npt.NDArray[np.intp],
    ids: npt.NDArray[np.int64],
    rows: npt.NDArray[np.float32],
    vector: npt.NDArray[np.float32],
    *,
    k: int,
) -> list[Hit]:
    """As `nearest`, among the rows at the given positions only."""
    if 4 * len(positions) < len(ids):
        return nearest(ids[positions], rows[positions], vector, k=k)
    scores = np.full(len(ids), -np.inf, dtype=np.float32)
    scores[positions] = (rows @ vector)[positions]
    return _ordered(ids, rows, vector, scores, k=min(k, len(positions)))


def products(rows: npt.NDArray[np.float32], vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The products of rows, (n, dim), with a vector, each summed in the same order wherever the row stands."""
    wide = vector.astype(np.float64)
    parts = [np.multiply(rows[i : i + _BLOCK], wide).sum(axis=1) for i in range(0, len(rows), _BLOCK)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _ordered(
    ids: npt.NDArray[np.int64],
    rows: npt.NDArray[np.float32],
    vector: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    *,
    k: int,
) -> list[Hit]:
    if k == 0 or not len(scores):
        return []
    cut = np.partition(scores, len(scores) - k)[len(scores) - k] - SLACK if k < len(scores) else -np.inf
    chosen = np.flatnonzero(scores >= cut)
    exact = products(rows[chosen], vector)
    order = np.lexsort((ids[chosen], -exact))[:k]
    return [Hit(int(ids[chosen[i]]), float(exact[i])) for i in order]
