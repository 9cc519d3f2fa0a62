"""MLX's losses against their definition in float64, with gradients, at random and where numbers get extreme."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="needs the mlx extra")

from preflexor_training.losses.oracle import PairLogProbs, preference_loss  # noqa: E402
from preflexor_training.losses.oracle import Side as OracleSide  # noqa: E402
from preflexor_training.mlx_backend.collate import Batch  # noqa: E402
from preflexor_training.mlx_backend.forward import Tables  # noqa: E402
from preflexor_training.mlx_backend.losses import LOSSES  # noqa: E402
from preflexor_training.mlx_backend.objective import Scored, objective  # noqa: E402
from preflexor_training.needs import needs_reference  # noqa: E402
from preflexor_training.recipe_parts import Phase  # noqa: E402
from tests.training.test_oracle import PAIRWISE, phase, random_pair, side  # noqa: E402

NOTHING = mx.zeros((0,), dtype=mx.int32)


class Found(NamedTuple):
    scored: Scored
    gradients: Tables


def table(rows: Sequence[np.ndarray], kind: type[np.generic]) -> mx.array:
    made = np.zeros((len(rows), max(map(len, rows))), dtype=kind)
    for n, row in enumerate(rows):
        made[n, : len(row)] = row
    return mx.array(made)


def as_batch(pairs: Sequence[PairLogProbs], of: Phase) -> Batch:
    """The batch that `collate` would have made."""
    whole = of.loss == "orpo" and of.nll_scope == "all"
    covered = [p.chosen.mask if of.nll_scope == "unmasked" else np.ones(len(p.chosen.mask)) for p in pairs]
    before = [np.ones(len(p.prompt) if whole else 0) for p in pairs]
    references = [None, None]
    if needs_reference(of):
        references = [table([getattr(p, s).reference for p in pairs], np.float32) for s in ("chosen", "rejected")]
    return Batch(
        prompts=None,
        pads=(),
        replies=NOTHING,
        select=NOTHING,
        targets=NOTHING,
        places=NOTHING,
        nll_mask=mx.concatenate([table(before, np.bool_), table(covered, np.bool_)], axis=1),
        chosen_mask=table([p.chosen.mask for p in pairs], np.bool_),
        rejected_mask=table([p.rejected.mask for p in pairs], np.bool_),
        chosen_reference=references[0],
        rejected_reference=references[1],
    )


def found(pairs: Sequence[PairLogProbs], of: Phase) -> Found:
    whole = of.loss == "orpo" and of.nll_scope == "all"
    leaves = [
        table([p.prompt if whole else np.zeros(0) for p in pairs], np.float32),
        table([p.chosen.policy for p in pairs], np.float32),
        table([p.rejected.policy for p in pairs], np.float32),
    ]
    batch = as_batch(pairs, of)
    gradients = mx.grad(lambda *three: objective(of, batch, Tables(*three)).loss, argnums=(0, 1, 2))(*leaves)
    return Found(objective(of, batch, Tables(*leaves)), Tables(*gradients))


def compare(pairs: Sequence[PairLogProbs], of: Phase) -> Scored:
    expected, (scored, gradients) = preference_loss(pairs, of), found(pairs, of)
    assert scored.loss.item() == pytest.approx(expected.loss, rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(np.array(scored.margins), expected.margins, rtol=1e-4, atol=2e-5)
    for name in ("prompt", "chosen", "rejected"):
        made = np.array(getattr(gradients, name))
        if made.size:
            wanted = np.array(table([getattr(g, name) for g in expected.gradients], np.float64))
            np.testing.assert_allclose(made, wanted, rtol=2e-4, atol=2e-6)
    return scored


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("loss", PAIRWISE)
def test_a_loss_and_its_gradient_are_those_of_the_definition(loss: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    compare([random_pair(rng) for _ in range(5)], phase(loss, beta=[0.1, 0.5, 1.0, 2.0][seed]))


@pytest.mark.parametrize("scope", ["all", "completion", "unmasked"])
def test_every_scope_of_the_likelihood_is_that_of_the_definition(scope: str) -> None:
    rng = np.random.default_rng(9)
    compare([random_pair(rng) for _ in range(3)], phase("orpo", nll_scope=scope))


@pytest.mark.parametrize("nats", [-80.0, -20.0, 0.0, 20.0, 80.0])
@pytest.mark.parametrize("loss", PAIRWISE)
def test_margins_of_eighty_nats_leave_loss_and_gradient_finite(loss: str, nats: float) -> None:
    pair = PairLogProbs(
        chosen=side([-100.0], None, [-100.0 - nats]), rejected=side([-3.0], None, [-3.0]), prompt=np.zeros(0)
    )
    assert mx.isfinite(compare([pair], phase(loss, beta=1.0)).loss).item()


@pytest.mark.parametrize("loss", PAIRWISE)
def test_certain_tokens_and_empty_masks_leave_loss_and_gradient_finite(loss: str) -> None:
    certain = PairLogProbs(chosen=side([0.0, 0.0]), rejected=side([0.0]), prompt=np.zeros(1))
    empty = PairLogProbs(chosen=side([-1.0, -2.0], [False, False]), rejected=side([-1.0], [False]), prompt=np.zeros(1))
    for pairs in ([certain], [empty], [certain, empty]):
        assert mx.isfinite(compare(pairs, phase(loss)).shown).all().item()


def test_thinking_that_is_masked_gets_no_gradient_at_all_from_orpo() -> None:
    mask = np.array([False] * 5 + [True] * 4)
    policy = -np.random.default_rng(3).exponential(1.0, 9)
    sides = {"chosen": OracleSide(policy=policy, mask=mask), "rejected": OracleSide(policy=policy[::-1], mask=mask)}
    gradients = found([PairLogProbs(**sides, prompt=-np.ones(3))], phase("orpo", nll_scope="unmasked")).gradients
    for made in (np.array(gradients.chosen), np.array(gradients.rejected)):
        assert (made[0, :5] == 0.0).all()
        assert (made[0, 5:] != 0.0).all()


def test_differences_are_taken_before_they_are_summed() -> None:
    rng = np.random.default_rng(0)
    policy = -rng.exponential(2.0, 4000)
    long = OracleSide(policy=policy, mask=np.ones(4000, np.bool_), reference=policy + rng.normal(0, 1e-3, 4000))
    pair = PairLogProbs(chosen=long, rejected=side([-1.0], None, [-1.0]), prompt=np.zeros(0))
    of = phase("sigmoid", beta=1.0)
    assert found([pair], of).scored.margins.item() == pytest.approx(preference_loss([pair], of).margins[0], abs=2e-5)


def test_every_loss_of_a_recipe_but_trls_own_is_here() -> None:
    assert {*LOSSES, "orpo", "simpo"} == set(PAIRWISE)
