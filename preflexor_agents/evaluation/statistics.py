"""How sure a share, a mean and a difference are. NumPy; every interval is at 95 % unless said otherwise."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
"""Enough that the ends of an interval move by less than a tenth of its width from seed to seed."""
_Z = 1.959964


class Interval(NamedTuple):
    """An estimate with the ends of its interval."""

    value: float
    low: float
    high: float

    def overlaps(self, other: "Interval") -> bool:
        """Whether the two intervals share a value."""
        return self.low <= other.high and other.low <= self.high


class Paired(NamedTuple):
    """Two systems on the same questions."""

    difference: Interval
    """Mean of second minus first, by a bootstrap over the questions."""
    p: float
    """Two-sided; exact sign test over the questions in which the two differ (McNemar's for right or wrong)."""
    better: int
    worse: int
    equal: int


def wilson(right: float, of: int) -> Interval:
    """A share by Wilson's score interval (1927); of nothing, everything is possible.

    Args:
        right: how many are right; a part of one where several answers to a question were averaged.
        of: how many there are.
    """
    if of == 0:
        return Interval(0.0, 0.0, 1.0)
    p = right / of
    middle = (p + _Z * _Z / (2 * of)) / (1 + _Z * _Z / of)
    half = _Z * math.sqrt(p * (1 - p) / of + _Z * _Z / (4 * of * of)) / (1 + _Z * _Z / of)
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half))


def bootstrap(values: Sequence[float], *, groups: Sequence[str] | None = None, seed: int = 0) -> Interval:
    """The mean by a percentile bootstrap (Efron 1979).

    Args:
        values: one for each observation, (N,).
        groups: what belongs together and is drawn together, as the question that several seeds answer, (N,).
        seed: of the resampling.
    """
    if not values:
        return Interval(math.nan, math.nan, math.nan)
    sums, counts = _grouped(np.asarray(values, dtype=np.float64), groups)
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, 500):
        drawn = rng.integers(len(sums), size=(500, len(sums)))
        means[start : start + 500] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(np.mean(values)), float(low), float(high))


def paired(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Paired:
    """Compare two systems question by question; both sequences are in the same order of questions, (N,)."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} results against {len(second)}; both must answer the same questions")
    gained = [b - a for a, b in zip(first, second, strict=True)]
    better, worse = sum(g > 0 for g in gained), sum(g < 0 for g in gained)
    return Paired(bootstrap(gained, seed=seed), sign_test(better, worse), better, worse, len(gained) - better - worse)


def sign_test(better: int, worse: int) -> float:
    """The two-sided exact probability of a split at least as uneven as this one if both were as likely."""
    n, k = better + worse, min(better, worse)
    if n == 0:
        return 1.0
    log_half = n * math.log(2)
    tail = sum(math.exp(_log_choose(n, i) - log_half) for i in range(k + 1))
    return min(1.0, 2 * tail)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _grouped(
    values: NDArray[np.float64], groups: Sequence[str] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the values of each group, (G,) each."""
    if groups is None:
        return values, np.ones_like(values)
    _, at = np.unique(np.asarray(groups), return_inverse=True)
    return np.bincount(at, weights=values).astype(np.float64), np.bincount(at).astype(np.float64)
