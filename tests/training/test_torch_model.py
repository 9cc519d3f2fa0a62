"""A base made ready: rows for new tags, what is trained of it, and one line for what cannot be used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from peft.utils.other import TrainableTokensWrapper
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from preflexor_agents.errors import ConfigError, ModelError
from preflexor_training.initial import lora_init
from preflexor_training.recipe_parts import Adapter, Phase
from preflexor_training.torch_backend import model as models
from preflexor_training.torch_backend.adapter import attach, save_adapter
from preflexor_training.torch_backend.model import Place, add_rows, load_base, output_head, table_rows, tied

pytestmark = pytest.mark.train
CPU = Place(torch.device("cpu"), torch.float32)
LORA = Adapter(rank=4, alpha=8.0, dropout=0.0, targets=("q_proj", "v_proj"))
NEW = (60, 61)


def llama(*, tie: bool, vocabulary: int = 60, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tie,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def table(module: Any) -> torch.Tensor:
    found = module.weight
    assert isinstance(found, torch.Tensor)
    return found.detach()


@pytest.mark.parametrize("tie", [True, False])
def test_new_tokens_begin_as_the_mean_of_the_known_ones(tie: bool) -> None:
    model = llama(tie=tie)
    tables = [table(model.get_input_embeddings()).clone(), table(model.lm_head).clone()]
    add_rows(model, known=60, total=62, new=NEW)
    assert tied(model) == tie
    assert table_rows(model) == 62
    for before, after in zip(tables, (model.get_input_embeddings(), model.lm_head), strict=True):
        wanted = before.double().mean(0).float()
        torch.testing.assert_close(table(after)[60], wanted, rtol=0, atol=1e-7)
        torch.testing.assert_close(table(after)[61], table(after)[60], rtol=0, atol=0)
        torch.testing.assert_close(table(after)[:60], before, rtol=0, atol=0)


def test_rows_that_pad_the_table_are_taken_and_not_averaged() -> None:
    model = llama(tie=True, vocabulary=64)
    before = table(model.lm_head).clone()
    add_rows(model, known=60, total=62, new=NEW)
    assert table_rows(model) == 64
    torch.testing.assert_close(table(model.lm_head)[61], before[:60].double().mean(0).float(), rtol=0, atol=1e-7)
    torch.testing.assert_close(table(model.lm_head)[62:], before[62:], rtol=0, atol=0)


def test_no_new_tokens_leave_the_model_alone() -> None:
    model = llama(tie=True)
    add_rows(model, known=60, total=60, new=())
    assert table_rows(model) == 60


@pytest.mark.parametrize("tie", [True, False])
def test_lora_trains_its_updates_and_the_new_rows_and_nothing_else(tie: bool) -> None:
    model = llama(tie=tie)
    add_rows(model, known=60, total=62, new=NEW)
    adapted = attach(model, LORA, new_ids=NEW, seed=7)
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    rows = [name for name in trained if "trainable_tokens_delta" in name]
    assert len(rows) == (1 if tie else 2)
    assert all(trained[name].shape == (2, 32) for name in rows)
    assert all("lora_" in name or name in rows for name in trained)
    first = trained["base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"]
    wanted = lora_init((4, 32), 7, "model.layers.0.self_attn.q_proj")
    np.testing.assert_array_equal(first.detach().numpy(), wanted)


def test_an_untrained_adapter_changes_nothing() -> None:
    model, plain = llama(tie=True), llama(tie=True)
    for made in (model, plain):
        add_rows(made, known=60, total=62, new=NEW)
    adapted = attach(model, LORA, new_ids=NEW, seed=7)
    ids = torch.tensor([[1, 60, 5, 61]])
    with torch.no_grad():
        torch.testing.assert_close(adapted(input_ids=ids).logits, plain(input_ids=ids).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("tie", [True, False])
def test_token_rows_compute_what_pefts_own_do(tie: bool) -> None:
    """Forward and gradient; PEFT's class is put back on a second model to compare with."""
    found = []
    for own in (True, False):
        model = llama(tie=tie)
        add_rows(model, known=60, total=62, new=NEW)
        adapted = attach(model, LORA, new_ids=NEW, seed=7)
        for module in adapted.modules():
            if isinstance(module, TrainableTokensWrapper) and not own:
                module.token_adapter.__class__ = peft.tuners.trainable_tokens.TrainableTokensLayer
                module.__class__ = TrainableTokensWrapper
        rows = [p for name, p in adapted.named_parameters() if "trainable_tokens_delta" in name]
        with torch.no_grad():
            for p in rows:
                p.add_(torch.linspace(-1, 1, p.numel()).view(p.shape))
        logits = adapted(input_ids=torch.tensor([[1, 60, 5, 61, 60]])).logits
        logits.tanh().sum().backward()
        found.append([logits.detach(), *(p.grad for p in rows)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_an_output_heads_bias_is_kept_with_token_rows() -> None:
    torch.manual_seed(0)
    config = PhiConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = PhiForCausalLM(config).eval()
    assert isinstance(model.lm_head.bias, torch.Tensor)
    torch.nn.init.normal_(model.lm_head.bias)
    add_rows(model, known=60, total=62, new=NEW)
    ids = torch.tensor([[1, 60, 5]])
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        adapted = attach(model, LORA, new_ids=NEW, seed=0)
        torch.testing.assert_close(adapted(input_ids=ids).logits, plain, rtol=0, atol=1e-5)
    assert output_head(adapted.get_base_model()).bias is model.lm_head.bias


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_peft_itself_is_left_alone() -> None:
    model = llama(tie=True)
    add_rows(model, known=60, total=62, new=NEW)
    attach(model, LORA, new_ids=NEW, seed=7)
    own = peft.get_peft_model(llama(tie=True), peft.LoraConfig(target_modules=["q_proj"], trainable_token_indices=[1]))
    assert type(own.get_input_embeddings()) is TrainableTokensWrapper
    assert not hasattr(TrainableTokensWrapper, "bias")


def test_adapters_are_float32_on_a_bfloat16_base() -> None:
    model = llama(tie=True, dtype=torch.bfloat16)
    add_rows(model, known=60, total=62, new=NEW)
    adapted = attach(model, LORA, new_ids=NEW, seed=7)
    kinds = {p.dtype for p in adapted.parameters() if p.requires_grad}
    assert kinds == {torch.float32}
    with torch.no_grad():
        assert adapted(input_ids=torch.tensor([[1, 60]])).logits.dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_saved_adapter_holds_no_whole_embeddings_and_is_read_by_peft(tmp_path: Path) -> None:
    model = llama(tie=True)
    add_rows(model, known=60, total=62, new=NEW)
    adapted = attach(model, LORA, new_ids=NEW, seed=7)
    with torch.no_grad():
        for p in adapted.parameters():
            if p.requires_grad:
                p.add_(0.1)
    save_adapter(adapted, tmp_path / "adapter")
    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", framework="pt") as file:
        assert max(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys()) < 60 * 32  # noqa: SIM118
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    plain = llama(tie=True)
    add_rows(plain, known=60, total=62, new=NEW)
    again = peft.PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))
    ids = torch.tensor([[1, 60, 5, 61]])
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits, adapted(input_ids=ids).logits, rtol=1e-5, atol=1e-5)


