"""`preflexor merge`: adapters into their base, and models into one between them."""

import json
import math
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from preflexor_agents.cli.main import cli
from preflexor_training.interpolation import interpolate
from preflexor_training.phases import is_tied, opener
from tests.training.small_runs import small_base, small_recipe, write_pairs

pytestmark = pytest.mark.train


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def base(own_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without the tags, so that they have to be added."""
    folder = small_base(tmp_path_factory.mktemp("base"))
    file = folder / "tokenizer.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    told["added_tokens"] = [token for token in told["added_tokens"] if token["special"]]
    file.write_text(json.dumps(told), encoding="utf-8")
    weights = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["vocab_size"] -= 4
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    name = "model.embed_tokens.weight"
    save_file(
        {**weights, name: weights[name][:-4].contiguous()}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A learner's adapter with every part of it changed, and beside it what the learner itself merges."""
    out = tmp_path_factory.mktemp("learner")
    recipe = small_recipe(base, write_pairs(out / "pairs.jsonl"))
    learner = opener("trl")(recipe, recipe.phases[0], base, out / "learner")
    torch.manual_seed(1)
    for weight in learner._model.parameters():  # type: ignore[attr-defined]
        if weight.requires_grad:
            weight.data += torch.randn_like(weight) / 10
    learner.save_adapter(out / "adapter")
    learner.merge(out / "merged")
    learner.close()
    return out / "adapter"


def merge(*words: object) -> Result:
    return CliRunner().invoke(cli, ["merge", *map(str, words)])


def model_like(base: Path, out: Path, *, seed: int) -> Path:
    """The base with other weights, each tensor of length one."""
    shutil.copytree(base, out)
    torch.manual_seed(seed)
    drawn = {name: torch.randn_like(value) for name, value in load_file(base / "model.safetensors").items()}
    weights = {name: value / value.norm() for name, value in drawn.items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    return out


def test_an_adapter_is_merged_as_its_learner_merges_it(base: Path, adapter: Path, tmp_path: Path) -> None:
    done = merge(base, adapter, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert is_tied(tmp_path / "out")
    mine, learners = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "out", adapter.parent / "merged")
    )
    assert mine.keys() == learners.keys()
    assert max(float((mine[name] - learners[name]).abs().max()) for name in mine) < 1e-6
    plain = load_file(base / "model.safetensors")
    assert float((mine["model.norm.weight"] - plain["model.norm.weight"]).abs().max()) == 0
    ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path / "out").encode("<|thinking|>\nYes.")])
    assert ids[0, 0] == AutoTokenizer.from_pretrained(adapter).get_added_vocab()["<|thinking|>"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out")(ids).logits.isfinite().all()


def test_linear_is_the_weighted_mean(base: Path, tmp_path: Path) -> None:
    a, b = (model_like(base, tmp_path / str(n), seed=n) for n in (1, 2))
    done = merge("--linear", a, b, tmp_path / "out", "--weight", "1", "--weight", "3")
    assert done.exit_code == 0, done.output
    first, second, mixed = (load_file(folder / "model.safetensors") for folder in (a, b, tmp_path / "out"))
    assert all(torch.allclose(mixed[k], first[k] * 0.25 + second[k] * 0.75, atol=1e-6) for k in mixed)
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize(("t", "angle"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (0.3, 0.3)])
def test_slerp_goes_along_the_arc(base: Path, tmp_path: Path, t: float, angle: float) -> None:
    a, b = (model_like(base, tmp_path / str(n), seed=n) for n in (1, 2))
    interpolate((a, b), tmp_path / "out", method="slerp", weights=(1 - t, t))
    name = "model.layers.0.mlp.up_proj.weight"
    first, second, mixed = (load_file(f / "model.safetensors")[name].double() for f in (a, b, tmp_path / "out"))

    def between(x: Any, y: Any) -> float:
        return math.acos(min(1.0, float((x * y).sum() / x.norm() / y.norm())))

    assert between(first, mixed) == pytest.approx(angle * between(first, second), abs=1e-3)


def test_sixteen_bits_and_shards_are_kept(base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base).to(torch.bfloat16)
    for name in ("a", "b"):
        model.save_pretrained(tmp_path / name, max_shard_size="40KB")
    done = merge("--slerp", tmp_path / "a", tmp_path / "b", tmp_path / "out")
    assert done.exit_code == 0, done.output
    files = sorted(path.name for path in (tmp_path / "a").glob("*.safetensors"))
    assert len(files) > 1 and files == sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    for file in files:
        before, after = (load_file(tmp_path / folder / file) for folder in ("a", "out"))
        assert all(torch.equal(before[k], after[k]) and after[k].dtype == torch.bfloat16 for k in before)


def test_ties_and_dare_are_mergekits(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    done = merge("--ties", base, base, base, tmp_path / "out")
    assert done.exit_code == 2 and "pipx install mergekit" in done.stderr and done.stderr.count("\n") == 1
    tool = programs / "mergekit-yaml"
    tool.write_text(f'#!/bin/sh\n/bin/cp "$1" {tmp_path}/plan.json\n/bin/cp -r {base} "$2"\n', encoding="utf-8")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    done = merge("--dare", base, base, base, tmp_path / "out", "--weight", "1", "--weight", "1", "--weight", "3")
    assert done.exit_code == 0, done.output
    plan = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert (plan["merge_method"], plan["base_model"], plan["dtype"]) == ("dare_ties", str(base), "float32")
    assert [m["parameters"]["weight"] for m in plan["models"]] == pytest.approx([0.25, 0.75])
    tool.write_text("#!/bin/sh\necho 'no such merge' >&2\nexit 3\n", encoding="utf-8")
    done = merge("--dare", base, base, tmp_path / "other")
    assert (done.exit_code, done.stderr) == (1, "preflexor: mergekit failed: no such merge\n")


def test_every_refusal_is_one_line_and_leaves_nothing(base: Path, adapter: Path, tmp_path: Path) -> None:
    torn = model_like(base, tmp_path / "torn", seed=1)
    (torn / "model.safetensors").write_bytes((torn / "model.safetensors").read_bytes()[:500])
    wide = tmp_path / "wide"
    shutil.copytree(base, wide)
    weights = {k: torch.cat([v, v]) for k, v in load_file(base / "model.safetensors").items()}
    save_file(weights, wide / "model.safetensors", metadata={"format": "pt"})
    alien = tmp_path / "alien"
    shutil.copytree(adapter, alien)
    (alien / "adapter_model.safetensors").write_bytes(b"nothing")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    cases = [
        ((base, adapter), "give BASE ADAPTER OUT"),
        ((base, base, out), "no adapter_config.json"),
        ((base, alien, out), "is no adapter that fits"),
        ((tmp_path / "empty", adapter, out), "no config.json"),
        ((base, adapter, base), "exists already"),
        ((base, adapter, out, "--weight", "1"), "--weight goes with"),
        (("--linear", base, out), "takes two or more models, not 1"),
        (("--slerp", base, base, base, out), "takes two models, not 3"),
        (("--slerp", base, torn, out), "cannot be read"),
        (("--slerp", base, tmp_path / "empty", out), "holds no model.safetensors"),
        (("--linear", base, wide, out), "has the shapes"),
        (("--linear", base, base, out, "--weight", "1"), "1 weights are given for 2 models"),
        (("--linear", base, base, out, "--weight", "-1", "--weight", "1"), "are no shares"),
    ]
    for words, said in cases:
        done = merge(*words)
        assert (done.exit_code, done.stderr.count("\n"), done.stdout) == (2, 1, ""), (words, done.output)
        assert said in done.stderr
    assert not out.exists() and not list(tmp_path.glob("*.partial"))
