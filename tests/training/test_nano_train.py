import dataclasses
import json
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs the train extra")

from preflexor_agents.errors import ConfigError
from preflexor_training.nano import train as training
from preflexor_training.nano.model import load_model
from preflexor_training.nano.recipe import Recipe, load_recipe
from preflexor_training.nano.tokenizer import load_tokenizer

SHIPPED = Path(__file__).parents[2] / "training" / "recipes" / "nano.toml"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(training, "TOKENIZER_EPISODES", 10)
    monkeypatch.setattr(training, "PROBE_EPISODES", 1)
    return dataclasses.replace(
        load_recipe(SHIPPED),
        vocab_size=600,
        layers=2,
        hidden=64,
        heads=2,
        ffn=64,
        batch_tok=512,
        warmup_steps=2,
        budget_tok=3000,
        budget_seconds=600,
    )


def test_a_run_leaves_a_model_that_loads_and_a_log(small: Recipe, tmp_path: Path) -> None:
    folder = training.train(small, out=tmp_path / "run")
    assert load_model(folder).config.vocab_size == len(load_tokenizer(folder)) == small.vocab_size
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["ended"] and last["heldout_exact"]
    assert not list((tmp_path / "run").glob("*.partial"))


def test_a_run_resumes_where_it_stopped(small: Recipe, tmp_path: Path) -> None:
    training.train(small, out=tmp_path)
    before = json.loads((tmp_path / "state.json").read_text(encoding="utf-8"))
    training.train(dataclasses.replace(small, budget_tok=before["tokens"] + 1000), out=tmp_path, resume=True)
    after = json.loads((tmp_path / "state.json").read_text(encoding="utf-8"))
    assert after["step"] > before["step"]
    assert after["tokens"] >= before["tokens"] + 1000
    assert after["seconds"] > before["seconds"]


def test_the_same_seed_trains_the_same_model(small: Recipe, tmp_path: Path) -> None:
    weights = [
        (training.train(small, out=tmp_path / name) / "model.safetensors").read_bytes() for name in ("first", "second")
    ]
    assert weights[0] == weights[1]


def test_a_recipe_with_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("learnin_rate = 1\n" + SHIPPED.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ConfigError, match="learnin_rate"):
        load_recipe(path)
