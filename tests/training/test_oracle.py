"""The losses' definition: known values, gradients against differences, extremes, and agreement with TRL's formulas."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflexor_training.losses.oracle import PairLogProbs, Result, Side, log_odds, preference_loss
from preflexor_training.losses.stable import F64, label_log_probs, log1mexp, log_sigmoid
from preflexor_training.recipe_parts import REFERENCE_FREE, Phase

PAIRWISE = (
    "orpo", "exo_pair", "sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "nca_pair", "bco_pair", "sppo_hard",
    "apo_zero", "apo_down", "simpo",
)  # fmt: skip


def phase(loss: str, **values: Any) -> Phase:
    smooth = {"label_smoothing": 0.005} if loss == "exo_pair" else {"label_smoothing": 0.1} if loss == "robust" else {}
    return Phase.model_validate({"name": "p", "loss": loss, "learning_rate": 1e-4, **smooth, **values})


def side(policy: list[float], mask: list[bool] | None = None, reference: list[float] | None = None) -> Side:
    kept = np.ones(len(policy), np.bool_) if mask is None else np.array(mask, np.bool_)
    return Side(policy=np.array(policy), mask=kept, reference=np.array(reference or [0.0] * len(policy)))


def margin(nats: float) -> PairLogProbs:
    """A pair whose log-ratios differ by so many nats."""
    return PairLogProbs(
        chosen=side([-100.0], None, [-100.0 - nats]), rejected=side([-3.0], None, [-3.0]), prompt=np.zeros(0)
    )


def random_pair(rng: np.random.Generator) -> PairLogProbs:
    def reply() -> Side:
        length = int(rng.integers(1, 9))
        policy, reference = -rng.exponential(1.5, (2, length))
        return Side(policy=policy, mask=rng.random(length) < 0.7, reference=reference)

    return PairLogProbs(chosen=reply(), rejected=reply(), prompt=-rng.exponential(1.0, 4))


def numbers(result: Result) -> F64:
    return np.concatenate([[result.loss, result.nll], result.margins, *(part for g in result.gradients for part in g)])


def test_exo_has_its_known_values_where_policy_and_reference_agree() -> None:
    found = preference_loss([margin(0.0)], phase("exo_pair", beta=1.0))
    assert found.loss == pytest.approx(1.9585, abs=5e-5)
    assert found.loss == pytest.approx(-np.log(2) - 0.5 * np.log(0.005 * 0.995), rel=1e-12)
    assert found.gradients[0].chosen[0] == pytest.approx(-1.3233, abs=5e-5)
    assert preference_loss([margin(0.0)], phase("exo_pair", label_smoothing=1e-3)).loss == pytest.approx(
        2.7612, abs=5e-5
    )


@pytest.mark.parametrize(("beta", "nats"), [(0.1, 52.93), (0.5, 10.587), (1.0, 5.2933)])
def test_exo_is_least_at_the_margin_that_its_smoothing_asks_for(beta: float, nats: float) -> None:
    found = preference_loss([margin(nats)], phase("exo_pair", beta=beta))
    assert found.loss == pytest.approx(0.0, abs=1e-8)
    assert found.gradients[0].chosen[0] == pytest.approx(0.0, abs=1e-4)
    further = [preference_loss([margin(nats + off)], phase("exo_pair", beta=beta)).loss for off in (-1.0, 1.0)]
    assert min(further) > found.loss


def test_exo_hardly_teaches_a_pair_that_is_ranked_badly_wrong() -> None:
    wrong = preference_loss([margin(-8.0)], phase("exo_pair", beta=1.0))
    assert wrong.gradients[0].chosen[0] == pytest.approx(-0.0045, abs=1e-4)
    assert preference_loss([margin(-800.0)], phase("exo_pair", beta=1.0)).loss == pytest.approx(-np.log(0.005))
    assert preference_loss([margin(800.0)], phase("exo_pair", beta=1.0)).loss == pytest.approx(-np.log(0.995))


def test_orpo_is_the_odds_ratio_of_the_mean_probabilities() -> None:
    found = log_odds(np.array([-0.5]), np.array([-2.0]))
    odds = [p / (1 - p) for p in (np.exp(-0.5), np.exp(-2.0))]
    assert found[0] == pytest.approx(np.log(odds[0] / odds[1]), rel=1e-12)


@pytest.mark.parametrize(("scope", "expected"), [("all", (1 + 2 + 3 + 4) / 4), ("completion", 3.5), ("unmasked", 4.0)])
def test_orpos_likelihood_is_over_what_its_scope_says(scope: str, expected: float) -> None:
    pair = PairLogProbs(chosen=side([-3.0, -4.0], [False, True]), rejected=side([-1.0]), prompt=np.array([-1.0, -2.0]))
    found = preference_loss([pair], phase("orpo", nll_scope=scope))
    assert found.nll == pytest.approx(expected)
    assert (found.gradients[0].chosen[0] == 0) == (scope == "unmasked")
    assert bool(found.gradients[0].prompt.any()) == (scope == "all")


def test_orpos_likelihood_is_pooled_over_the_tokens_of_a_batch() -> None:
    long = PairLogProbs(chosen=side([-1.0] * 9), rejected=side([-1.0]), prompt=np.zeros(0))
    short = PairLogProbs(chosen=side([-11.0]), rejected=side([-1.0]), prompt=np.zeros(0))
    assert preference_loss([long, short], phase("orpo", nll_scope="completion")).nll == pytest.approx(2.0)


@pytest.mark.parametrize("loss", PAIRWISE)
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_gradients_are_those_of_small_differences(loss: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [random_pair(rng) for _ in range(3)]
    settings_ = phase(loss, beta=0.3, nll_scope="unmasked" if loss == "orpo" else "all")
    exact = preference_loss(pairs, settings_).gradients
    for which in ("chosen", "rejected"):
        reply = getattr(pairs[0], which)
        at = int(rng.integers(len(reply.policy)))
        start, step, found = reply.policy[at], 1e-6, []
        for shift in (step, -step):
            reply.policy[at] = start + shift
            found.append(preference_loss(pairs, settings_).loss)
        reply.policy[at] = start
        slope = (found[0] - found[1]) / (2 * step)
        near_kink = loss == "hinge" and abs(1 - preference_loss(pairs, settings_).margins[0]) < 1e-5
        assert near_kink or getattr(exact[0], which)[at] == pytest.approx(slope, rel=2e-4, abs=2e-7)


@pytest.mark.parametrize("loss", PAIRWISE)
@pytest.mark.parametrize(
    "pair",
    [
        margin(80.0),
        margin(-80.0),
        margin(1e4),
        margin(-1e4),
        PairLogProbs(chosen=side([0.0, 0.0]), rejected=side([0.0]), prompt=np.zeros(1)),
        PairLogProbs(chosen=side([-2.0], [False]), rejected=side([-2.0], [False]), prompt=np.zeros(0)),
        PairLogProbs(chosen=side([-1e-12]), rejected=side([-700.0]), prompt=np.zeros(0)),
        PairLogProbs(chosen=side([-700.0]), rejected=side([-1e-12]), prompt=np.zeros(0)),
        PairLogProbs(chosen=side([-np.inf, -1.0], [False, True]), rejected=side([-1.0]), prompt=np.zeros(0)),
    ],
    ids=["+80", "-80", "+1e4", "-1e4", "certain", "empty", "sure and right", "sure and wrong", "impossible, unmasked"],
)
def test_extremes_give_finite_losses_and_gradients(loss: str, pair: PairLogProbs) -> None:
    scope = {"nll_scope": "unmasked"} if loss == "orpo" else {}
    assert np.isfinite(numbers(preference_loss([pair], phase(loss, **scope)))).all()


@pytest.mark.parametrize("loss", PAIRWISE)
def test_tokens_outside_the_mask_have_no_gradient_and_no_say(loss: str) -> None:
    rng = np.random.default_rng(3)
    pair = random_pair(rng)
    scope = {"nll_scope": "unmasked"} if loss == "orpo" else {}
    before = preference_loss([pair], phase(loss, **scope))
    for which in ("chosen", "rejected"):
        reply, slopes = getattr(pair, which), getattr(before.gradients[0], which)
        assert (slopes[~reply.mask] == 0).all()
        reply.policy[~reply.mask] -= 7.0
    assert preference_loss([pair], phase(loss, **scope)).loss == before.loss


@pytest.mark.parametrize("loss", [loss for loss in PAIRWISE if loss not in REFERENCE_FREE])
def test_a_loss_with_a_reference_says_so_when_it_gets_none(loss: str) -> None:
    alone = Side(policy=np.array([-1.0]), mask=np.array([True]))
    with pytest.raises(ValueError, match="reference"):
        preference_loss([PairLogProbs(chosen=alone, rejected=alone, prompt=np.zeros(0))], phase(loss))


@given(st.floats(-700, -1e-300))
def test_log1mexp_is_exact_at_both_ends(a: float) -> None:
    from decimal import Decimal, localcontext

    with localcontext() as context:
        context.prec = 400
        true = float((1 - Decimal(a).exp()).ln())
    assert float(log1mexp(np.array(a))) == pytest.approx(true, rel=1e-14)


def test_log_probs_of_labels_stay_finite_with_huge_logits() -> None:
    logits = np.array([[[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]]])
    found = label_log_probs(logits, np.array([[0, 2]]))
    assert found.tolist() == [[0.0, pytest.approx(-np.log(3))]]
    assert log_sigmoid(np.array([-1e4, 1e4])).tolist() == [-1e4, 0.0]


TORCH_FREE = ("exo_pair", "sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "nca_pair", "bco_pair", "sppo_hard")


@pytest.mark.parametrize("loss", [*TORCH_FREE, "apo_zero", "apo_down"])
def test_values_are_those_of_trls_formulas(loss: str) -> None:
    """TRL's lines for one pair, in plain numbers."""
    pair = random_pair(np.random.default_rng(11))
    beta, eps = 0.3, phase(loss).label_smoothing

    def ratio(reply: Side) -> float:
        assert reply.reference is not None
        return float((reply.policy - reply.reference)[reply.mask].sum())

    c, r = ratio(pair.chosen), ratio(pair.rejected)
    mean_c, mean_r = c / pair.chosen.mask.sum(), r / pair.rejected.mask.sum()

    def ls(x: float) -> float:
        return float(np.log(1 / (1 + np.exp(-x))))

    def s(x: float) -> float:
        return float(1 / (1 + np.exp(-x)))

    d = beta * (c - r)
    expected = {
        "exo_pair": s(d) * (ls(d) - np.log(1 - eps)) + s(-d) * (ls(-d) - np.log(eps)) if eps else 0.0,
        "sigmoid": -ls(d),
        "sigmoid_norm": -ls(beta * (mean_c - mean_r)),
        "hinge": max(0.0, 1 - d),
        "ipo": (mean_c - mean_r - 1 / (2 * beta)) ** 2,
        "robust": (-(1 - eps) * ls(d) + eps * ls(-d)) / (1 - 2 * eps),
        "nca_pair": -ls(beta * c) - 0.5 * ls(-beta * c) - 0.5 * ls(-beta * r),
        "bco_pair": -ls(beta * c) - ls(-beta * r),
        "sppo_hard": (c - 0.5 / beta) ** 2 + (r + 0.5 / beta) ** 2,
        "apo_zero": 1 - s(beta * c) + s(beta * r),
        "apo_down": s(beta * c) + 1 - s(beta * (c - r)),
    }[loss]
    assert preference_loss([pair], phase(loss, beta=beta)).loss == pytest.approx(expected, rel=1e-10)
