import json
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs the train extra")
pytest.importorskip("gguf", reason="needs the quantize extra")

import gguf
import platformdirs
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from preflexor_agents.errors import ModelError, PreflexorError
from preflexor_quantize import converter
from preflexor_quantize.convert import convert
from preflexor_quantize.hf_to_gguf import SPLITS, pre_tokenizer_name
from preflexor_quantize.verify import verify

QWEN2 = next(split for split, name in SPLITS.items() if name == "qwen2")
TEMPLATE = (
    "{{ '<|bos|>' }}{% for m in messages %}{{ '<|start|>' + m['role'] + '\\n' + m['content'] + '<|end|>' }}{% endfor %}"
)


def byte_level_bpe(split: str) -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|bos|>", "<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["the toughness of the shell is 4.5"] * 9, trainer)
    bpe.add_tokens([AddedToken("<|thinking|>", special=False), AddedToken("<|/thinking|>", special=False)])
    return bpe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with a tokenizer of our kind."""
    out = tmp_path_factory.mktemp("model")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe(QWEN2),
        bos_token="<|bos|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|start|>"],
        chat_template=TEMPLATE,
        add_bos_token=False,
    )
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def converted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = Path(platformdirs.user_cache_dir("preflexor")) / f"converter-{converter.VERSION}-{converter.SHA256[:12]}"
    if not cache.is_dir():
        pytest.skip("the converter is not in the cache; `python -m preflexor_quantize` fetches it")
    out = tmp_path_factory.mktemp("gguf") / "model.gguf"
    agreement = convert(folder, out, dtype="f16")
    assert agreement.greedy_equal_tok == agreement.greedy_tok or agreement.ties
    assert agreement.tags == ("<|thinking|>", "<|/thinking|>")
    return out


def test_tags_are_visible_and_markers_are_control(converted: Path, folder: Path) -> None:
    reader = gguf.GGUFReader(converted)
    types = [int(reader.fields["tokenizer.ggml.token_type"].parts[i][0]) for i in _data(reader)]
    ids = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    kinds = {token["content"]: types[token["id"]] for token in ids}
    assert kinds["<|thinking|>"] == kinds["<|/thinking|>"] == gguf.TokenType.USER_DEFINED
    assert kinds["<|end|>"] == gguf.TokenType.CONTROL


def _data(reader: gguf.GGUFReader) -> list[int]:
    return list(reader.fields["tokenizer.ggml.token_type"].data)


def test_another_model_with_the_same_tokenizer_does_not_pass(converted: Path, folder: Path, tmp_path: Path) -> None:
    PreTrainedTokenizerFast.from_pretrained(folder).save_pretrained(tmp_path)
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(-1)
    model.save_pretrained(tmp_path)
    with pytest.raises(PreflexorError, match="parts from"):
        verify(tmp_path, converted, exact=True)


def test_a_split_that_llama_cpp_does_not_know_is_refused_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    cache = Path(platformdirs.user_cache_dir("preflexor")) / f"converter-{converter.VERSION}-{converter.SHA256[:12]}"
    if not cache.is_dir():
        pytest.skip("the converter is not in the cache; `python -m preflexor_quantize` fetches it")
    LlamaForCausalLM.from_pretrained(folder).save_pretrained(tmp_path)
    odd = PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe(r"\p{L}|\p{N}|\s|."), chat_template=TEMPLATE)
    odd.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no name for how this tokenizer splits"):
        convert(tmp_path, tmp_path / "out" / "x.gguf")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        convert(tmp_path, tmp_path / "x.gguf")


def test_an_archive_with_another_hash_is_not_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "llama_cpp_python.tar.gz"
    archive.write_bytes(b"not the archive")
    with pytest.raises(PreflexorError, match="delete it and try again"):
        converter._unpack(archive, into=tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


@pytest.mark.parametrize(
    ("split", "name"), [*SPLITS.items(), (r"\p{N}", None)], ids=["llama-bpe", "qwen2", "something else"]
)
def test_a_byte_level_bpe_is_known_by_its_split(split: str, name: str | None) -> None:
    assert pre_tokenizer_name(json.loads(byte_level_bpe(split).to_str())) == name
