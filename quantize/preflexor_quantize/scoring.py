"""How far a file is from the one it was made of: divergence of the next-token distributions on held-out text."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from preflexor_agents.errors import PreflexorError
from preflexor_quantize.engine import Engine
from preflexor_quantize.files import PARTIAL, Watch, Written, ignore
from preflexor_quantize.imatrix import windows_of

WINDOW_TOK, MOST_WINDOWS = 256, 24
_ROWS = 16
"""Positions at a time, in float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """A file against the floats it was made of; the second half of each window is scored."""

    mean_kl: float
    """Nats."""
    p99_kl: float
    """99th percentile, nats."""
    top1: float
    """Share of positions with the same likeliest token."""
    rms_dp: float
    """Root mean square change of the probability of the text's own token."""
    perplexity: float
    base_perplexity: float
    scored_tok: int


class _Scores(NamedTuple):
    """Per position."""

    kl: np.ndarray
    same: np.ndarray
    base_nll: np.ndarray
    nll: np.ndarray


def compare(base: Path, other: Path, text: str, *, watch: Watch = ignore) -> Fidelity:
    """Run both over the text, window by window, so that no more than one window's logits are held.

    Raises:
        ModelError: a file cannot be loaded.
        PreflexorError: they have different vocabularies, or the other's logits are no numbers.
    """
    parts = []
    with Engine(base, context_tok=WINDOW_TOK) as first, Engine(other, context_tok=WINDOW_TOK) as second:
        if first.token_kinds() != second.token_kinds():
            raise PreflexorError(f"{other.name} has other tokens than {base.name}")
        windows = windows_of(first.tokens_of(text), window_tok=first.context_tok, most=MOST_WINDOWS)
        for n, window in enumerate(windows):
            half = len(window) // 2
            p, q = first.logits(window, first=half)[:-1], second.logits(window, first=half)[:-1]
            if not np.isfinite(q).all():
                raise PreflexorError(f"{other.name} computes no numbers on ordinary text; choose a larger type")
            parts.append(_score(p, q, np.asarray(window[half + 1 :])))
            watch(Written(f"measure {other.name.removesuffix(PARTIAL)}", n + 1, len(windows)))
    kl, same, base_nll, nll = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Fidelity(
        mean_kl=float(kl.mean()),
        p99_kl=float(np.quantile(kl, 0.99)),
        top1=float(same.mean()),
        rms_dp=float(np.sqrt(np.mean((np.exp(-nll) - np.exp(-base_nll)) ** 2))),
        perplexity=math.exp(nll.mean()),
        base_perplexity=math.exp(base_nll.mean()),
        scored_tok=len(kl),
    )


def _score(p: np.ndarray, q: np.ndarray, targets: np.ndarray) -> _Scores:
    """`p` and `q` are logits, (N, V); `targets` the tokens that follow, (N,)."""
    pieces = []
    for start in range(0, len(p), _ROWS):
        rows = slice(start, start + _ROWS)
        log_p, log_q = _log_softmax(p[rows]), _log_softmax(q[rows])
        at = (np.arange(len(log_p)), targets[rows])
        kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
        pieces.append(_Scores(np.maximum(kl, 0), log_p.argmax(1) == log_q.argmax(1), -log_p[at], -log_q[at]))
    return _Scores(*(np.concatenate(column) for column in zip(*pieces, strict=True)))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x
