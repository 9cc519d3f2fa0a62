"""A trained folder as mlx-lm loads it: same numbers, same tokenizer, whole or not at all."""

import importlib.util
import json
import os
import resource
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs the train extra")
pytest.importorskip("safetensors", reason="needs the quantize extra")

import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from preflexor_agents.cli.main import cli
from preflexor_quantize import mlx_export
from tests.quantize.folders import own_tokenizer, random_model

IDS = [5, 9, 33, 100, 200, 7]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("hf") / "model", own_tokenizer())


def export(source: Path, out: Path, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(cli, ["export", str(source), str(out), *words])
    assert done.exit_code == code, done.output
    return done.stderr.strip()


def copied(source: Path, out: Path) -> Path:
    out.mkdir()
    for file in source.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder by the index that lies in it."""
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
    loaded = {name: load_file(folder / name) for name in set(index.values())}
    assert sorted(name for part in loaded.values() for name in part) == sorted(index)
    return {name: loaded[place][name] for name, place in index.items()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_weights_are_those_of_the_source_in_sixteen_bits(source: Path, tmp_path: Path, dtype: str) -> None:
    export(source, tmp_path / "mlx", "--dtype", dtype)
    before, after = load_file(source / "model.safetensors"), weights(tmp_path / "mlx")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].to(getattr(torch, dtype)), after[name]) for name in before)
    config = json.loads((tmp_path / "mlx" / "config.json").read_text(encoding="utf-8"))
    assert (config["dtype"], config["model_type"]) == (dtype, "llama")
    with safe_open(tmp_path / "mlx" / "model.safetensors", framework="pt") as opened:
        assert opened.metadata() == {"format": "mlx"}


def test_the_tokenizer_makes_the_same_prompts(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "mlx")
    chat = [{"role": "user", "content": "<|thinking|> the shell"}]
    ids = [AutoTokenizer.from_pretrained(f).apply_chat_template(chat)["input_ids"] for f in (source, tmp_path / "mlx")]
    assert ids[0] == ids[1]


def test_large_weights_are_written_in_shards(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlx_export, "SHARD_BYTES", 30_000)
    export(source, tmp_path / "mlx")
    files = sorted(f.name for f in (tmp_path / "mlx").glob("*.safetensors"))
    assert len(files) > 3 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    before, after = load_file(source / "model.safetensors"), weights(tmp_path / "mlx")
    assert all(torch.equal(before[name].bfloat16(), after[name]) for name in before)


def test_what_is_computed_or_tied_is_left_out(source: Path, tmp_path: Path) -> None:
    full = copied(source, tmp_path / "full")
    state = load_file(full / "model.safetensors")
    extra = {
        "lm_head.weight": state["model.embed_tokens.weight"].clone(),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    save_file({**state, **extra}, full / "model.safetensors", metadata={"format": "pt"})
    export(full, tmp_path / "mlx")
    assert weights(tmp_path / "mlx").keys() == state.keys()


def test_mlx_lm_loads_it_and_computes_the_same(source: Path, tmp_path: Path) -> None:
    mx = pytest.importorskip("mlx.core", reason="needs the mlx extra")
    mlx_lm = pytest.importorskip("mlx_lm", reason="needs the mlx extra")
    export(source, tmp_path / "mlx", "--dtype", "float16")
    model, _ = mlx_lm.load(str(tmp_path / "mlx"))
    model.set_dtype(mx.float32)
    ours = torch.tensor(model(mx.array([IDS]))[0].tolist())
    theirs = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)(torch.tensor([IDS])).logits[0]
    assert (ours - theirs).abs().max() < 1e-4 * theirs.std()


def test_quantising_gives_a_folder_that_says_so(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlx_lm", reason="needs the mlx extra")
    export(source, tmp_path / "mlx", "--bits", "4")
    config = json.loads((tmp_path / "mlx" / "config.json").read_text(encoding="utf-8"))
    assert config["quantization"]["bits"] == 4


def test_bits_that_mlx_lm_does_not_have_and_no_mlx_lm_are_one_line(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--bits is 7; mlx-lm takes 2, 3, 4, 5, 6, 8" in export(source, tmp_path / "mlx", "--bits", "7", code=2)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlx_lm" else find(name))
    assert "pip install 'preflexor-agents[mlx]'" in export(source, tmp_path / "mlx", "--bits", "4", code=2)
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_float16_cannot_hold_is_refused(source: Path, tmp_path: Path) -> None:
    large = copied(source, tmp_path / "large")
    state = {name: value.float() for name, value in load_file(large / "model.safetensors").items()}
    state["model.norm.weight"][0] = 1e6
    save_file(state, large / "model.safetensors")
    assert "model.norm.weight" in export(large, tmp_path / "mlx", "--dtype", "float16", code=1)
    export(large, tmp_path / "mlx")


def test_a_source_that_is_no_model_is_one_line(source: Path, tmp_path: Path) -> None:
    assert "is no folder" in export(tmp_path / "no", tmp_path / "mlx", code=2)
    cut = copied(source, tmp_path / "cut")
    os.truncate(cut / "model.safetensors", 50_000)
    assert "is cut short" in export(cut, tmp_path / "mlx", code=2)
    (cut / "model.safetensors").unlink()
    (cut / "pytorch_model.bin").write_bytes(b"\x80")
    assert "as a pickle" in export(cut, tmp_path / "mlx", code=2)
    assert not (tmp_path / "mlx").exists()


def test_what_is_there_stays(source: Path, tmp_path: Path) -> None:
    assert "exists already" in export(source, tmp_path, code=2)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(source: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        error = export(source, tmp_path / "mlx", code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.startswith("preflexor: ") and "could not be written" in error and "\n" not in error
    assert list(tmp_path.iterdir()) == []
