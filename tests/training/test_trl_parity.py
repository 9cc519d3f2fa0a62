"""Our step against TRL's trainers on the same rows, masks and weights: the same losses, step for step."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch

from preflexor_agents.errors import ConfigError
from preflexor_training.recipe_parts import Phase
from preflexor_training.tokenized import Masked
from preflexor_training.torch_backend import trl_step
from preflexor_training.torch_backend.collate import collate
from preflexor_training.torch_backend.learner import TorchLearner, open_learner
from preflexor_training.torch_backend.losses import LOSSES
from preflexor_training.torch_backend.objective import objective
from tests.training import learning, stories
from tests.training.test_oracle import phase
from tests.training.test_torch_learner import SMALL

pytestmark = [pytest.mark.train, stories.needs_data]
PLAIN = (*SMALL, "adapter.dropout=0.0")


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return stories.base(tmp_path_factory.mktemp("base") / "stories", tied=request.param)


@pytest.mark.parametrize("number", [0, 1], ids=["orpo", "exo_pair"])
def test_both_engines_take_the_same_steps(base: Path, tmp_path: Path, number: int) -> None:
    told: dict[str, list[tuple[float, float, float]]] = {"ours": [], "trl": []}
    for engine, losses in told.items():
        learning.learn(
            base,
            tmp_path / engine,
            (*PLAIN, f"step.engine={engine}"),
            phase=number,
            on_step=lambda _, m, out=losses: out.append((m["loss"], m["margin"], m["nll"])),
        ).close()
    assert len(told["trl"]) == 8
    np.testing.assert_allclose(told["ours"], told["trl"], atol=1e-4)


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchLearner]:
    """With an adapter that has gone somewhere, so that policy and reference differ."""
    base = stories.base(tmp_path_factory.mktemp("base") / "stories")
    recipe = stories.recipe(base, *PLAIN, "step.engine=trl")
    found = open_learner(recipe, recipe.phases[1], base, tmp_path_factory.mktemp("learner"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in found._ready().parameters():
            if p.requires_grad:
                p.add_(0.02 * torch.randn(p.shape, generator=generator))
    yield found
    found.close()


def theirs(learner: TorchLearner, rows: list[Masked], of: Phase, folder: Path) -> tuple[float, list[torch.Tensor]]:
    """TRL's loss and gradients."""
    model = learner._ready()
    common = {"output_dir": str(folder), "report_to": "none", "use_cpu": True, "disable_tqdm": True, "bf16": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        trainer = trl_step.make(model, of, common=common, accumulate=1, tokenizer=learner.tokenizer)
        trainer.report = type("Report", (), {"shown": []})()  # type: ignore[assignment]
        model.zero_grad()
        loss = trainer.compute_loss(model.train(), collate(rows, shared=False))
        loss.backward()
    assert sorted(model.peft_config) == ["default"]
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    learner._put_right()
    return loss.item(), found


def ours(learner: TorchLearner, rows: list[Masked], of: Phase) -> tuple[float, list[torch.Tensor]]:
    learner._phase = of
    learner.refer(rows)
    model = learner._ready()
    model.zero_grad()
    batch = learner._collate(rows)
    scored = objective(of, batch, learner._score(model, batch))
    scored.loss.backward()
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return scored.loss.item(), found


@pytest.mark.parametrize("loss", [*LOSSES, "orpo"])
def test_every_loss_and_its_gradient_are_trls(learner: TorchLearner, tmp_path: Path, loss: str) -> None:
    rows = stories.rows(learner._recipe, stories.pairs(3), phase=1)
    of = phase(loss, beta=0.3)
    expected, wanted = theirs(learner, rows, of, tmp_path)
    found, gradients = ours(learner, rows, of)
    assert found == pytest.approx(expected, rel=1e-5)
    assert len(gradients) == len(wanted)
    largest = max(float(g.abs().max()) for g in wanted)
    for ours_, theirs_ in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-3, atol=2e-4 * largest)


def test_a_loss_that_only_trl_has_trains_there(learner: TorchLearner, tmp_path: Path) -> None:
    told: list[float] = []
    changes = (*PLAIN, "step.engine=trl", "phases.1.loss=aot", "phases.1.label_smoothing=0.01")
    learner = learning.learn(learner._base, tmp_path, changes, on_step=lambda _, m: told.append(m["loss"]))
    assert told[0] == pytest.approx(np.log(2), abs=1e-3)
    assert np.isfinite(told).all()
    held = learner.evaluate(stories.rows(learner._recipe, stories.pairs(18)[16:], phase=1))
    assert len(held.margins) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("phases.1.loss=simpo", "phases.1.label_smoothing=0.0"), "has no simpo here"),
        (("adapter.kind=full",), 'set adapter.kind = "lora"'),
    ],
)
def test_what_trl_is_not_driven_for_is_told(tmp_path: Path, changes: tuple[str, ...], said: str) -> None:
    base = stories.base(tmp_path / "base")
    with pytest.raises(ConfigError, match=said):
        learning.learn(base, tmp_path / "learner", (*PLAIN, "step.engine=trl", *changes))


def test_trl_is_imported_only_if_it_is_asked_for() -> None:
    code = "import sys, preflexor_training.torch_backend.learner as _; print('trl' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_peft_models_survive_trl(learner: TorchLearner, tmp_path: Path) -> None:
    """TRL copies an adapter that it is given, to be the reference; here the base is, and the copy goes."""
    model: Any = learner._ready()
    names = {name for name, _ in model.named_parameters()}
    theirs(learner, stories.rows(learner._recipe, stories.pairs(1), phase=1), phase("exo_pair"), tmp_path)
    assert {name for name, _ in model.named_parameters()} == names
    assert isinstance(model, peft.PeftModel)
    assert "forward" not in model.get_base_model().__dict__
