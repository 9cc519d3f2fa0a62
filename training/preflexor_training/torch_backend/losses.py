"""Preference losses as functions of per-token log-probs and masks, in float32.

Differences to the reference are taken per token and summed afterwards: in float32 that loses a tenth of what summing
first loses. The definitions are those of TRL 1.16, so that a recipe trains the same there.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

CERTAIN = -1e-7
"""Largest mean log-prob of ORPO: at 0 the odds are infinite."""


class Side(NamedTuple):
    """One reply of each pair; tokens outside the mask count for nothing, whatever stands there."""

    logps: Tensor  # (B, L) under the policy
    mask: Tensor  # (B, L) bool
    reference: Tensor | None = None  # (B, L) under the reference; ORPO has none


class Outcome(NamedTuple):
    """Losses and what is worth knowing about them; nothing but `loss` carries a gradient."""

    loss: Tensor  # (B,)
    reward_chosen: Tensor  # (B,) beta x log-ratio to the reference; without one, beta x mean log-prob
    reward_rejected: Tensor  # (B,)
    logp_chosen: Tensor  # (B,) summed; without a reference the mean
    logp_rejected: Tensor  # (B,)


class _Ratios(NamedTuple):
    """What a loss with a reference is made of: log-ratios of policy to reference, summed under the mask, and counts."""

    chosen: Tensor  # (B,)
    rejected: Tensor  # (B,)
    chosen_tok: Tensor  # (B,)
    rejected_tok: Tensor  # (B,)


def orpo(chosen: Side, rejected: Side, *, beta: float) -> Outcome:
    """ORPO's odds-ratio term (arXiv 2403.07691, eq. 7) without its likelihood term, which is `nll`."""
    good, bad = mean(chosen.logps, chosen.mask), mean(rejected.logps, rejected.mask)
    a, b = good.clamp(max=CERTAIN), bad.clamp(max=CERTAIN)
    log_odds = (a - b) - (log1mexp(a) - log1mexp(b))
    loss = -beta * functional.logsigmoid(log_odds)
    good, bad = good.detach(), bad.detach()
    return Outcome(loss, beta * good, beta * bad, good, bad)


def simpo(chosen: Side, rejected: Side, *, beta: float, gamma: float) -> Outcome:
    """SimPO (arXiv 2405.14734, eq. 6): DPO of mean log-probs without a reference, with a margin of gamma."""
    good, bad = mean(chosen.logps, chosen.mask), mean(rejected.logps, rejected.mask)
    loss = -functional.logsigmoid(beta * (good - bad) - gamma)
    good, bad = good.detach(), bad.detach()
    return Outcome(loss, beta * good, beta * bad, good, bad)


def nll(logps: Tensor, mask: Tensor) -> Tensor:
    """ORPO's likelihood term: negative mean log-prob of the tokens in the mask, pooled over the rows as TRL pools."""
    kept = torch.where(mask, logps.float(), 0.0)
    return -kept.sum() / mask.sum().clamp(min=1)


def preference(name: str, chosen: Side, rejected: Side, *, beta: float, label_smoothing: float = 0.0) -> Outcome:
    """A loss with a reference, by TRL's name.

    Args:
        name: one of `LOSSES`.
        chosen: the preferred replies.
        rejected: the others.
        beta: strength of the pull to the reference.
        label_smoothing: epsilon of `exo_pair` and `robust`; the others ignore it.

    Raises:
        KeyError: there is no such loss.
    """
    ratios = _Ratios(_ratio(chosen), _ratio(rejected), chosen.mask.sum(1), rejected.mask.sum(1))
    loss = LOSSES[name](ratios, beta, label_smoothing)
    return Outcome(
        loss,
        beta * ratios.chosen.detach(),
        beta * ratios.rejected.detach(),
        total(chosen.logps, chosen.mask).detach(),
        total(rejected.logps, rejected.mask).detach(),
    )


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) of x < 0, exact at both ends and with finite gradients."""
    small = x > -math.log(2)
    near = torch.where(small, x, -1.0)
    far = torch.where(small, -1.0, x)
    return torch.where(small, torch.log(-torch.expm1(near)), torch.log1p(-torch.exp(far)))


def total(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of each row under the mask, (B,)."""
    return torch.where(mask, values.float(), 0.0).sum(1)


def mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of each row under the mask, (B,); 0 where the mask is empty."""
    return total(values, mask) / mask.sum(1).clamp(min=1)


def _ratio(side: Side) -> Tensor:
    if side.reference is None:
        raise TypeError("a loss with a reference was given no reference log-probs")
    return total(side.logps.float() - side.reference.float(), side.mask)


def _exo_pair(r: _Ratios, beta: float, eps: float) -> Tensor:
    """Reverse KL to the smoothed two-way preference (arXiv 2402.00856, eq. 16)."""
    x = beta * (r.chosen - r.rejected)
    right = torch.sigmoid(x) * (functional.logsigmoid(x) - math.log1p(-eps))
    wrong = torch.sigmoid(-x) * (functional.logsigmoid(-x) - math.log(eps))
    return right + wrong


def _sigmoid(r: _Ratios, beta: float, _eps: float) -> Tensor:
    """DPO (arXiv 2305.18290, eq. 7)."""
    return -functional.logsigmoid(beta * (r.chosen - r.rejected))


def _sigmoid_norm(r: _Ratios, beta: float, _eps: float) -> Tensor:
    """DPO of the ratios' means instead of their sums."""
    return -functional.logsigmoid(beta * _difference_of_means(r))


def _hinge(r: _Ratios, beta: float, _eps: float) -> Tensor:
    """SLiC (arXiv 2305.10425)."""
    return torch.relu(1 - beta * (r.chosen - r.rejected))


def _ipo(r: _Ratios, beta: float, _eps: float) -> Tensor:
    """IPO (arXiv 2310.12036, eq. 17) of the ratios' means, as its authors meant it."""
    return (_difference_of_means(r) - 1 / (2 * beta)) ** 2


def _robust(r: _Ratios, beta: float, eps: float) -> Tensor:
    """DPO of labels that are wrong with probability `eps` (arXiv 2403.00409)."""
    x = beta * (r.chosen - r.rejected)
    return (eps * functional.logsigmoid(-x) - (1 - eps) * functional.logsigmoid(x)) / (1 - 2 * eps)


def _nca_pair(r: _Ratios, beta: float, _eps: float) -> Tensor:
    """NCA (arXiv 2402.05369)."""
    good, bad = beta * r.chosen, beta * r.rejected
    both = functional.logsigmoid(-good) + functional.logsigmoid(-bad)
    return -functional.logsigmoid(good) - 0.5 * both


def _bco_pair(r: _Ratios, beta: float, _eps: float) -> Tensor:
    """BCO of pairs, without its running mean (arXiv 2404.04656)."""
    return -functional.logsigmoid(beta * r.chosen) - functional.logsigmoid(-beta * r.rejected)


def _sppo_hard(r: _Ratios, beta: float, _eps: float) -> Tensor:
    """SPPO with hard labels (arXiv 2405.00675)."""
    return (r.chosen - 0.5 / beta) ** 2 + (r.rejected + 0.5 / beta) ** 2


def _apo_zero(r: _Ratios, beta: float, _eps: float) -> Tensor:
    """APO for chosen replies better than the model's own (arXiv 2408.06266, eq. 7)."""
    return torch.sigmoid(-beta * r.chosen) + torch.sigmoid(beta * r.rejected)


def _apo_down(r: _Ratios, beta: float, _eps: float) -> Tensor:
    """APO for chosen replies worse than the model's own (arXiv 2408.06266, eq. 8)."""
    return torch.sigmoid(beta * r.chosen) + torch.sigmoid(-beta * (r.chosen - r.rejected))


def _difference_of_means(r: _Ratios) -> Tensor:
    return r.chosen / r.chosen_tok.clamp(min=1) - r.rejected / r.rejected_tok.clamp(min=1)


LOSSES: Mapping[str, Callable[[_Ratios, float, float], Tensor]] = {
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
"""Losses with a reference, by TRL's names. (Its `aot`, `discopop` and `sft` are left to TRL itself.)"""
