"""Intervals and tests against values that are known by other means."""

import math

import numpy as np
import pytest

from preflexor_agents.evaluation.statistics import bootstrap, paired, sign_test, wilson


@pytest.mark.parametrize(
    ("right", "of", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1)]
)
def test_wilson_agrees_with_tables(right: int, of: int, low: float, high: float) -> None:
    found = wilson(right, of)
    assert (found.value, found.low, found.high) == pytest.approx((right / of, low, high), abs=1e-4)


def test_of_nothing_everything_is_possible() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)
    assert math.isnan(bootstrap([]).value)


def test_a_bootstrap_of_many_values_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    found, half = bootstrap(values.tolist()), 1.96 * values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_what_belongs_together_is_drawn_together() -> None:
    values = [float(v) for v in (0, 1) * 50 for _ in range(8)]
    groups = [str(i // 8) for i in range(800)]
    alone, together = bootstrap(values), bootstrap(values, groups=groups)
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("better", "worse", "p"), [(5, 0, 0.0625), (0, 5, 0.0625), (8, 2, 0.109375), (3, 3, 1.0), (0, 0, 1.0)]
)
def test_the_sign_test_is_exact(better: int, worse: int, p: float) -> None:
    assert sign_test(better, worse) == pytest.approx(p)


def test_a_pair_of_systems_is_compared_question_by_question() -> None:
    found = paired([0, 0, 1, 1, 0] * 20, [1, 0, 1, 1, 1] * 20)
    assert (found.better, found.worse, found.equal) == (40, 0, 60)
    assert found.difference.value == pytest.approx(0.4) and found.difference.low > 0.2 and found.p < 1e-6


def test_different_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 results against 1"):
        paired([1, 0], [1])
