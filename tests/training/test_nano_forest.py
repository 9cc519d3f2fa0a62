import dataclasses
import random

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs the train extra")

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from preflexor_training.nano.batches import Forest, Tokens, join, plant, stretch
from preflexor_training.nano.forward import hidden_states
from preflexor_training.nano.model import copy_accuracy, new_model
from preflexor_training.nano.tokenizer import train_tokenizer

PREFIX = list(range(20, 90))
DIALOGUES = [
    Tokens("single", [*PREFIX, 100, 101], [102, 103, 104]),
    Tokens("single", [*PREFIX, 100, 101], [102, 113]),
    Tokens("critique", [*PREFIX, 100, 121, *range(30, 260)], [122, 123, 124, 125]),
    Tokens("judge", [*PREFIX, 130], [131]),
    Tokens("copy", [7, 8, 9], [10, 11]),
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["some words to learn merges from"], vocab_size=280, context=512)


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(1)
    return new_model(tokenizer, layers=2, hidden=256, heads=4, ffn=256, context=512)


def forest_loss(model: LlamaForCausalLM, forest: Forest) -> Tensor:
    hidden = hidden_states(model, forest)[torch.from_numpy(forest.at)]
    loss = cross_entropy(model.lm_head(hidden), torch.from_numpy(forest.target), reduction="none")
    return (loss * torch.from_numpy(forest.weight)).sum()


def row_loss(model: LlamaForCausalLM, tokens: Tokens) -> Tensor:
    ids = torch.tensor([tokens.prompt + tokens.reply])
    logits = model(input_ids=ids).logits[0, len(tokens.prompt) - 1 : -1]
    return cross_entropy(logits, ids[0, len(tokens.prompt) :], reduction="sum")


def gradients(model: LlamaForCausalLM, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def test_a_forest_has_the_loss_and_gradients_of_separate_rows(model: LlamaForCausalLM) -> None:
    together = forest_loss(model, join([plant(DIALOGUES), plant(DIALOGUES[:2])]))
    apart = torch.stack([row_loss(model, d) for d in [*DIALOGUES, *DIALOGUES[:2]]]).sum()
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-4 * float(apart.detach()))
    for ours, theirs in zip(gradients(model, together), gradients(model, apart), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_shared_token_is_run_once() -> None:
    forest = plant(DIALOGUES[:4])
    assert len(forest.ids) < sum(len(d.prompt) + len(d.reply) for d in DIALOGUES[:4]) - 3 * len(PREFIX)


def test_a_task_weight_scales_its_reply_tokens_only() -> None:
    forest = plant(DIALOGUES, weights={"judge": 3.0})
    assert forest.weight[forest.dialogue == 3].tolist() == [3.0]
    assert set(forest.weight[forest.dialogue == 4].tolist()) == {1.0}


def test_prompt_tokens_count_only_when_weighted() -> None:
    assert not (plant(DIALOGUES).dialogue == -1).any()
    forest = plant(DIALOGUES, prompt_weight=0.1)
    assert np.allclose(forest.weight[forest.dialogue == -1], 0.1)


def test_a_stretched_tree_stays_within_the_context_and_in_order() -> None:
    tree = plant(DIALOGUES[:1])
    for seed in range(20):
        depth = stretch(tree, random.Random(seed), context=512).depth
        assert depth.max() < 512
        assert (np.diff(depth) >= 1).all()


def test_a_fresh_model_copies_before_any_training(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    fresh = new_model(tokenizer, layers=4, hidden=256, heads=4, ffn=768, context=512)
    assert copy_accuracy(fresh) > 0.5


def test_joining_moves_every_index(model: LlamaForCausalLM) -> None:
    tree = plant(DIALOGUES)
    forest = join([tree, tree])
    half = len(tree.at)
    hidden = hidden_states(model, forest).detach()
    torch.testing.assert_close(hidden[forest.at[:half]], hidden[forest.at[half:]], rtol=1e-4, atol=1e-5)
    assert dataclasses.asdict(forest)["tasks"] == tree.tasks * 2