def test_full_training_trains_every_weight() -> None:
    model = llama(tie=True)
    found = attach(model, Adapter(kind="full"), new_ids=(), seed=0)
    assert found is model
    assert all(p.requires_grad for p in model.parameters())


def test_targets_that_are_not_there_are_told_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"adapter.targets w1 are no layers of Llama.*down_proj.*q_proj"):
        attach(llama(tie=True), Adapter(targets=("w1",)), new_ids=(), seed=0)


def test_a_quantised_base_without_bitsandbytes_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    llama(tie=True).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"adapter\.bits is 4, which needs bitsandbytes: pip install"):
        load_base(tmp_path, settings=Adapter(bits=4), place=CPU)


def test_float16_without_a_gpu_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match='precision is "float16" on a cpu'):
        models.place(Phase(name="p", loss="orpo", learning_rate=1e-4, precision="float16"))


def _broken(folder: Path, case: str) -> Path:
    folder.mkdir()
    if case == "absent":
        return folder / "nowhere"
    if case in ("no weights", "pickle", "cut", "no model"):
        llama(tie=True).save_pretrained(folder)
    weights = folder / "model.safetensors"
    if case == "no weights":
        weights.unlink()
    elif case == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif case == "cut":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif case == "no model":
        (folder / "config.json").write_text(json.dumps({"model_type": "walrus"}), encoding="utf-8")
    elif case == "encoder":
        config = BertConfig(
            vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        )
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("absent", "is no folder"),
        ("empty", "has no config.json"),
        ("no weights", r"has no model\*.safetensors"),
        ("pickle", r"as a pickle \(pytorch_model.bin\)"),
        ("cut", "cannot be loaded"),
        ("no model", "cannot be loaded"),
        ("encoder", "lacks .* weights, as"),
    ],
)
def test_a_base_that_cannot_be_used_is_told_in_one_line(tmp_path: Path, case: str, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        load_base(_broken(tmp_path / "base", case), settings=Adapter(), place=CPU)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_base_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    llama(tie=True, dtype=torch.bfloat16).save_pretrained(tmp_path)
    found = load_base(tmp_path, settings=Adapter(), place=CPU)
    assert found.dtype == torch.float32
    assert not found.training
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    torch.testing.assert_close(table(found.get_input_embeddings()), table(plain.get_input_embeddings()), rtol=0, atol=0)
