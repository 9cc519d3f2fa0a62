"""What MLX has learnt is read by other tools, and the other way round: adapters with token rows, merged models."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="needs the mlx extra")
pytest.importorskip("mlx_lm", reason="needs the mlx extra")
torch = pytest.importorskip("torch", reason="needs the train extra")

import mlx_lm  # noqa: E402
from mlx_lm.utils import load_model, quantize_model, save_config, save_model  # noqa: E402
from peft import PeftModel  # noqa: E402
from safetensors import safe_open  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from preflexor_agents.backends import mlx_adapter, mlx_model  # noqa: E402
from preflexor_agents.backends.mlx_adapter import Adapter, Rows, Update  # noqa: E402
from preflexor_agents.errors import ConfigError, ModelError, TrainingError  # noqa: E402
from preflexor_training.mlx_backend.learner import open_learner  # noqa: E402
from preflexor_training.phases import is_tied  # noqa: E402
from preflexor_training.torch_backend.learner import open_learner as open_torch  # noqa: E402
from tests.training.mlx_teaching import logits, small_base, small_recipe, steps_of, taught  # noqa: E402

pytestmark = pytest.mark.train
TIES = [pytest.param(True, id="tied"), pytest.param(False, id="untied")]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    return {tied: small_base(tmp_path_factory.mktemp("base") / "model", tied=tied) for tied in (True, False)}


@pytest.fixture(scope="module")
def learnt(bases: dict[bool, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Adapter and merged model of a few steps in MLX, for a tied and an untied base."""
    made = {}
    for tied, base in bases.items():
        recipe, out = small_recipe(base, "phases.0.learning_rate=0.02"), tmp_path_factory.mktemp("learnt")
        learner = open_learner(recipe, recipe.phases[0], base, out / "learner")
        taught(learner, steps_of(recipe)[:4])
        learner.save_adapter(out / "adapter")
        learner.merge(out / "merged")
        learner.close()
        made[tied] = out
    return made


