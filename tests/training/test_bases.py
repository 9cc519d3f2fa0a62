"""Base models: the bundled one as a folder that is the same model, folders as they are, and what is refused."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.backends.tokens import Vocabulary
from preflexor_agents.errors import ModelError
from preflexor_training.bases import fingerprint, resolve

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield resolve("nano")


def test_nano_as_a_folder_computes_what_its_file_computes(nano: Path) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
    file = nano_path()
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    ours = AutoModelForCausalLM.from_pretrained(nano, dtype=torch.float32)
    ids = torch.arange(200, 260)[None]
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, theirs(ids).logits)
    assert ours.lm_head.weight is ours.model.embed_tokens.weight


def test_nano_as_a_folder_splits_text_as_its_file_does(nano: Path) -> None:
    text = "What makes nacre tough? 1234 naïve\n\n  x <|thinking|>\nIt is 3.5 GPa.<|/thinking|>"
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(nano_path()).encode(), params)
    expected = Vocabulary(llama_cpp.llama_model_get_vocab(model)).tokenize(text, special=True)
    llama_cpp.llama_model_free(model)
    tokenizer = AutoTokenizer.from_pretrained(nano)
    assert tokenizer.encode(text) == expected and tokenizer.chat_template


def test_nano_is_unpacked_once(nano: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(nano.parents[2]))
    before = (nano / "model.safetensors").stat().st_mtime_ns
    assert resolve("nano") == nano and (nano / "model.safetensors").stat().st_mtime_ns == before


def test_a_fingerprint_tells_weights_and_tokenizers_apart(nano: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(nano, other)
    assert fingerprint(other) == fingerprint(nano)
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (other / "model.safetensors").write_bytes(data)
    weights = fingerprint(other)
    (other / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert len({fingerprint(nano), weights, fingerprint(other)}) == 3


@pytest.mark.parametrize(("files", "said"), [((), "no config.json"), (("config.json",), "no safetensors")])
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, files: tuple[str, ...], said: str) -> None:
    for name in files:
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=said):
        resolve(str(tmp_path))


def test_a_name_that_is_neither_folder_nor_model_is_refused() -> None:
    with pytest.raises(ModelError, match="neither a folder nor a model of the Hugging Face hub"):
        resolve("no such/model/any where")
