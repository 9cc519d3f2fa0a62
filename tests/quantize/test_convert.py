"""From a folder to an F16 file that behaves like it: five families of tokenizers, and what must not pass."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs the quantize extra")
pytest.importorskip("gguf", reason="needs the quantize extra")

import gguf
import numpy as np
import torch
from transformers import LlamaForCausalLM

from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.errors import InputError, ModelError, PreflexorError
from preflexor_quantize import converter as converters
from preflexor_quantize.convert import convert
from preflexor_quantize.engine import Engine
from preflexor_quantize.gguf_file import token_types
from preflexor_quantize.hf_to_gguf import SPLITS, corrected, merge_scores, pre_tokenizer_name
from preflexor_quantize.verify import verify
from tests.quantize import folders as make

Make = Callable[[str], Path]
FAMILIES = ("nano", "gpt2", "llama3", "stories", "chatml")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tokenizer_with_added_tags_keeps_ids_texts_and_continuations(
    family: str, converted: Make, folders: Make
) -> None:
    ids = make.added_tokens(folders(family))
    with Engine(converted(family)) as engine:
        for tag in make.TAGS:
            assert engine.tokens_of(f"a{tag}b", special=False).count(ids[tag]) == 1
            assert engine.vocabulary.piece(ids[tag]) == tag.encode()
    types = token_types(converted(family))
    assert {types[ids[tag]] for tag in make.TAGS} == {gguf.TokenType.USER_DEFINED}
    hidden = [text for text in ids if text not in make.TAGS and text != "<unk>"]
    assert hidden and {types[ids[text]] for text in hidden} == {gguf.TokenType.CONTROL}


@pytest.mark.slow
def test_the_folder_of_nano_gives_the_weights_that_are_bundled(converted: Make) -> None:
    ours, bundled = (gguf.GGUFReader(file) for file in (converted("nano"), nano_path()))
    expected = {t.name: t.data for t in bundled.tensors}
    assert {t.name for t in ours.tensors} == expected.keys()
    assert all(np.array_equal(t.data, expected[t.name]) for t in ours.tensors)


@pytest.mark.slow
def test_the_stock_conversion_loses_the_tags(converted: Make, folders: Make, converter: Path, tmp_path: Path) -> None:
    stock = tmp_path / "stock.gguf"
    script = [sys.executable, str(converter / "convert_hf_to_gguf.py"), str(folders("chatml")), "--outfile", str(stock)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    tag = make.added_tokens(folders("chatml"))["<|thinking|>"]
    shown = []
    for file in (stock, converted("chatml")):
        with Engine(file) as engine:
            shown.append(engine.vocabulary.piece(tag))
    assert shown == [b"", b"<|thinking|>"]
    with pytest.raises(PreflexorError, match="is not one visible token"):
        verify(folders("chatml"), stock, exact=True)


@pytest.mark.slow
def test_another_model_with_the_same_tokenizer_does_not_pass(converted: Make, folders: Make, tmp_path: Path) -> None:
    shutil.copytree(folders("llama3"), tmp_path, dirs_exist_ok=True)
    model = LlamaForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(-1)
    model.save_pretrained(tmp_path)
    with pytest.raises(PreflexorError, match="parts from"):
        verify(tmp_path, converted("llama3"), exact=True)


@pytest.mark.slow
def test_a_split_that_llama_cpp_does_not_know_is_refused_and_leaves_nothing(
    folders: Make, converter: Path, tmp_path: Path
) -> None:
    odd = make.wrapped(make.byte_level(r"\p{L}|\p{N}|\s|."), bos_token="<|bos|>", eos_token="<|end|>")
    folder = make.random_model(tmp_path / "odd", odd)
    with pytest.raises(ModelError, match="no name for how this tokenizer splits"):
        convert(folder, tmp_path / "out" / "x.gguf")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_chat_prompt_of_another_template_does_not_pass(converted: Make, folders: Make, tmp_path: Path) -> None:
    shutil.copytree(folders("llama3"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    with pytest.raises(PreflexorError, match="does not hold the tokenizer's chat template"):
        verify(tmp_path, converted("llama3"), exact=True)


def test_an_archive_with_another_hash_is_not_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "llama_cpp_python.tar.gz"
    archive.write_bytes(b"not the archive")
    with pytest.raises(PreflexorError, match="delete it and try again"):
        converters._unpack(archive, into=tmp_path / "unpacked", version=next(iter(converters.PINNED)))
    assert not (tmp_path / "unpacked").exists()


def test_a_folder_that_is_no_converter_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no convert_hf_to_gguf\.py.*--converter"):
        converters.converter_folder(tmp_path)


@pytest.mark.parametrize(
    ("split", "name"), [*SPLITS.items(), (r"\p{N}", None)], ids=["llama-bpe", "qwen2", "something else"]
)
def test_a_byte_level_bpe_is_known_by_its_split(split: str, name: str | None) -> None:
    assert pre_tokenizer_name(json.loads(make.byte_level(split).to_str())) == name


def test_a_split_with_a_space_put_before_the_text_has_no_name() -> None:
    plain = {"type": "ByteLevel", "add_prefix_space": False}
    assert pre_tokenizer_name({"pre_tokenizer": plain}) == "gpt-2"
    assert pre_tokenizer_name({"pre_tokenizer": {**plain, "add_prefix_space": True}}) is None
    assert pre_tokenizer_name({"pre_tokenizer": plain, "normalizer": {"type": "Lowercase"}}) is None


def test_what_is_merged_first_scores_highest() -> None:
    scores = merge_scores({"model": {"merges": [["a", "b"], "ab c", ["a", "bc"]]}})
    assert scores == {"ab": 0.0, "abc": -1.0}


def test_a_tag_that_is_flagged_special_is_made_visible_and_a_marker_is_not() -> None:
    added = [
        {"id": 0, "content": "<|end|>", "special": True},
        {"id": 1, "content": "<|thinking|>", "special": True},
        {"id": 2, "content": "<|note|>", "special": False},
        {"id": 3, "content": "<unk>", "special": True},
        {"id": 9, "content": "<|beyond|>", "special": True},
    ]
    assert corrected([1, 3, 3, 2], added, control=3, visible=4, keep=(2,)) == [3, 4, 4, 2]
