"""A phase's model in MLX: one forward of a micro-batch, what it learns, and what it says when something is wrong."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="needs the mlx extra")
pytest.importorskip("mlx_lm", reason="needs the mlx extra")

from mlx.nn.utils import value_and_grad  # noqa: E402
from mlx_lm.models import gemma2, gemma3_text, llama, mamba, qwen3  # noqa: E402

from preflexor_agents.backends.base import Completion, Request, complete  # noqa: E402
from preflexor_agents.config import GREEDY  # noqa: E402
from preflexor_agents.errors import BackendError, ConfigError, ModelError, TrainingError  # noqa: E402
from preflexor_agents.prompts import Message  # noqa: E402
from preflexor_training.mlx_backend import forward, loop  # noqa: E402
from preflexor_training.mlx_backend.checkpointing import checkpoint_layers  # noqa: E402
from preflexor_training.mlx_backend.collate import collate  # noqa: E402
from preflexor_training.mlx_backend.forward import abilities, score  # noqa: E402
from preflexor_training.mlx_backend.learner import MlxLearner, open_learner  # noqa: E402
from preflexor_training.mlx_backend.trees import flat  # noqa: E402
from preflexor_training.prepared import referred  # noqa: E402
from preflexor_training.tokenized import Masked, TokenizedPair, TokenizedReply  # noqa: E402
from tests.training.mlx_teaching import small_base, small_recipe, steps_of, taught  # noqa: E402

SIZES: dict[str, Any] = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "head_dim": 8}
SIZES |= {"max_position_embeddings": 256, "rope_theta": 1e4, "tie_word_embeddings": True}


def made(family: Any, **values: Any) -> Any:
    mx.random.seed(3)
    args = family.ModelArgs.from_dict({"model_type": "m", **SIZES, **values})
    model = family.Model(args)
    mx.eval(model.parameters())
    return model


def row(number: int, prompt: int, chosen: int, rejected: int, *, share: float = 1.0) -> Masked:
    rng = np.random.default_rng(number)
    drawn = [rng.integers(0, 97, size).astype(np.int32) for size in (prompt, chosen, rejected)]
    replies = {"chosen": TokenizedReply(ids=drawn[1]), "rejected": TokenizedReply(ids=drawn[2])}
    masks = {"chosen": rng.random(chosen) < share, "rejected": rng.random(rejected) < share}
    return Masked(pair=TokenizedPair(id=f"r{number}", round=0, prompt=drawn[0], **replies), **masks)


ROWS = (row(1, 7, 9, 4), row(2, 3, 2, 11, share=0.5), row(3, 12, 1, 1), row(4, 1, 6, 6, share=0.7))


def by_hand(model: Any, prompt: np.ndarray, reply: np.ndarray) -> np.ndarray:
    ids = mx.array(np.concatenate([prompt, reply])[None])
    logits = np.array(model(ids)[0]).astype(np.float64)
    logps = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.array([logps[t - 1, ids[0, t].item()] for t in range(1, ids.shape[1])])


@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_log_probs_are_those_of_each_reply_alone(shared: bool, scored: bool) -> None:
    model = made(llama)
    found = score(model, collate(ROWS, shared=shared, nll_scope="all"), scored_head=scored)
    for n, of in enumerate(ROWS):
        before = len(of.pair.prompt)
        chosen, rejected = (by_hand(model, of.pair.prompt, r.ids) for r in (of.pair.chosen, of.pair.rejected))
        np.testing.assert_allclose(np.array(found.prompt[n, 1:before]), chosen[: before - 1], atol=1e-5)
        np.testing.assert_allclose(np.array(found.chosen[n, : len(of.chosen)]), chosen[before - 1 :], atol=1e-5)
        wanted = np.where(of.rejected, rejected[before - 1 :], 0.0)
        np.testing.assert_allclose(np.array(found.rejected[n, : len(of.rejected)]), wanted, atol=1e-5)
        assert not np.array(found.rejected[n, len(of.rejected) :]).any()


SLIDING = {"sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"], "tie_word_embeddings": False}
CAPPED = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}
LOCAL = {"sliding_window": 4, "sliding_window_pattern": 2, "query_pre_attn_scalar": 8}
STATES = {"state_size": 4, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "time_step_rank": 2}


@pytest.mark.parametrize(
    ("family", "values", "shared", "scored"),
    [
        pytest.param(llama, {}, True, True, id="llama"),
        pytest.param(llama, SLIDING, True, True, id="untied with a sliding window"),
        pytest.param(qwen3, {}, True, True, id="qwen3"),
        pytest.param(gemma2, CAPPED, False, False, id="gemma2 with capped logits"),
        pytest.param(gemma3_text, LOCAL, True, True, id="gemma3"),
    ],
)
def test_what_a_model_can_do_is_found_out(family: Any, values: dict[str, Any], shared: bool, scored: bool) -> None:
    model = made(family, **values)
    found = abilities(model)
    assert (found.shared_prompt, found.scored_head) == (shared, scored)
    together = score(model, collate(ROWS, shared=found.shared_prompt), scored_head=found.scored_head)
    plain = score(model, collate(ROWS, shared=False), scored_head=False)
    for a, b in zip(together[1:], plain[1:], strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), atol=2e-5)


def test_a_model_whose_embeddings_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(ModelError, match="the embeddings of a m model cannot be told apart; use a Llama"):
        abilities(made(mamba, **STATES))


@pytest.mark.parametrize("shared", [True, False])
def test_computing_activations_again_changes_no_gradient(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, gradients = collate(ROWS, shared=shared, nll_scope="all"), []

    def loss(model: Any) -> Any:
        found = score(model, batch, scored_head=True)
        return found.chosen.sum() - 0.3 * found.rejected.sum() + found.prompt.sum()

    for again in (False, True):
        model = made(llama).train()
        if again:
            checkpoint_layers(model)
            monkeypatch.setattr(forward, "CHUNK_VALUES", 97 * 5)
        value, found = value_and_grad(model, lambda m=model: loss(m))()
        gradients.append(flat(found) | {"loss": value})
    assert type(made(llama).layers[0]) is llama.TransformerBlock, "other models are left alone"
    for name, plain in gradients[0].items():
        scale = float(mx.abs(plain).max().item())
        np.testing.assert_allclose(
            np.array(gradients[1][name]), np.array(plain), atol=1e-5 * max(scale, 1), err_msg=name
        )


def test_dropout_in_layers_that_are_computed_again_is_that_of_the_loss(base: Path, tmp_path: Path) -> None:
    curves = []
    for again in ("false", "true"):
        changes = ("adapter.dropout=0.5", "phases.1.learning_rate=0.01", f"step.gradient_checkpointing={again}")
        recipe = small_recipe(base, *changes)
        learner = open_learner(recipe, recipe.phases[1], base, tmp_path / again)
        told = taught(learner, steps_of(recipe, phase=1))
        curves.append([[metrics[name] for name in ("loss", "grad_norm")] for metrics in told])
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def opened(base: Path, tmp_path: Path) -> Iterator[MlxLearner]:
    """Of Phase II."""
    recipe = small_recipe(base, "phases.1.learning_rate=0.01")
    learner = open_learner(recipe, recipe.phases[1], base, tmp_path / "learner")
    yield learner
    learner.close()


def test_steps_are_told_in_order_with_their_numbers(opened: MlxLearner) -> None:
    steps, told = steps_of(opened._recipe, phase=1), []
    opened.train(steps, first=0, on_step=lambda step, metrics: told.append((step, metrics)))
    assert [step for step, _ in told] == [0, 1, 2, 3]
    wanted = {"loss", "nll", "margin", "accuracy", "reward_chosen", "reward_rejected", "logp_chosen", "logp_rejected"}
    assert told[0][1].keys() == {*wanted, "grad_norm", "lr", "tokens", "seconds"}
    assert told[0][1]["loss"] == pytest.approx(1.9585, abs=1e-3), "policy and reference begin as one"
    assert told[-1][1]["loss"] < told[0][1]["loss"]
    opened.train(steps, first=0, on_step=lambda *_: pytest.fail("all of them were done"))
    with pytest.raises(TrainingError, match=r"step 8 is asked for, but only 4 are done"):
        opened.train(steps, first=7, on_step=lambda *_: None)


def test_held_out_margins_rise_and_leave_no_trace(opened: MlxLearner) -> None:
    steps = steps_of(opened._recipe, phase=1)
    rows = referred(steps, [])
    before, was = opened.evaluate(rows), opened.fingerprint()
    taught(opened, steps)
    after = opened.evaluate(rows)
    assert before.margins == pytest.approx([0.0] * len(rows), abs=1e-4)
    assert np.mean(after.margins) > 0.05 and after.loss < before.loss
    assert opened.evaluate(rows) == after
    assert opened.fingerprint() != was


def test_the_reference_is_the_base_without_its_adapter_also_after_training(base: Path, tmp_path: Path) -> None:
    recipe = small_recipe(base, "phases.1.learning_rate=0.02")
    rows = referred(steps_of(recipe, phase=1), [])
    fresh, late = (open_learner(recipe, recipe.phases[1], base, tmp_path / name) for name in "ab")
    taught(late, steps_of(recipe, phase=1)[:2])
    others = referred(steps_of(recipe, phase=1, round_=1), rows)
    for learner in (fresh, late):
        learner.refer(others)
    for of in others:
        np.testing.assert_allclose(late._references[of].chosen, fresh._references[of].chosen, atol=1e-5)


async def ask(learner: MlxLearner, request: Request) -> Completion:
    student = learner.student()
    try:
        return await complete(student, request)
    finally:
        await student.aclose()


def test_a_student_speaks_with_what_was_learnt(base: Path, tmp_path: Path) -> None:
    recipe = small_recipe(base, "phases.0.learning_rate=0.03", "phases.0.passes=12", "adapter.kind=full")
    learner = open_learner(recipe, recipe.phases[0], base, tmp_path)
    request = Request(messages=(Message("user", "What of the shell?"),), sampling=replace(GREEDY, max_tok=40))
    before = asyncio.run(ask(learner, request))
    taught(learner, steps_of(recipe))
    after = asyncio.run(ask(learner, request))
    assert (before.thinking, bool(after.thinking)) == ("", True)
    assert after.answer.startswith("It is")
    assert after == replace(asyncio.run(ask(learner, request)), seconds=after.seconds)


def test_a_number_that_is_none_names_step_and_rows_and_leaves_the_weights(opened: MlxLearner) -> None:
    steps = steps_of(opened._recipe, phase=1)
    taught(opened, steps[:1])
    was = opened.fingerprint()
    opened._ready().model.norm.weight = opened._ready().model.norm.weight * mx.nan
    with pytest.raises(TrainingError, match=r"step 2: loss is nan on rows row-\d.*; lower learning_rate") as error:
        opened.train(steps, first=0, on_step=lambda *_: None)
    assert "\n" not in str(error.value)
    assert (opened.step, opened.fingerprint()) == (1, was)


def test_a_margin_that_explodes_ends_training(opened: MlxLearner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MARGIN_MOST", 1e-4)
    with pytest.raises(TrainingError, match=r"step 2: a reward margin is .* on row"):
        taught(opened, steps_of(opened._recipe, phase=1))


def test_memory_that_runs_out_names_the_rows_and_the_remedy(
    opened: MlxLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[metal::malloc] Attempting to allocate 99 bytes which is greater than the maximum")

    monkeypatch.setattr("preflexor_training.mlx_backend.learner.score", full)
    with pytest.raises(TrainingError, match=r"out of memory .* row-.*gradient_checkpointing"):
        taught(opened, steps_of(opened._recipe, phase=1))


def test_a_row_that_the_model_cannot_read_is_named(opened: MlxLearner) -> None:
    good = referred(steps_of(opened._recipe, phase=1), [])[0]
    strange = replace(good, pair=replace(good.pair, id="odd", prompt=np.array([9_999], dtype=np.int32)))
    with pytest.raises(TrainingError, match="row odd has the token 9999"):
        opened.train((((strange,),),), first=0, on_step=lambda *_: None)


def test_a_learner_may_be_taught_in_another_thread_than_it_was_opened_in(opened: MlxLearner) -> None:
    steps = steps_of(opened._recipe, phase=1)
    with ThreadPoolExecutor(1) as other:
        told = other.submit(taught, opened, steps[:2]).result()
    told += taught(opened, steps)
    assert len(told) == 4
    assert opened.evaluate(referred(steps, [])).loss < told[0]["loss"]


def test_a_learner_that_is_closed_says_so(opened: MlxLearner) -> None:
    opened.close()
    opened.close()
    with pytest.raises(TrainingError, match="closed; open it again"):
        opened.fingerprint()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("step.engine=trl", '"ours"'),
        ('adapter.targets=["c_attn"]', "it has down_proj, gate_proj, k_proj"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(base: Path, tmp_path: Path, change: str, words: str) -> None:
    recipe = small_recipe(base, change)
    with pytest.raises(ConfigError, match=words):
        open_learner(recipe, recipe.phases[0], base, tmp_path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), r"has no model\*.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04"), "cannot be opened with mlx-lm"),
        (lambda folder: (folder / "config.json").write_text("[]", encoding="utf-8"), "names no model_type"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "nope"}', encoding="utf-8"),
            "nope not supp",
        ),
        (lambda folder: (folder / "tokenizer.json").write_text("{", encoding="utf-8"), "no tokenizer"),
    ],
)
def test_a_base_that_is_no_model_is_one_line(base: Path, tmp_path: Path, spoil: Any, words: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in base.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    spoil(folder)
    recipe = small_recipe(folder)
    with pytest.raises((ModelError, BackendError), match=words) as error:
        open_learner(recipe, recipe.phases[0], folder, tmp_path / "learner")
    assert "\n" not in str(error.value)
