"""A phase's model on real pairs: what it learns, that it resumes to the bit, and what it says when things go wrong."""

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from preflexor_agents.errors import ModelError, TrainingError
from preflexor_training.learner import Metrics
from preflexor_training.tokenized import Masked
from preflexor_training.torch_backend import trainer as trainers
from preflexor_training.torch_backend.learner import TorchLearner, open_learner
from preflexor_training.torch_backend.trainer import checkpoints
from tests.training import learning, stories

pytestmark = [pytest.mark.train, stories.needs_data]
KILLS = int(os.environ.get("PREFLEXOR_KILL_ROUNDS", "3"))
SMALL = (
    "adapter.rank=4",
    "adapter.dropout=0.1",
    "phases.0.batch_pairs=2",
    "phases.1.batch_pairs=2",
    "phases.0.accumulation=2",
    "phases.1.accumulation=2",
    "phases.0.passes=2",
    "phases.1.passes=2",
    "phases.0.checkpoint_every=3",
    "phases.1.checkpoint_every=3",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return stories.base(tmp_path_factory.mktemp("base") / "stories")


@pytest.fixture
def opened(base: Path, tmp_path: Path) -> Iterator[TorchLearner]:
    """Of Phase II, without dropout."""
    recipe = stories.recipe(base, *SMALL, "adapter.dropout=0.0")
    learner = open_learner(recipe, recipe.phases[1], base, tmp_path / "learner")
    yield learner
    learner.close()


def weights(learner: TorchLearner) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in learner._ready().named_parameters() if p.requires_grad}


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.fixture(scope="module")
def straight(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a run that nothing disturbed."""
    learner = learning.learn(base, tmp_path_factory.mktemp("straight"), SMALL)
    assert learner.step == 8
    return weights(learner)


@pytest.mark.slow
@pytest.mark.parametrize("kill", range(KILLS))
def test_a_killed_run_ends_with_the_same_weights_to_the_bit(
    base: Path, tmp_path: Path, straight: dict[str, torch.Tensor], kill: int
) -> None:
    chance = random.Random(kill)
    after, saving = chance.randrange(8), kill % 3 == 2
    status = learning.killed(base, tmp_path, SMALL, phase=1, after=after, saving=saving)
    assert status == -signal.SIGKILL
    resumed = learning.learn(base, tmp_path, SMALL)
    assert resumed.step == 8
    assert difference(weights(resumed), straight) == 0.0


def test_a_round_edge_leaves_no_trace_in_the_weights(base: Path, tmp_path: Path, straight: Any) -> None:
    """Killed exactly between two rounds, with a student asked in between, which draws from sources of its own."""
    recipe = stories.recipe(base, *SMALL)
    first = open_learner(recipe, recipe.phases[1], base, tmp_path)
    first.train(learning.steps(recipe, 1, round=0), first=0, on_step=lambda *_: None)
    asyncio.run(learning.ask(first.student(), "What is a dog?", seed=3))
    torch.rand(5)
    first.close()
    resumed = learning.learn(base, tmp_path, SMALL)
    assert difference(weights(resumed), straight) == 0.0


def test_resuming_is_no_matter_of_course(base: Path, tmp_path: Path, straight: Any) -> None:
    """Without the optimizer's moments a resumed run ends elsewhere, so the tests above can fail."""
    recipe = stories.recipe(base, *SMALL)
    first = open_learner(recipe, recipe.phases[1], base, tmp_path)
    first.train(learning.steps(recipe, 1, round=0), first=0, on_step=lambda *_: None)
    (checkpoints(tmp_path / "checkpoints")[-1] / "optimizer.pt").unlink()
    assert difference(weights(learning.learn(base, tmp_path, SMALL)), straight) > 1e-5


def test_steps_are_told_in_order_with_their_numbers(opened: TorchLearner) -> None:
    told: list[tuple[int, Metrics]] = []
    taken = learning.steps(opened._recipe, 1, round=0)
    opened.train(taken, first=0, on_step=lambda step, metrics: told.append((step, metrics)))
    assert [step for step, _ in told] == [0, 1, 2, 3]
    wanted = {"loss", "nll", "margin", "accuracy", "reward_chosen", "reward_rejected", "logp_chosen", "logp_rejected"}
    assert told[0][1].keys() == {*wanted, "grad_norm", "lr", "tokens", "seconds"}
    assert told[0][1]["loss"] == pytest.approx(1.9585, abs=1e-3), "policy and reference begin as one"
    assert told[0][1]["tokens"] == sum(
        len(r.pair.prompt) + len(r.pair.chosen.ids) + len(r.pair.rejected.ids) for m in taken[0] for r in m
    )
    opened.train(taken, first=0, on_step=lambda *_: pytest.fail("all of them were done"))


def test_a_stop_leaves_a_checkpoint_of_its_step(opened: TorchLearner) -> None:
    def stop(step: int, metrics: Metrics) -> None:
        if step == 1:
            raise KeyboardInterrupt("enough")

    taken = learning.steps(opened._recipe, 1, round=0)
    with pytest.raises(KeyboardInterrupt, match="enough"):
        opened.train(taken, first=0, on_step=stop)
    assert opened.step == 2
    opened.train(taken, first=0, on_step=lambda *_: None)
    assert opened.step == 4


def test_two_checkpoints_are_kept_and_no_partial_one(opened: TorchLearner) -> None:
    taken = learning.steps(opened._recipe, 1, round=0)
    opened.train(taken, first=0, on_step=lambda *_: None)
    folder = opened._folder / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint-3", "checkpoint-4"]
    names = {p.name for p in (folder / "checkpoint-4").iterdir()}
    assert {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= names
    assert "training_args.bin" not in names


def test_the_schedule_falls_over_all_rounds(base: Path, tmp_path: Path) -> None:
    changes = (*SMALL, "phases.1.schedule=linear", "phases.1.rows_per_round=8", "phases.1.replay_share=0.0")
    rates: list[float] = []
    learning.learn(base, tmp_path, changes, on_step=lambda _, metrics: rates.append(metrics["lr"])).close()
    np.testing.assert_allclose(rates, [3e-4 * (8 - n) / 8 for n in range(8)], rtol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [(), ("step.shared_prompt=false",), ("step.precompute_reference=false",)],
)
def test_the_faster_step_takes_the_same_steps(base: Path, tmp_path: Path, changes: tuple[str, ...]) -> None:
    told: list[float] = []
    plain = (*SMALL, "adapter.dropout=0.0")
    learning.learn(base, tmp_path, (*plain, *changes), on_step=lambda _, m: told.append(m["loss"])).close()
    np.testing.assert_allclose(told, REMEMBERED.setdefault("losses", told), atol=1e-4)


REMEMBERED: dict[str, list[float]] = {}


def test_gradient_checkpointing_takes_the_same_steps(base: Path, tmp_path: Path) -> None:
    told: dict[bool, list[float]] = {True: [], False: []}
    for on, losses in told.items():
        changes = (*SMALL, "adapter.dropout=0.0", f"step.gradient_checkpointing={str(on).lower()}")
        recipe = stories.recipe(base, *changes)
        learner = open_learner(recipe, recipe.phases[1], base, tmp_path / str(on))
        taken = learning.steps(recipe, 1, round=0)[:2]
        learner.train(taken, first=0, on_step=lambda _, m, out=losses: out.append(m["loss"]))
    np.testing.assert_allclose(told[True], told[False], atol=1e-5)


def test_full_training_keeps_its_reference_on_disk(base: Path, tmp_path: Path) -> None:
    changes = (*SMALL, "adapter.kind=full", "phases.1.learning_rate=0.0001")
    told: list[float] = []
    learner = learning.learn(base, tmp_path, changes, on_step=lambda _, m: told.append(m["loss"]))
    assert told[0] == pytest.approx(1.9585, abs=1e-3)
    held = stories.rows(learner._recipe, stories.pairs(20)[16:], phase=1)
    found = learner.evaluate(held)
    assert any(abs(margin) > 1e-3 for margin in found.margins), "the reference is the base, not the model as it is"
    again = open_learner(learner._recipe, learner._phase, base, tmp_path)
    assert again.fingerprint() == learner.fingerprint()
    assert again.evaluate(held) == found
    last = checkpoints(tmp_path / "checkpoints")[-1] / "model.safetensors"
    kept = load_file(last)
    save_file({name: kept[name] for name in list(kept)[1:]}, last, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"checkpoint-8 is damaged: a checkpoint lacks 1 weights, as .*; remove it"):
        open_learner(learner._recipe, learner._phase, base, tmp_path)


def test_a_loss_that_is_no_number_names_step_and_rows(opened: TorchLearner) -> None:
    taken = learning.steps(opened._recipe, 1, round=0)
    with torch.no_grad():
        next(p for p in opened._ready().parameters() if p.requires_grad)[0, 0] = float("nan")
    ids = {row.pair.id for micro in taken[0] for row in micro}
    with pytest.raises(TrainingError, match=r"^step 1: loss is nan on rows row-") as caught:
        opened.train(taken, first=0, on_step=lambda *_: None)
    assert all(name in str(caught.value) for name in ids)
    assert "lower learning_rate (it was 0.0003)" in str(caught.value)
    assert opened.step == 0, "no checkpoint of it"


def test_a_margin_that_explodes_is_told(opened: TorchLearner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainers, "MARGIN_MOST", 1e-4)
    taken = learning.steps(opened._recipe, 1, round=0)
    with pytest.raises(TrainingError, match=r"^step \d: a reward margin is .* nats, more than .* on rows .*; lower"):
        opened.train(taken, first=0, on_step=lambda *_: None)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_running_out_of_memory_names_the_rows(
    opened: TorchLearner, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr("preflexor_training.torch_backend.learner.objective", fail)
    taken = learning.steps(opened._recipe, 1, round=0)
    with pytest.raises(TrainingError, match=r"^step 1: out of memory on \d+ tokens of row.*gradient_checkpointing"):
        opened.train(taken, first=0, on_step=lambda *_: None)


def test_another_runtime_error_is_let_through(opened: TorchLearner, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("sizes do not match")

    monkeypatch.setattr("preflexor_training.torch_backend.learner.objective", fail)
    with pytest.raises(RuntimeError, match="sizes do not match"):
        opened.train(learning.steps(opened._recipe, 1, round=0), first=0, on_step=lambda *_: None)


def test_a_full_disk_is_told_and_leaves_the_last_checkpoint(
    opened: TorchLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        if opened.step == 3:
            raise OSError(28, "No space left on device")
        plain(*_, **__)

    plain = trainers.save_adapter
    monkeypatch.setattr(trainers, "save_adapter", full)
    with pytest.raises(TrainingError, match=r"step 4: the checkpoint .* cannot be written: .*No space left.*make room"):
        opened.train(learning.steps(opened._recipe, 1, round=0), first=0, on_step=lambda *_: None)
    assert opened.step == 3
    assert [p.name for p in (opened._folder / "checkpoints").iterdir()] == ["checkpoint-3"]


def _spoilt(row: Masked, case: str) -> Masked:
    pair = row.pair
    match case:
        case "no prompt":
            return replace(row, pair=replace(pair, prompt=pair.prompt[:0]))
        case "mask":
            return replace(row, chosen=row.chosen[:-1])
        case "token":
            return replace(row, pair=replace(pair, prompt=np.append(pair.prompt, np.int32(9999))))
        case _:
            return replace(row, pair=replace(pair, prompt=np.tile(pair.prompt, 30)))


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("no prompt", "has an empty prompt or reply"),
        ("mask", "has a mask of another length"),
        ("token", "has the token 9999, the model 516"),
        ("long", r"has \d+ tokens, the model takes 512; lower data.max_length_tok"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(opened: TorchLearner, case: str, said: str) -> None:
    (micro,) = (step[0] for step in learning.steps(opened._recipe, 1, round=0)[:1])
    bad = _spoilt(micro[0], case)
    for call in (
        lambda: opened.refer([bad]),
        lambda: opened.evaluate([bad]),
        lambda: opened.train([((bad,),)], first=0, on_step=lambda *_: None),
    ):
        with pytest.raises(TrainingError, match=rf"^row {bad.pair.id} {said}"):
            call()


def test_a_damaged_checkpoint_is_told(base: Path, opened: TorchLearner) -> None:
    opened.train(learning.steps(opened._recipe, 1, round=0), first=0, on_step=lambda *_: None)
    last = checkpoints(opened._folder / "checkpoints")[-1]
    (last / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match=r"checkpoint .*checkpoint-4 is damaged: .*; remove it"):
        open_learner(opened._recipe, opened._phase, base, opened._folder)


def test_a_folder_that_is_no_model_is_told(tmp_path: Path, base: Path) -> None:
    recipe = stories.recipe(base)
    with pytest.raises(ModelError):
        open_learner(recipe, recipe.phases[0], tmp_path / "nowhere", tmp_path / "learner")


def test_a_place_that_cannot_be_written_is_told(base: Path, tmp_path: Path, opened: TorchLearner) -> None:
    file = tmp_path / "file"
    file.write_text("here", encoding="utf-8")
    for call in (
        lambda: opened.save_adapter(file),
        lambda: opened.merge(file),
        lambda: open_learner(opened._recipe, opened._phase, base, file),
    ):
        with pytest.raises(TrainingError, match=r"file cannot be written: .*; make room or name another folder"):
            call()
    assert file.read_text(encoding="utf-8") == "here"


def test_the_fingerprint_is_of_the_weights(opened: TorchLearner) -> None:
    before = opened.fingerprint()
    assert before == opened.fingerprint()
    opened.train(learning.steps(opened._recipe, 1, round=0)[:1], first=0, on_step=lambda *_: None)
    assert opened.fingerprint() != before


def test_earlier_weights_can_be_taken_back(opened: TorchLearner, tmp_path: Path) -> None:
    before = weights(opened)
    opened.save_adapter(tmp_path / "kept")
    opened.train(learning.steps(opened._recipe, 1, round=0)[:2], first=0, on_step=lambda *_: None)
    assert difference(weights(opened), before) > 0
    opened.load_adapter(tmp_path / "kept")
    assert difference(weights(opened), before) == 0
    with pytest.raises(TrainingError, match="holds no weights of this model"):
        opened.load_adapter(tmp_path)
