"""LoRA adapters of PEFT and of MLX: merged, or beside their base, they compute what PEFT computes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from preflexor_agents.errors import ModelError, PreflexorError
from preflexor_quantize import adapter as adapters
from preflexor_quantize.beside import TOLERANCE, logit_difference
from preflexor_quantize.job import Job, run

peft = pytest.importorskip("peft", reason="needs the quantize extra")
pytest.importorskip("gguf", reason="needs the quantize extra")


pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
Make = Callable[[str], Path]


def lora(base: Path, out: Path, **options: Any) -> Path:
    """A random adapter that changes the model a good deal."""
    torch.manual_seed(4)
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"], **options)
    model = peft.get_peft_model(LlamaForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05)
    model.save_pretrained(out, save_embedding_layers=False)
    return out


def merged_logits(base: Path, adapter: Path) -> torch.Tensor:
    model = peft.PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base, dtype=torch.float32), str(adapter))
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 40)[None]).logits


def mlx_adapter(peft_folder: Path, out: Path, *, scale: float) -> Path:
    """The same matrices as MLX keeps them."""
    out.mkdir()
    tensors = {}
    for name, tensor in load_file(peft_folder / "adapter_model.safetensors").items():
        plain = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".lora_a")
        tensors[plain.replace(".lora_B.weight", ".lora_b")] = tensor.T.contiguous()
    save_file(tensors, out / "adapters.safetensors")
    about = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": 4, "scale": scale, "dropout": 0.0}}
    (out / "adapter_config.json").write_text(json.dumps(about), encoding="utf-8")
    return out


def test_an_mlx_adapter_is_the_peft_adapter_turned_over(folders: Make, tmp_path: Path) -> None:
    base = folders("llama3")
    given = lora(base, tmp_path / "peft")
    expected = merged_logits(base, given)
    with adapters.peft_folder(mlx_adapter(given, tmp_path / "mlx", scale=1.5)) as as_peft:
        assert torch.allclose(merged_logits(base, as_peft), expected, atol=1e-4)


def test_a_merged_folder_computes_what_peft_computes(folders: Make, tmp_path: Path) -> None:
    base = folders("llama3")
    given = lora(base, tmp_path / "peft", use_rslora=True)
    expected = merged_logits(base, given)
    adapters.merge(base, given, tmp_path / "merged")
    merged = LlamaForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with torch.no_grad():
        found = merged(input_ids=torch.arange(5, 40)[None]).logits
    assert torch.allclose(found, expected, atol=1e-3)
    assert (tmp_path / "merged" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning")
@pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers:UserWarning")
def test_an_adapter_that_brings_a_larger_vocabulary_is_merged_with_it(folders: Make, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = folders("llama3")
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<|graph|>", "<|/graph|>"])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    tuned = peft.get_peft_model(model, config)
    with torch.no_grad():
        tuned.get_input_embeddings().weight.add_(0.1 * torch.randn(len(tokenizer), 64))
    tuned.save_pretrained(tmp_path / "peft")
    tokenizer.save_pretrained(tmp_path / "peft")
    adapters.merge(base, tmp_path / "peft", tmp_path / "merged")
    merged = LlamaForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    ids = torch.arange(len(tokenizer) - 9, len(tokenizer))[None]
    with torch.no_grad():
        assert torch.allclose(merged(input_ids=ids).logits, tuned(input_ids=ids).logits, atol=1e-3)
    assert merged.get_input_embeddings().weight.shape[0] == len(tokenizer)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "merged")) == len(tokenizer)


@pytest.mark.slow
def test_an_adapter_beside_its_base_gives_the_merged_models_logits(
    folders: Make, converted: Make, tmp_path: Path
) -> None:
    base = folders("stories")
    given = lora(base, tmp_path / "peft", use_rslora=True, alpha_pattern={"v_proj": 3})
    beside = tmp_path / "lora.gguf"
    adapters.adapter_to_gguf(base, given, beside)
    assert logit_difference(base, given, converted("stories"), beside) < TOLERANCE
    other = lora(base, tmp_path / "other", init_lora_weights=False)
    with pytest.raises(PreflexorError, match="is not the merged model"):
        logit_difference(base, other, converted("stories"), beside)


@pytest.mark.slow
def test_base_and_adapter_become_one_verified_file(folders: Make, converter: Path, tmp_path: Path) -> None:
    given = lora(folders("stories"), tmp_path / "peft")
    mlx = mlx_adapter(given, tmp_path / "mlx", scale=1.5)
    out = tmp_path / "out"
    job = Job(source=folders("stories"), out=out, types=("Q8_0",), adapter=mlx)
    report = run(job, announce=lambda _: None)
    assert report.agreement is not None and report.agreement.greedy_tok == 16 * 64
    assert sorted(p.name for p in out.glob("*")) == [
        "stories-Q8_0.gguf",
        "stories-report.json",
        "stories-report.md",
        "stories-report.svg",
    ]


def test_an_adapter_that_changes_more_than_lora_is_not_put_beside(folders: Make, tmp_path: Path) -> None:
    given = lora(folders("llama3"), tmp_path / "peft", use_dora=True)
    with pytest.raises(ModelError, match="merge it instead"):
        adapters.adapter_to_gguf(folders("llama3"), given, tmp_path / "lora.gguf")
    assert not (tmp_path / "lora.gguf").exists()


def test_an_adapter_of_another_model_is_refused(folders: Make, tmp_path: Path) -> None:
    given = lora(folders("llama3"), tmp_path / "peft")
    with pytest.raises(ModelError, match=r"does not fit .*give the base that it was trained on"):
        adapters.merge(folders("nano"), given, tmp_path / "merged")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no readable adapter_config"),
        ({"adapter_config.json": "{}"}, "has neither adapter_model"),
        ({"adapter_config.json": "[]"}, "is no JSON object"),
        ({"adapter_config.json": "{}", "adapter_model.bin": "x"}, r"adapter_model\.bin, a pickle"),
        ({"adapter_config.json": "{}", "adapter_model.safetensors": "x"}, "cut short or damaged"),
        ({"adapter_config.json": '{"fine_tune_type": "full"}', "adapters.safetensors": None}, "fuse it first"),
    ],
)
def test_what_is_no_lora_adapter_is_named(files: dict[str, str | None], said: str, tmp_path: Path) -> None:
    for name, text in files.items():
        if text is None:
            save_file({"x": torch.zeros(1)}, tmp_path / name)
        else:
            (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=said), adapters.peft_folder(tmp_path):
        pass
