"""Maximal marginal relevance: of passages that say the same, the best stands for all (Carbonell and Goldstein 1998)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def choose(relevance: Sequence[float], vectors: npt.NDArray[np.float32], *, k: int, diversity: float) -> list[int]:
    """The positions of the k to show, best first; ties by position.

    Args:
        relevance: Of each candidate, (n,), not negative; larger is better, on any scale.
        vectors: Of each candidate, (n, dim), of length 1.
        k: How many at most.
        diversity: 0 goes by relevance alone, 1 by difference from what was chosen before alone.
    """
    top = max(relevance, default=0.0) or 1.0
    worth = np.array(relevance, dtype=np.float64) / top
    likeness = (vectors @ vectors.T).astype(np.float64)
    nearest = np.zeros(len(worth))
    left = np.ones(len(worth), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(k, len(worth)):
        value = np.where(left, (1 - diversity) * worth - diversity * nearest, -np.inf)
        best = int(np.argmax(value)) if chosen else int(np.argmax(worth))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, likeness[best])
    return chosen
