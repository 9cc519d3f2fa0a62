"""Preference losses as functions of per-token log-probs and masks, in float32; the same as `torch_backend.losses`.

Differences to the reference are taken per token and summed afterwards: in float32 that loses a tenth of what summing
first loses.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import mlx.core as mx

from preflexor_training.recipes import Phase

CERTAIN = -1e-7
"""Largest mean log-prob of ORPO: at 0 the odds are infinite."""


class Side(NamedTuple):
    """One reply of each pair; tokens outside the mask count for nothing, whatever stands there."""

    logps: mx.array  # (B, L) under the policy
    mask: mx.array  # (B, L) bool
    reference: mx.array | None = None  # (B, L) under the reference; ORPO and SimPO have none


class Outcome(NamedTuple):
    """Losses and what is worth knowing about them."""

    loss: mx.array  # (B,)
    reward_chosen: mx.array  # (B,) beta x log-ratio to the reference; without one, beta x mean log-prob
    reward_rejected: mx.array  # (B,)
    logp_chosen: mx.array  # (B,) summed; without a reference the mean
    logp_rejected: mx.array  # (B,)


class _Ratios(NamedTuple):
    """What a loss with a reference is made of: log-ratios of policy to reference, summed under the mask, and counts."""

    chosen: mx.array  # (B,)
    rejected: mx.array  # (B,)
    chosen_tok: mx.array  # (B,)
    rejected_tok: mx.array  # (B,)


def preference(phase: Phase, chosen: Side, rejected: Side) -> Outcome:
    """The loss that a phase names, without ORPO's likelihood term, which is `nll`.

    Raises:
        KeyError: there is no such loss here.
    """
    if phase.loss in _FREE:
        good, bad = mean(chosen.logps, chosen.mask), mean(rejected.logps, rejected.mask)
        return Outcome(_FREE[phase.loss](good, bad, phase), phase.beta * good, phase.beta * bad, good, bad)
    ratios = _Ratios(_ratio(chosen), _ratio(rejected), _count(chosen.mask), _count(rejected.mask))
    return Outcome(
        LOSSES[phase.loss](ratios, phase.beta, phase.label_smoothing),
        phase.beta * ratios.chosen,
        phase.beta * ratios.rejected,
        total(chosen.logps, chosen.mask),
        total(rejected.logps, rejected.mask),
    )


def nll(logps: mx.array, mask: mx.array) -> mx.array:
    """ORPO's likelihood term: negative mean log-prob of the tokens in the mask, pooled over the rows as TRL pools."""
    kept = mx.where(mask, logps.astype(mx.float32), 0.0)
    return -kept.sum() / mx.maximum(mask.sum(), 1)


def log1mexp(x: mx.array) -> mx.array:
    """log(1 - exp(x)) of x < 0, exact at both ends and with finite gradients."""
    small = x > -math.log(2)
    near = mx.where(small, x, -1.0)
    far = mx.where(small, -1.0, x)
    return mx.where(small, mx.log(-mx.expm1(near)), mx.log1p(-mx.exp(far)))


def log_sigmoid(x: mx.array) -> mx.array:
    """Log of the logistic function, finite everywhere."""
    return -mx.logaddexp(mx.zeros_like(x), -x)


def total(values: mx.array, mask: mx.array) -> mx.array:
    """Sum of each row under the mask, (B,)."""
    return mx.where(mask, values.astype(mx.float32), 0.0).sum(axis=1)


def mean(values: mx.array, mask: mx.array) -> mx.array:
    """Mean of each row under the mask, (B,); 0 where the mask is empty."""
    return total(values, mask) / _count(mask)


def _count(mask: mx.array) -> mx.array:
    return mx.maximum(mask.sum(axis=1), 1)


def _ratio(side: Side) -> mx.array:
    if side.reference is None:
        raise TypeError("a loss with a reference was given no reference log-probs")
    return total(side.logps.astype(mx.float32) - side.reference.astype(mx.float32), side.mask)


def _orpo(good: mx.array, bad: mx.array, phase: Phase) -> mx.array:
    """The odds-ratio term (arXiv 2403.07691, eq. 7)."""
    a, b = mx.minimum(good, CERTAIN), mx.minimum(bad, CERTAIN)
    log_odds = (a - b) - (log1mexp(a) - log1mexp(b))
    return -phase.beta * log_sigmoid(log_odds)


