"""The losses in float64, with their gradients in closed form. Slow and plain on purpose; nothing trains with it.

Definitions are TRL 1.16's. ORPO: arXiv 2403.07691; EXO: arXiv 2402.00856 (eq. 16); the others as docs/training_core.md
says. All are functions of the log-probs that the policy (`l`) and the reference (`r`) give to each token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preflexor_training.losses.stable import F64, MOST_MEAN, log1mexp, log_sigmoid, sigmoid
from preflexor_training.recipe_parts import REFERENCE_FREE, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One reply under the policy and the reference."""

    policy: F64  # (L,)
    """Log-prob of each token, at most 0."""
    mask: NDArray[np.bool_]  # (L,)
    """Tokens in the loss."""
    reference: F64 | None = None  # (L,)
    """None for a loss that needs none."""
    labels: NDArray[np.bool_] | None = None  # (L,)
    """Tokens that ORPO's likelihood can be over; None is all of them, False is an inserted pad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLogProbs:
    """One pair."""

    chosen: Side
    rejected: Side
    prompt: F64  # (P - 1,)
    """Of the prompt's tokens after the first; only ORPO's likelihood over all of the sequence reads it."""


class Gradient(NamedTuple):
    """Of the loss by the policy's log-probs of one pair."""

    prompt: F64
    chosen: F64
    rejected: F64


class Result(NamedTuple):
    """Loss of a micro-batch."""

    loss: float
    nll: float
    """ORPO's likelihood term, 0 for the others."""
    margins: F64  # (B,)
    """Chosen over rejected reward, nats: beta times the log-ratio difference (sums), or of mean log-probs in the
    losses that need no reference."""
    gradients: tuple[Gradient, ...]


class _Slopes(NamedTuple):
    """A loss of each pair and its derivative by what it is a function of. All (B,)."""

    loss: F64
    chosen: F64
    rejected: F64


def preference_loss(pairs: Sequence[PairLogProbs], phase: Phase) -> Result:
    """The mean loss of a micro-batch; ORPO's likelihood is a mean over all of its tokens, as in TRL.

    An empty mask counts as a sum and a mean of 0 without gradient.

    Raises:
        ValueError: there is no pair, a loss with a reference is given none, or the loss is not defined pair by pair.
    """
    if not pairs:
        raise ValueError("a micro-batch needs a pair")
    means = phase.loss in ("orpo", "simpo", "ipo", "sigmoid_norm")
    free = phase.loss in REFERENCE_FREE
    chosen = np.array([_score(pair.chosen, mean=means, free=free) for pair in pairs])
    rejected = np.array([_score(pair.rejected, mean=means, free=free) for pair in pairs])
    slopes = _slopes(chosen, rejected, phase)
    count = len(pairs)
    nll, nll_gradients = _nll(pairs, phase) if phase.loss == "orpo" else (0.0, None)
    gradients = []
    for n, pair in enumerate(pairs):
        made = Gradient(
            np.zeros(pair.prompt.shape),
            slopes.chosen[n] / count * _weights(pair.chosen.mask, mean=means),
            slopes.rejected[n] / count * _weights(pair.rejected.mask, mean=means),
        )
        if nll_gradients is not None:
            extra = nll_gradients[n]
            made = Gradient(made.prompt + extra.prompt, made.chosen + extra.chosen, made.rejected)
        gradients.append(made)
    if means and not free:  # rewards are told in nats of the whole reply, whatever the loss normalises by
        chosen = np.array([_score(pair.chosen, mean=False, free=False) for pair in pairs])
        rejected = np.array([_score(pair.rejected, mean=False, free=False) for pair in pairs])
    return Result(
        loss=float(slopes.loss.mean()) + nll,
        nll=nll,
        margins=phase.beta * (chosen - rejected),
        gradients=tuple(gradients),
    )


def log_odds(chosen: F64, rejected: F64) -> F64:
    """ORPO's log odds ratio. Inputs: mean token log-probs, (B,), at most 0. Returns (B,)."""
    chosen, rejected = np.minimum(chosen, MOST_MEAN), np.minimum(rejected, MOST_MEAN)
    return (chosen - rejected) - (log1mexp(chosen) - log1mexp(rejected))


def _score(side: Side, *, mean: bool, free: bool) -> float:
    """What the loss sees of a reply: log-prob, or log-ratio, over the tokens of the mask; subtracted before summed."""
    values = side.policy
    if not free:
        if side.reference is None:
            raise ValueError("this loss needs the reference's log-probs")
        values = side.policy - side.reference
    return float((np.where(side.mask, values, 0.0) * _weights(side.mask, mean=mean)).sum())


def _weights(mask: NDArray[np.bool_], *, mean: bool) -> F64:
    """What each token counts."""
    return mask / max(int(mask.sum()), 1) if mean else mask.astype(np.float64)


