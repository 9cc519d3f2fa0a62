"""Torch's losses against their definition in float64, with gradients, at random and where numbers get extreme."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from preflexor_training.losses.oracle import PairLogProbs, preference_loss
from preflexor_training.losses.oracle import Side as OracleSide
from preflexor_training.needs import needs_reference
from preflexor_training.recipe_parts import TRL_ONLY, Phase
from preflexor_training.torch_backend import losses
from preflexor_training.torch_backend.collate import Tensors
from preflexor_training.torch_backend.forward import Tables
from preflexor_training.torch_backend.objective import Scored, objective
from tests.training.test_oracle import PAIRWISE, phase, random_pair, side

pytestmark = pytest.mark.train


def table(rows: Sequence[np.ndarray]) -> np.ndarray:
    made = np.zeros((len(rows), max(map(len, rows))), dtype=rows[0].dtype)
    for n, row in enumerate(rows):
        made[n, : len(row)] = row
    return made


def as_tensors(pairs: Sequence[PairLogProbs], of: Phase) -> tuple[Tables, Tensors]:
    """Leaves for gradients, and the batch that `collate` would have made."""

    def leaf(rows: Sequence[np.ndarray]) -> Tensor:
        return torch.tensor(table(rows), dtype=torch.float32, requires_grad=True)

    whole = of.loss == "orpo" and of.nll_scope == "all"
    tables = Tables(
        leaf([p.prompt if whole else np.zeros(0) for p in pairs]),
        leaf([p.chosen.policy for p in pairs]),
        leaf([p.rejected.policy for p in pairs]),
    )
    covered = [p.chosen.mask if of.nll_scope == "unmasked" else np.ones(len(p.chosen.mask), np.bool_) for p in pairs]
    before = [np.ones(len(p.prompt) if whole else 0, np.bool_) for p in pairs]
    batch = {
        "chosen_mask": torch.tensor(table([p.chosen.mask for p in pairs])),
        "rejected_mask": torch.tensor(table([p.rejected.mask for p in pairs])),
        "nll_mask": torch.tensor(np.concatenate([table(before), table(covered)], 1)),
    }
    if needs_reference(of):
        for name in ("chosen", "rejected"):
            rows = [getattr(p, name).reference for p in pairs]
            batch[f"{name}_reference"] = torch.tensor(table(rows), dtype=torch.float32)
    return tables, batch


def compare(pairs: Sequence[PairLogProbs], of: Phase, *, close: float = 1e-5) -> Scored:
    expected = preference_loss(pairs, of)
    tables, batch = as_tensors(pairs, of)
    found = objective(of, batch, tables)
    found.loss.backward()
    assert found.loss.item() == pytest.approx(expected.loss, rel=close, abs=1e-6)
    np.testing.assert_allclose(found.margins.numpy(), expected.margins, rtol=1e-5, atol=2e-5)
    for name in ("prompt", "chosen", "rejected"):
        leaf = getattr(tables, name)
        if leaf.numel():
            wanted = table([getattr(g, name) for g in expected.gradients])
            np.testing.assert_allclose(leaf.grad.numpy(), wanted, rtol=2e-4, atol=2e-6)
    return found


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
    found = compare([pair], phase(loss, beta=1.0))
    assert torch.isfinite(found.loss)


@pytest.mark.parametrize("loss", PAIRWISE)
def test_certain_tokens_and_empty_masks_leave_loss_and_gradient_finite(loss: str) -> None:
    certain = PairLogProbs(chosen=side([0.0, 0.0]), rejected=side([0.0]), prompt=np.zeros(1))
    empty = PairLogProbs(chosen=side([-1.0, -2.0], [False, False]), rejected=side([-1.0], [False]), prompt=np.zeros(1))
    for pairs in ([certain], [empty], [certain, empty]):
        found = compare(pairs, phase(loss), close=1e-4)
        assert torch.isfinite(found.loss)
        assert torch.isfinite(found.shown).all()


def test_a_certain_reply_against_an_unlikely_one_has_a_finite_gradient() -> None:
    pair = PairLogProbs(chosen=side([-1e-9]), rejected=side([-500.0]), prompt=np.zeros(0))
    compare([pair], phase("orpo"))


def test_thinking_that_is_masked_gets_no_gradient_at_all_from_orpo() -> None:
    thinking = np.array([True] * 5 + [False] * 4)
    policy = -np.random.default_rng(3).exponential(1.0, 9)
    reply = OracleSide(policy=policy, mask=~thinking)
    pair = PairLogProbs(chosen=reply, rejected=replace(reply, policy=policy[::-1].copy()), prompt=-np.ones(3))
    of = phase("orpo", nll_scope="unmasked")
    tables, batch = as_tensors([pair], of)
    objective(of, batch, tables).loss.backward()
    for leaf in (tables.chosen, tables.rejected):
        assert leaf.grad is not None
        assert (leaf.grad[0, :5] == 0.0).all()
        assert (leaf.grad[0, 5:] != 0.0).all()


def test_differences_are_taken_before_they_are_summed() -> None:
    rng = np.random.default_rng(0)
    policy = -rng.exponential(2.0, 4000)
    reference = policy + rng.normal(0, 1e-3, 4000)
    long = OracleSide(policy=policy, mask=np.ones(4000, np.bool_), reference=reference)
    short = side([-1.0], None, [-1.0])
    of = phase("sigmoid", beta=1.0)
    exact = preference_loss([PairLogProbs(chosen=long, rejected=short, prompt=np.zeros(0))], of)
    tables, batch = as_tensors([PairLogProbs(chosen=long, rejected=short, prompt=np.zeros(0))], of)
    assert objective(of, batch, tables).margins[0].item() == pytest.approx(exact.margins[0], abs=2e-5)


def test_every_loss_of_a_recipe_is_here_or_trls_alone() -> None:
    assert {*losses.LOSSES, "orpo", "simpo", *TRL_ONLY} == {*PAIRWISE, *TRL_ONLY}


def test_what_is_shown_is_the_mean_over_the_pairs() -> None:
    rng = np.random.default_rng(1)
    pairs = [random_pair(rng) for _ in range(4)]
    of = phase("exo_pair", beta=0.5)
    tables, batch = as_tensors(pairs, of)
    found = objective(of, batch, tables)
    expected = preference_loss(pairs, of)
    shown = found.shown.tolist()
    assert shown[2] == pytest.approx(expected.margins.mean(), abs=1e-5)
    assert shown[3] == pytest.approx((expected.margins > 0).mean())
    assert shown[4] - shown[5] == pytest.approx(shown[2], abs=1e-5)
    assert shown[8] == pytest.approx(np.abs(expected.margins).max(), abs=1e-5)
