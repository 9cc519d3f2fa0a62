from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs the train extra")

from transformers import PreTrainedTokenizerFast

from preflexor_agents.prompts import Message
from preflexor_training.nano.tokenizer import CONTROL, TAGS, chat_text, load_tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["The toughness of nacre is 4.5 MPa m^0.5 [2].\n"] * 20, vocab_size=320, context=64)


def test_each_marker_and_tag_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    for token in (*CONTROL, *TAGS):
        assert len(tokenizer.encode(token, add_special_tokens=False)) == 1


def test_decoding_drops_turn_markers_and_keeps_tags(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("<|start|><|thinking|>so<|/thinking|>4<|end|>", add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<|thinking|>so<|/thinking|>4"


def test_digits_stand_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode("4587", add_special_tokens=False))
    assert tokens == ["4", "5", "8", "7"]


def test_any_text_comes_back(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "Größe  \t日本 🦪\r\n\n x"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_template_renders_what_training_renders(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    turns = [Message("system", "S."), Message("user", "Question: x\n\nTask: y")]
    as_dicts = [{"role": m.role, "content": m.content} for m in turns]
    rendered = load_tokenizer(tmp_path).apply_chat_template(as_dicts, tokenize=False, add_generation_prompt=True)
    assert rendered == chat_text(turns)
