"""The same recipe, rows and seed in torch and in MLX: the same curves, from the same start."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mlx.core", reason="needs the mlx extra")
pytest.importorskip("mlx_lm", reason="needs the mlx extra")
pytest.importorskip("torch", reason="needs the train extra")

from preflexor_training.learner import Learner, Metrics
from preflexor_training.mlx_backend.learner import open_learner as open_mlx
from preflexor_training.phases import OpenLearner
from preflexor_training.recipes import Recipe
from preflexor_training.tokenized import Step
from preflexor_training.torch_backend.learner import open_learner as open_torch
from tests.training.mlx_teaching import small_base, small_recipe, steps_of, taught

pytestmark = pytest.mark.train
FIFTY = ("phases.0.accumulation=1", "phases.1.accumulation=1", "phases.0.passes=10", "phases.1.passes=10")
BACKENDS: dict[str, OpenLearner] = {"mlx": open_mlx, "trl": open_torch}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    return {tied: small_base(tmp_path_factory.mktemp("base") / "model", tied=tied) for tied in (True, False)}


def opened(backend: str, recipe: Recipe, phase: int, folder: Path) -> Learner:
    return BACKENDS[backend](recipe, recipe.phases[phase], Path(recipe.base), folder / backend)


def curves(recipe: Recipe, phase: int, steps: tuple[Step, ...], folder: Path) -> dict[str, list[Metrics]]:
    told = {}
    for backend in BACKENDS:
        learner = opened(backend, recipe, phase, folder)
        told[backend] = taught(learner, steps)
        learner.close()
    return told


def apart(told: dict[str, list[Metrics]], name: str) -> float:
    values = [np.array([metrics[name] for metrics in told[backend]]) for backend in BACKENDS]
    return float(np.abs(values[0] - values[1]).max())


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "tied"), [(0, True), (1, False)])
def test_fifty_steps_overlay_within_a_thousandth(
    bases: dict[bool, Path], tmp_path: Path, phase: int, tied: bool
) -> None:
    recipe = small_recipe(bases[tied], *FIFTY)
    steps = steps_of(recipe, phase=phase, count=10)
    told = curves(recipe, phase, steps, tmp_path)
    assert len(told["mlx"]) == len(told["trl"]) == len(steps) == 50
    losses = [metrics["loss"] for metrics in told["mlx"]]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1, "curves that do not move overlay too easily"
    assert apart(told, "loss") < 1e-3
    assert apart(told, "margin") < 1e-2
    assert (apart(told, "lr"), apart(told, "tokens")) == (0.0, 0.0)


@pytest.mark.parametrize(
    "changes",
    [
        ("adapter.kind=full",),
        ("step.shared_prompt=false",),
        ('adapter.targets=["all-linear"]', "adapter.token_rows=false"),
        ("tags.mode=text", "tags.thinking=<think>", "forge.trigger=Use <think>."),
        ("phases.1.schedule=cosine", "phases.1.warmup_steps=2", "phases.1.rows_per_round=8"),
        ("phases.1.max_grad_norm=0", "phases.1.warmup_steps=3"),
        ("phases.1.loss=ipo", "phases.1.label_smoothing=0", "step.precompute_reference=false"),
        ("phases.1.loss=simpo", "phases.1.label_smoothing=0", "phases.1.beta=2.0"),
    ],
    ids=lambda changes: changes[0],
)
def test_every_setting_means_the_same(bases: dict[bool, Path], tmp_path: Path, changes: tuple[str, ...]) -> None:
    recipe = small_recipe(bases[True], "phases.1.learning_rate=0.003", *changes)
    told = curves(recipe, 1, steps_of(recipe, phase=1), tmp_path)
    assert told["mlx"][0]["loss"] != told["mlx"][-1]["loss"]
    for name, close in (("loss", 2e-4), ("lr", 1e-12), ("margin", 2e-3)):
        assert apart(told, name) < close, name
    norms = [metrics["grad_norm"] for metrics in told["trl"]]
    assert apart(told, "grad_norm") < 2e-3 * max(norms)


def test_both_start_from_the_same_numbers(bases: dict[bool, Path], tmp_path: Path) -> None:
    recipe = small_recipe(bases[False])
    from safetensors.numpy import load_file

    found = []
    for backend in BACKENDS:
        learner = opened(backend, recipe, 0, tmp_path)
        learner.save_adapter(tmp_path / backend / "adapter")
        found.append(load_file(tmp_path / backend / "adapter" / "adapter_model.safetensors"))
    assert found[0].keys() == found[1].keys()
    assert sum("trainable_tokens_delta" in name for name in found[0]) == 2
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


def test_a_round_of_each_backend_goes_on_from_the_merged_model_of_the_other(
    bases: dict[bool, Path], tmp_path: Path
) -> None:
    recipe = small_recipe(bases[True], "phases.0.learning_rate=0.01")
    merged = {}
    for backend in BACKENDS:
        learner = opened(backend, recipe, 0, tmp_path)
        taught(learner, steps_of(recipe)[:3])
        learner.merge(tmp_path / f"merged-{backend}")
        second = small_recipe(tmp_path / f"merged-{backend}")
        merged[backend] = curves(second, 1, steps_of(second, phase=1)[:2], tmp_path / f"second-{backend}")
    losses = [metrics["loss"] for told in merged.values() for curve in told.values() for metrics in curve]
    np.testing.assert_allclose(losses, losses[:2] * 4, atol=1e-4)


def test_the_benchmark_draws_both_curves_and_keeps_its_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    from benchmarks import overlay

    monkeypatch.setattr("sys.argv", ["overlay.py", "--small", "--out", str(tmp_path / "overlay.svg")])
    assert overlay.main() == 0
    assert "at most 0.001: kept" in capsys.readouterr().out
    drawn = (tmp_path / "overlay.svg").read_text(encoding="utf-8")
    assert all(words in drawn for words in ("Phase I: ORPO", "Phase II: EXO", "torch", "MLX"))
    monkeypatch.setattr(overlay, "MOST", 1e-12)
    assert overlay.main() == 1