def _simpo(good: mx.array, bad: mx.array, phase: Phase) -> mx.array:
    """SimPO (arXiv 2405.14734, eq. 6)."""
    return -log_sigmoid(phase.beta * (good - bad) - phase.gamma)


_FREE: Mapping[str, Callable[[mx.array, mx.array, Phase], mx.array]] = {"orpo": _orpo, "simpo": _simpo}


def _exo_pair(r: _Ratios, beta: float, eps: float) -> mx.array:
    """Reverse KL to the smoothed two-way preference (arXiv 2402.00856, eq. 16)."""
    x = beta * (r.chosen - r.rejected)
    right = mx.sigmoid(x) * (log_sigmoid(x) - math.log1p(-eps))
    wrong = mx.sigmoid(-x) * (log_sigmoid(-x) - math.log(eps))
    return right + wrong


def _sigmoid(r: _Ratios, beta: float, _eps: float) -> mx.array:
    """DPO (arXiv 2305.18290, eq. 7)."""
    return -log_sigmoid(beta * (r.chosen - r.rejected))


def _sigmoid_norm(r: _Ratios, beta: float, _eps: float) -> mx.array:
    """DPO of the ratios' means instead of their sums."""
    return -log_sigmoid(beta * _difference_of_means(r))


def _hinge(r: _Ratios, beta: float, _eps: float) -> mx.array:
    """SLiC (arXiv 2305.10425)."""
    return mx.maximum(1 - beta * (r.chosen - r.rejected), 0.0)


def _ipo(r: _Ratios, beta: float, _eps: float) -> mx.array:
    """IPO (arXiv 2310.12036, eq. 17) of the ratios' means, as its authors meant it."""
    return mx.square(_difference_of_means(r) - 1 / (2 * beta))


def _robust(r: _Ratios, beta: float, eps: float) -> mx.array:
    """DPO of labels that are wrong with probability `eps` (arXiv 2403.00409)."""
    x = beta * (r.chosen - r.rejected)
    return (eps * log_sigmoid(-x) - (1 - eps) * log_sigmoid(x)) / (1 - 2 * eps)


def _nca_pair(r: _Ratios, beta: float, _eps: float) -> mx.array:
    """NCA (arXiv 2402.05369)."""
    good, bad = beta * r.chosen, beta * r.rejected
    return -log_sigmoid(good) - 0.5 * (log_sigmoid(-good) + log_sigmoid(-bad))


def _bco_pair(r: _Ratios, beta: float, _eps: float) -> mx.array:
    """BCO of pairs, without its running mean (arXiv 2404.04656)."""
    return -log_sigmoid(beta * r.chosen) - log_sigmoid(-beta * r.rejected)


def _sppo_hard(r: _Ratios, beta: float, _eps: float) -> mx.array:
    """SPPO with hard labels (arXiv 2405.00675)."""
    return mx.square(r.chosen - 0.5 / beta) + mx.square(r.rejected + 0.5 / beta)


def _apo_zero(r: _Ratios, beta: float, _eps: float) -> mx.array:
    """APO for chosen replies better than the model's own (arXiv 2408.06266, eq. 7)."""
    return mx.sigmoid(-beta * r.chosen) + mx.sigmoid(beta * r.rejected)


def _apo_down(r: _Ratios, beta: float, _eps: float) -> mx.array:
    """APO for chosen replies worse than the model's own (arXiv 2408.06266, eq. 8)."""
    return mx.sigmoid(beta * r.chosen) + mx.sigmoid(-beta * (r.chosen - r.rejected))


def _difference_of_means(r: _Ratios) -> mx.array:
    return r.chosen / r.chosen_tok - r.rejected / r.rejected_tok


LOSSES: Mapping[str, Callable[[_Ratios, float, float], mx.array]] = {
    "exo_pair": _exo_pair,
    "sigmoid": _sigmoid,
    "sigmoid_norm": _sigmoid_norm,
    "hinge": _hinge,
    "ipo": _ipo,
    "robust": _robust,
    "nca_pair": _nca_pair,
    "bco_pair": _bco_pair,
    "sppo_hard": _sppo_hard,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
}
"""Losses with a reference, by TRL's names."""
