"""Functions of the losses that stay finite and exact at their ends, in float64."""

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

LOG_HALF = -float(np.log(2.0))
MOST_MEAN = -1e-7
"""A mean log-prob is held to this or less: at 0 the odds are infinite. It is about float32's distance of 1 from the
number below it."""


def log_sigmoid(x: F64) -> F64:
    """Logarithm of s(x), without overflow on either side."""
    return -np.logaddexp(0.0, -np.asarray(x, dtype=np.float64))


def sigmoid(x: F64) -> F64:
    """s(x)."""
    return np.exp(log_sigmoid(x))


def log1mexp(a: F64) -> F64:
    """Logarithm of 1 - exp(a) for a < 0; by expm1 above -ln 2 and by log1p below, each where it is exact."""
    a = np.asarray(a, dtype=np.float64)
    near = a > LOG_HALF
    return np.where(near, np.log(-np.expm1(np.where(near, a, -1.0))), np.log1p(-np.exp(np.where(near, -1.0, a))))


def log_softmax(logits: F64) -> F64:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    made: F64 = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return made


def label_log_probs(logits: F64, labels: NDArray[np.integer]) -> F64:
    """Log-prob of each label: logits (…, L, V), labels (…, L). Returns (…, L)."""
    return np.take_along_axis(log_softmax(logits), labels[..., None], axis=-1)[..., 0]
