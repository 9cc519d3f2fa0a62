"""Base and adapter as one model: the same logits, ties kept, and a folder that the next phase starts from."""

from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from preflexor_agents.errors import TrainingError
from preflexor_quantize.adapter import merge
from preflexor_training.phases import check_ties, is_tied, leave_model
from preflexor_training.torch_backend.learner import TorchLearner, open_learner
from preflexor_training.torch_backend.model import tied
from tests.training import learning, stories
from tests.training.test_torch_learner import SMALL

pytestmark = [pytest.mark.train, stories.needs_data]


def trained(base: Path, folder: Path, *changes: str, phase: int = 0) -> TorchLearner:
    recipe = stories.recipe(base, *SMALL, f"phases.{phase}.learning_rate=0.001", *changes)
    learner = open_learner(recipe, recipe.phases[phase], base, folder)
    learner.train(learning.steps(recipe, phase, round=0), first=0, on_step=lambda *_: None)
    return learner


@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_merged_model_is_base_and_adapter(tmp_path: Path, kind: str, tie: bool) -> None:
    base = stories.base(tmp_path / "base", tied=tie)
    learner = trained(base, tmp_path / "learner", f"adapter.kind={kind}", "adapter.dropout=0.0")
    row = stories.rows(learner._recipe, stories.pairs(1))[0]
    leave_model(learner.merge, base=base, out=tmp_path / "model")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    before, after = stories.logits(learner._ready(), row), stories.logits(merged, row)
    np.testing.assert_allclose(after, before, atol=1e-5)
    plain = AutoModelForCausalLM.from_pretrained(base)
    plain.resize_token_embeddings(516, mean_resizing=False)
    assert np.abs(stories.logits(plain, row) - after).max() > 0.1, "something was learnt"
    assert tied(merged) is tie is is_tied(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert len(tokenizer) == 516 == len(merged.get_input_embeddings().weight)
    assert len(tokenizer.encode("<|/thinking|>", add_special_tokens=False)) == 1
    assert tokenizer.chat_template


def test_the_next_phase_begins_where_the_merged_model_is(tmp_path: Path) -> None:
    base = stories.base(tmp_path / "base")
    first = trained(base, tmp_path / "one", "adapter.dropout=0.0")
    first.merge(tmp_path / "model")
    recipe = stories.recipe(tmp_path / "model", *SMALL)
    second = open_learner(recipe, recipe.phases[1], tmp_path / "model", tmp_path / "two")
    assert second._new == (), "the tags are there by now"
    row = stories.rows(recipe, stories.pairs(1), phase=1)[0]
    np.testing.assert_allclose(stories.logits(second._ready(), row), stories.logits(first._ready(), row), atol=1e-5)
    assert second.evaluate([row]).loss == pytest.approx(1.9585, abs=1e-4), "it is its own reference"


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_saved_adapter_and_its_base_are_the_model_for_peft(tmp_path: Path) -> None:
    base = stories.base(tmp_path / "base")
    learner = trained(base, tmp_path / "learner", "adapter.dropout=0.0")
    learner.save_adapter(tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(base)
    plain.resize_token_embeddings(516, mean_resizing=False)
    again = peft.PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))
    row = stories.rows(learner._recipe, stories.pairs(1))[0]
    np.testing.assert_allclose(stories.logits(again, row), stories.logits(learner._ready(), row), atol=1e-5)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "adapter")) == 516


def test_quantize_works_the_adapter_into_a_base_without_the_tags(tmp_path: Path) -> None:
    base = stories.base(tmp_path / "base")
    learner = trained(base, tmp_path / "learner", "adapter.dropout=0.0")
    learner.save_adapter(tmp_path / "adapter")
    merge(base, tmp_path / "adapter", tmp_path / "merged")
    row = stories.rows(learner._recipe, stories.pairs(1))[0]
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    np.testing.assert_allclose(stories.logits(found, row), stories.logits(learner._ready(), row), atol=1e-5)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "merged")) == 516


def test_a_merge_leaves_the_trained_model_as_it_was(tmp_path: Path) -> None:
    base = stories.base(tmp_path / "base")
    learner = trained(base, tmp_path / "learner")
    before = learner.fingerprint()
    learner.merge(tmp_path / "model")
    assert learner.fingerprint() == before
    learner.train(learning.steps(learner._recipe, 0, round=1), first=4, on_step=lambda *_: None)
    assert learner.step == 8


def test_weights_that_are_no_numbers_are_not_merged(tmp_path: Path) -> None:
    base = stories.base(tmp_path / "base")
    learner = trained(base, tmp_path / "learner")
    with torch.no_grad():
        next(p for n, p in learner._ready().named_parameters() if "lora_B" in n)[0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"the adapter cannot be merged: .*; go back to an earlier checkpoint"):
        learner.merge(tmp_path / "model")


def test_a_merge_that_unties_is_found_out(tmp_path: Path) -> None:
    base, other = stories.base(tmp_path / "base"), stories.base(tmp_path / "other", tied=False)
    with pytest.raises(TrainingError, match=r"tied in .*base and untied"):
        check_ties(base, other)