def _nll(pairs: Sequence[PairLogProbs], phase: Phase) -> tuple[float, list[Gradient]]:
    whole = phase.nll_scope == "all"
    kept = [p.chosen.mask if phase.nll_scope == "unmasked" else _labels(p.chosen) for p in pairs]
    count = max(sum(int(mask.sum()) + whole * len(p.prompt) for p, mask in zip(pairs, kept, strict=True)), 1)
    total = sum(p.chosen.policy.sum(where=mask) + whole * p.prompt.sum() for p, mask in zip(pairs, kept, strict=True))
    gradients = [
        Gradient(np.full(p.prompt.shape, -float(whole) / count), mask / -count, np.zeros(p.rejected.mask.shape))
        for p, mask in zip(pairs, kept, strict=True)
    ]
    return -float(total) / count, gradients


def _labels(side: Side) -> NDArray[np.bool_]:
    return np.ones(side.mask.shape, np.bool_) if side.labels is None else side.labels


def _slopes(chosen: F64, rejected: F64, phase: Phase) -> _Slopes:
    """Each pair's loss, and its derivatives by the two scores."""
    beta = phase.beta
    x = beta * (chosen - rejected)
    match phase.loss:
        case "orpo":
            return _orpo(chosen, rejected, beta)
        case "nca_pair" | "bco_pair" | "sppo_hard" | "apo_zero" | "apo_down":
            return _one_by_one(chosen, rejected, phase)
        case "exo_pair":
            loss, slope = _exo(x, phase.label_smoothing)
        case "sigmoid" | "sigmoid_norm":
            loss, slope = -log_sigmoid(x), -sigmoid(-x)
        case "simpo":
            loss, slope = -log_sigmoid(x - phase.gamma), -sigmoid(phase.gamma - x)
        case "hinge":
            loss, slope = np.maximum(1 - x, 0.0), -(x < 1).astype(np.float64)
        case "robust":
            eps = phase.label_smoothing
            loss = (-(1 - eps) * log_sigmoid(x) + eps * log_sigmoid(-x)) / (1 - 2 * eps)
            slope = (-(1 - eps) * sigmoid(-x) - eps * sigmoid(x)) / (1 - 2 * eps)
        case "ipo":
            off = (chosen - rejected) - 1 / (2 * beta)
            return _Slopes(off**2, 2 * off, -2 * off)
        case _:
            raise ValueError(f"{phase.loss} is not defined pair by pair; TRL has it")
    return _Slopes(loss, beta * slope, -beta * slope)


def _exo(x: F64, eps: float) -> tuple[F64, F64]:
    """EXO's reverse KL, and its derivative by x: s(x) s(-x) (x - logit(1 - eps))."""
    loss = sigmoid(x) * (log_sigmoid(x) - np.log1p(-eps)) + sigmoid(-x) * (log_sigmoid(-x) - np.log(eps))
    return loss, sigmoid(x) * sigmoid(-x) * (x - (np.log1p(-eps) - np.log(eps)))


def _orpo(chosen: F64, rejected: F64, weight: float) -> _Slopes:
    """The odds term. d log odds / d a = 1 / (1 - exp(a)); a mean that is held to MOST_MEAN has no slope."""
    odds = log_odds(chosen, rejected)
    slope = -weight * sigmoid(-odds)

    def steep(a: F64) -> F64:
        return np.where(a < MOST_MEAN, -1 / np.expm1(np.minimum(a, MOST_MEAN)), 0.0)

    return _Slopes(-weight * log_sigmoid(odds), slope * steep(chosen), -slope * steep(rejected))


def _one_by_one(chosen: F64, rejected: F64, phase: Phase) -> _Slopes:
    """Losses that are not functions of the difference alone."""
    beta = phase.beta
    c, r = beta * chosen, beta * rejected
    match phase.loss:
        case "nca_pair":
            loss = -log_sigmoid(c) - 0.5 * log_sigmoid(-c) - 0.5 * log_sigmoid(-r)
            return _Slopes(loss, beta * (0.5 * sigmoid(c) - sigmoid(-c)), beta * 0.5 * sigmoid(r))
        case "bco_pair":
            return _Slopes(-log_sigmoid(c) - log_sigmoid(-r), -beta * sigmoid(-c), beta * sigmoid(r))
        case "sppo_hard":
            off_c, off_r = chosen - 0.5 / beta, rejected + 0.5 / beta
            return _Slopes(off_c**2 + off_r**2, 2 * off_c, 2 * off_r)
        case "apo_zero":
            bend_c, bend_r = sigmoid(c) * sigmoid(-c), sigmoid(r) * sigmoid(-r)
            return _Slopes(sigmoid(-c) + sigmoid(r), -beta * bend_c, beta * bend_r)
        case _:
            bend_c, bend_d = sigmoid(c) * sigmoid(-c), sigmoid(c - r) * sigmoid(r - c)
            return _Slopes(sigmoid(c) + sigmoid(r - c), beta * (bend_c - bend_d), beta * bend_d)