def text(tokenizer_of: Path) -> np.ndarray:
    """A text with every tag in it."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of)
    return np.array(tokenizer("<|thinking|>the shell<|/thinking|> is <|reflect|>so<|/reflect|> tough")["input_ids"])


def in_torch(folder: Path, ids: np.ndarray, *, adapter: Path | None = None) -> np.ndarray:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model.resize_token_embeddings(len(AutoTokenizer.from_pretrained(adapter)), mean_resizing=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of Transformers, at what PEFT asks it for
            model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        return np.asarray(model.eval()(torch.from_numpy(ids)[None]).logits[0])


@pytest.mark.parametrize("tied", TIES)
def test_peft_reads_what_mlx_has_learnt(bases: dict[bool, Path], learnt: dict[bool, Path], tied: bool) -> None:
    adapter = learnt[tied] / "adapter"
    ids = text(adapter)
    ours = logits(bases[tied], ids, adapter=adapter)
    np.testing.assert_allclose(in_torch(bases[tied], ids, adapter=adapter), ours, rtol=1e-5, atol=1e-5)
    learnt_rows = mlx_adapter.read(adapter).rows
    assert set(learnt_rows) == ({"model.embed_tokens"} if tied else {"model.embed_tokens", "lm_head"})
    assert np.ptp(np.array(learnt_rows["model.embed_tokens"].values), axis=0).max() > 1e-3


@pytest.mark.parametrize("tied", TIES)
def test_mlx_reads_what_peft_has_learnt(bases: dict[bool, Path], tmp_path: Path, tied: bool) -> None:
    recipe = small_recipe(bases[tied], "phases.0.learning_rate=0.02")
    learner = open_torch(recipe, recipe.phases[0], bases[tied], tmp_path / "learner")
    taught(learner, steps_of(recipe)[:2])
    learner.save_adapter(tmp_path / "adapter")
    ids = text(tmp_path / "adapter")
    theirs = in_torch(bases[tied], ids, adapter=tmp_path / "adapter")
    np.testing.assert_allclose(logits(bases[tied], ids, adapter=tmp_path / "adapter"), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", TIES)
def test_a_merged_model_is_base_and_adapter_and_keeps_its_ties(
    bases: dict[bool, Path], learnt: dict[bool, Path], tied: bool
) -> None:
    merged, adapter = learnt[tied] / "merged", learnt[tied] / "adapter"
    ids = text(adapter)
    ours = logits(bases[tied], ids, adapter=adapter)
    np.testing.assert_allclose(in_torch(merged, ids), ours, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logits(merged, ids), ours, rtol=1e-5, atol=1e-5)
    assert is_tied(merged) == tied
    with safe_open(merged / "model.safetensors", framework="np") as opened:
        assert ("lm_head.weight" in set(opened.keys())) != tied


def test_a_model_that_was_trained_whole_is_written_whole(bases: dict[bool, Path], tmp_path: Path) -> None:
    recipe = small_recipe(bases[True], "adapter.kind=full")
    learner = open_learner(recipe, recipe.phases[0], bases[True], tmp_path / "learner")
    taught(learner, steps_of(recipe)[:2])
    learner.save_adapter(tmp_path / "saved")
    learner.merge(tmp_path / "merged")
    ids = text(tmp_path / "merged")
    theirs = in_torch(tmp_path / "merged", ids)
    np.testing.assert_allclose(logits(tmp_path / "saved", ids), theirs, rtol=1e-5, atol=1e-5)
    assert np.abs(theirs[0, :200] - in_torch(bases[True], ids[:1] * 0)[0, :200]).max() > 0.01


def test_the_files_of_mlx_lm_are_read_by_it_and_by_us(bases: dict[bool, Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = (mx.array(rng.normal(size=shape).astype(np.float32)) for shape in ((4, 32), (32, 4)))
    names = [f"model.layers.{n}.self_attn.q_proj" for n in range(2)]
    updates = {name: Update(a, b, 0.5) for name in names}
    (tmp_path / "adapter").mkdir()
    mlx_adapter.write_mlx(Adapter(updates=updates, base=str(bases[True])), tmp_path / "adapter")
    ids = np.arange(5, 25)
    theirs, _ = mlx_lm.load(str(bases[True]), adapter_path=str(tmp_path / "adapter"))
    expected = np.array(theirs(mx.array(ids[None]))[0])
    np.testing.assert_allclose(logits(bases[True], ids, adapter=tmp_path / "adapter"), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logits(tmp_path / "adapter", ids), expected, rtol=1e-5, atol=1e-5)


def test_token_rows_survive_both_kinds_of_files(tmp_path: Path) -> None:
    rows = {"model.embed_tokens": Rows((7, 3), mx.array([[1.0, 2.0], [3.0, 4.0]]))}
    updates = {"model.layers.0.mlp.up_proj": Update(mx.ones((1, 2)), mx.ones((5, 1)), 2.0)}
    adapter = Adapter(updates=updates, rows=rows, dropout=0.25, base="b")
    for write in (mlx_adapter.write_peft, mlx_adapter.write_mlx):
        out = tmp_path / write.__name__
        out.mkdir()
        write(adapter, out)
        found = mlx_adapter.read(out)
        assert (found.rows["model.embed_tokens"].ids, found.dropout, found.base) == ((7, 3), 0.25, "b")
        assert mx.array_equal(found.rows["model.embed_tokens"].values, rows["model.embed_tokens"].values)
        (update,) = found.updates.values()
        assert (update.a.shape, update.b.shape, update.scale) == ((1, 2), (5, 1), 2.0)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_base_that_mlx_lm_quantised_is_taught_and_merged_into_whole_weights(
    bases: dict[bool, Path], tmp_path: Path, bits: int
) -> None:
    model, config = load_model(bases[True])
    model, config = quantize_model(model, config, group_size=32, bits=bits)
    save_model(tmp_path / "base", model)
    save_config(config, tmp_path / "base" / "config.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "base" / name).write_bytes((bases[True] / name).read_bytes())
    recipe = small_recipe(tmp_path / "base", "phases.0.learning_rate=0.01")
    learner = open_learner(recipe, recipe.phases[0], tmp_path / "base", tmp_path / "learner")
    told = taught(learner, steps_of(recipe)[:4])
    assert told[-1]["loss"] < told[0]["loss"]
    learner.save_adapter(tmp_path / "adapter")
    learner.merge(tmp_path / "merged")
    ids = text(tmp_path / "adapter")
    ours = logits(tmp_path / "base", ids, adapter=tmp_path / "adapter")
    np.testing.assert_allclose(in_torch(tmp_path / "merged", ids), ours, atol=1e-4)
    assert "quantization" not in json.loads((tmp_path / "merged" / "config.json").read_text(encoding="utf-8"))


def test_a_whole_base_is_quantised_if_the_recipe_says_so(bases: dict[bool, Path], tmp_path: Path) -> None:
    recipe = small_recipe(bases[True], "adapter.bits=4", "phases.1.learning_rate=0.01")
    learner = open_learner(recipe, recipe.phases[1], bases[True], tmp_path / "learner")
    told = taught(learner, steps_of(recipe, phase=1)[:4])
    assert told[0]["loss"] == pytest.approx(1.9585, abs=1e-3)
    assert told[-1]["loss"] < 1.9


def test_a_quantised_base_is_refused_where_it_cannot_be_what_is_asked(bases: dict[bool, Path], tmp_path: Path) -> None:
    config = json.loads((bases[True] / "config.json").read_text(encoding="utf-8"))
    model, made = quantize_model(load_model(bases[True])[0], config, group_size=32, bits=4)
    save_model(tmp_path / "base", model)
    save_config(made, tmp_path / "base" / "config.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "base" / name).write_bytes((bases[True] / name).read_bytes())
    for change, words in (("adapter.kind=full", 'kind = "lora"'), ("adapter.bits=8", "set it to 4 or 16")):
        recipe = small_recipe(tmp_path / "base", change)
        with pytest.raises(ConfigError, match=words):
            open_learner(recipe, recipe.phases[0], tmp_path / "base", tmp_path / "learner")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "no readable adapter_config.json"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"\x80\x04"), "cannot be read"),
        (lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"), "a pickle"),
        (lambda folder: edit(folder, use_dora=True), "more than LoRA"),
        (lambda folder: edit(folder, trainable_token_indices=None), "does not say whose rows"),
        (lambda folder: edit(folder, peft_type="IA3"), "more than LoRA"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_one_line(learnt: dict[bool, Path], tmp_path: Path, spoil, words) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for file in (learnt[True] / "adapter").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    spoil(folder)
    with pytest.raises(ModelError, match=words) as error:
        mlx_adapter.read(folder)
    assert "\n" not in str(error.value)


def edit(folder: Path, **fields: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **fields}), encoding="utf-8")


def test_an_adapter_of_another_base_is_one_line(learnt: dict[bool, Path], bases: dict[bool, Path]) -> None:
    with pytest.raises(ModelError, match="lm_head") as error:
        mlx_model.load(bases[True], adapter=learnt[False] / "adapter")
    assert "\n" not in str(error.value)


def test_a_disk_without_room_is_one_line(learnt: dict[bool, Path], bases: dict[bool, Path], tmp_path: Path) -> None:
    recipe = small_recipe(bases[True])
    learner = open_learner(recipe, recipe.phases[0], bases[True], tmp_path / "learner")
    (tmp_path / "file").write_text("", encoding="utf-8")
    for act in (learner.merge, learner.save_adapter):
        with pytest.raises(TrainingError, match=r"cannot be written.*make room"):
            act(tmp_path / "file" / "out")
