"""Pairs as token ids: what the chat templates write, where the sections lie, and that texts stay texts."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("gguf", reason="the tokenizers of the tests need the quantize extra")
from preflexor_agents.backends.hf_tokens import HfVocabulary
from preflexor_agents.backends.model_text import ModelText
from preflexor_agents.errors import ConfigError, ModelError
from preflexor_agents.markup import TAGS, neutralise
from preflexor_agents.prompts import Message
from preflexor_training import rendering, tags
from preflexor_training.damage import Damaged
from preflexor_training.pairs import Pair, Reply
from preflexor_training.recipe_parts import Mask, Tags
from preflexor_training.rendering import Renderer
from preflexor_training.tokenized import TokenizedPair, TokenizedReply
from tests.quantize import folders

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

DATA = folders.DATA
TEMPLATES = {
    p.relative_to(DATA / "chat-templates").as_posix(): p for p in sorted((DATA / "chat-templates").rglob("*.jinja"))
}
NOT_FOR_CHATS = {"llama.cpp/fireworks-ai-llama-3-firefunction-v2.jinja"}
"""Templates that cannot render a plain question."""
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
OWN, THINK, SPELT = Tags(), Tags(thinking="<think>"), Tags(mode="text", thinking="<think>")
SAID = (
    "<|thinking|>\nLayers slide.\nCracks turn.\n<|/thinking|><|reflect|>Is that so? Yes.<|/reflect|>It deflects cracks."
)
NONE, ANSWER = Mask(), Mask(kind="answer_only")
MAKERS: dict[str, Callable[[], "PreTrainedTokenizerFast"]] = {
    "llama3": folders.llama3_tokenizer,
    "chatml": folders.chatml_tokenizer,
    "mistral": lambda: _mistral(),
    "no template": folders.sentencepiece_tokenizer,
    "gpt2": folders.gpt2_tokenizer,
    "nano's": folders.own_tokenizer,
}
FILES = {
    "chatml": "tokenizer-smollm2",
    "mistral": "lm-stories260k",
    "no template": "lm-stories260k",
    "gpt2": "tokenizer-gpt2",
}


def _mistral() -> "PreTrainedTokenizerFast":
    tokenizer = folders.sentencepiece_tokenizer()
    tokenizer.chat_template = MISTRAL
    return tokenizer


@cache
def made(name: str, tags_: Tags = OWN) -> "tuple[PreTrainedTokenizerFast, Renderer]":
    if name in FILES and not (DATA / FILES[name]).is_dir():
        pytest.skip(f"no {FILES[name]} among the shared data")
    tokenizer = MAKERS[name]()
    tags.add(tokenizer, tags_)
    return tokenizer, rendering.renderer(tokenizer, tags_)


def pair(chosen: Reply | None = None, rejected: Reply | None = None, question: str = "Why is it tough?") -> Pair:
    thought = Reply(thinking="Layers slide.\nCracks turn.", reflection="Is that so? Yes.", answer="It deflects cracks.")
    return Pair(
        id="row",
        prompt=(Message("user", question),),
        chosen=chosen or thought,
        rejected=rejected or Reply(answer="No idea."),
    )


def text(tokenizer: "PreTrainedTokenizerFast", ids: "np.ndarray[tuple[int], np.dtype[np.int32]]") -> str:
    said = tokenizer.decode(ids.tolist())
    assert isinstance(said, str)
    return said


def squeezed(said: str) -> str:
    """Without white space, which SentencePiece adds after control tokens."""
    return "".join(said.split())


def inside(tokenizer: "PreTrainedTokenizerFast", reply: TokenizedReply) -> dict[str, str]:
    return {s.channel: text(tokenizer, reply.ids[s.body : s.close]).strip() for s in reply.sections}


@pytest.mark.parametrize("name", MAKERS)
def test_prompt_and_reply_are_the_templates_turns_with_the_reply_in_tags(name: str) -> None:
    tokenizer, renderer = made(name)
    row = rendering.tokenize(pair(), renderer, mask=NONE)
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Why is it tough?"}], tokenize=False, add_generation_prompt=True
    )
    expected = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert row.prompt.tolist() == expected
    assert squeezed(text(tokenizer, row.chosen.ids)) == squeezed(SAID + renderer.end)
    assert inside(tokenizer, row.chosen) == {
        "thinking": "Layers slide.\nCracks turn.",
        "reflection": "Is that so? Yes.",
    }
    assert row.rejected.sections == ()
    assert row.rejected.ids[-1] == row.chosen.ids[-1]
    assert text(tokenizer, row.rejected.ids[-1:]) == renderer.end.strip()


@pytest.mark.parametrize("name", MAKERS)
def test_a_reply_is_tokenised_as_it_stands_after_its_prompt(name: str) -> None:
    tokenizer, renderer = made(name)
    row = rendering.tokenize(pair(), renderer, mask=NONE)
    turns = [{"role": "user", "content": "Why is it tough?"}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    whole = tokenizer(rendered + SAID + renderer.end, add_special_tokens=False)["input_ids"]
    assert [*row.prompt, *row.chosen.ids] == whole


@pytest.mark.parametrize("name", MAKERS)
def test_tags_that_stand_in_a_rows_texts_are_never_control_tokens(name: str) -> None:
    renderer = made(name)[1]
    control = "".join(renderer.vocabulary.special)
    hostile = f"<|/thinking|> <|eot_id|></s><|im_end|>{control} end"
    row = rendering.tokenize(
        pair(Reply(thinking=hostile, reflection=hostile, answer=hostile), question=hostile), renderer, mask=NONE
    )
    plain = rendering.tokenize(pair(Reply(thinking="a", reflection="b", answer="c"), question="d"), renderer, mask=NONE)
    special = set(renderer.vocabulary.special.values())
    for found, expected in ((row.prompt, plain.prompt), (row.chosen.ids, plain.chosen.ids)):
        assert [i for i in found if i in special] == [i for i in expected if i in special]


@pytest.mark.parametrize("tags_", [THINK, SPELT], ids=["tokens", "text"])
def test_common_tags_stand_as_the_agents_put_them(tags_: Tags) -> None:
    if not (DATA / "tokenizer-smollm2").is_dir():
        pytest.skip("no tokenizer-smollm2 among the shared data")
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(DATA / "tokenizer-smollm2")
    added = tags.add(tokenizer, tags_)
    row = rendering.tokenize(pair(), rendering.renderer(tokenizer, tags_), mask=NONE)
    assert len(added) == (4 if tags_ is THINK else 0)
    assert text(tokenizer, row.chosen.ids) == (
        "<think>\nLayers slide.\nCracks turn.\n</think>\n\n<|reflect|>Is that so? Yes.<|/reflect|>It deflects cracks."
        "<|im_end|>"
    )
    assert inside(tokenizer, row.chosen)["thinking"] == "Layers slide.\nCracks turn."
    closing = row.chosen.sections[0]
    assert text(tokenizer, row.chosen.ids[closing.close : closing.end]) == "</think>"


@pytest.mark.parametrize("thinking", ["x\n", "x.", ">", "</", "\n\n", "", "x\r\n", "\u00e9\u0301", "\U0001f9a0"])
@pytest.mark.parametrize("answer", ["Yes.", "\n\nYes.", ">", '"Yes"', " Yes"])
def test_spelt_tags_are_found_whatever_stands_beside_them(thinking: str, answer: str) -> None:
    tokenizer, renderer = _smol_spelt()
    row = rendering.tokenize(pair(Reply(thinking=thinking, answer=answer)), renderer, mask=ANSWER)
    (section,) = row.chosen.sections
    for start, end, tag in ((section.start, section.body, "<think>"), (section.close, section.end, "</think>")):
        assert tag in text(tokenizer, row.chosen.ids[start:end])
    assert text(tokenizer, row.chosen.ids) == f"<think>\n{thinking}\n</think>\n\n{answer}<|im_end|>"


_own = cache(folders.own_tokenizer)


@cache
def _smol_spelt() -> "tuple[PreTrainedTokenizerFast, Renderer]":
    if not (DATA / "tokenizer-smollm2").is_dir():
        pytest.skip("no tokenizer-smollm2 among the shared data")
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(DATA / "tokenizer-smollm2")
    return tokenizer, rendering.renderer(tokenizer, SPELT)


@settings(max_examples=40)
@given(thinking=st.text(max_size=30), answer=st.text(min_size=1, max_size=30).filter(lambda t: bool(t.strip())))
def test_what_is_thought_does_not_depend_on_what_is_answered(thinking: str, answer: str) -> None:
    """Thinking may be put before the model, which then goes on."""
    _, renderer = _smol_spelt()
    first = rendering.tokenize(pair(Reply(thinking=thinking, answer=answer)), renderer, mask=NONE).chosen
    other = rendering.tokenize(pair(Reply(thinking=thinking, answer="x")), renderer, mask=NONE).chosen
    assert first.sections == other.sections
    assert first.ids[: first.sections[0].end].tolist() == other.ids[: other.sections[0].end].tolist()


pieces = st.one_of(st.text(max_size=12), st.sampled_from([*TAGS, "<|end|>", "<|start|>", "<|", "|>", "\n"]))
texts = st.lists(pieces, max_size=4).map("".join)


@settings(max_examples=60)
@given(thinking=st.none() | texts, reflection=st.none() | texts, answer=texts.filter(lambda t: bool(t.strip())))
def test_any_texts_come_back_from_their_sections_with_no_other_control_tokens(
    thinking: str | None, reflection: str | None, answer: str
) -> None:
    tokenizer, renderer = made("nano's")
    said = Reply(thinking=thinking, reflection=reflection, answer=answer)
    reply = rendering.tokenize(pair(said, Reply(answer="another")), renderer, mask=NONE).chosen
    given_ = {"thinking": thinking, "reflection": reflection}
    want = {k: neutralise(v, renderer.spelt) for k, v in given_.items() if v is not None}
    want = {k: f"\n{v}\n" if k == "thinking" else v for k, v in want.items()}
    assert {s.channel: text(tokenizer, reply.ids[s.body : s.close]) for s in reply.sections} == want
    after = reply.sections[-1].end if reply.sections else 0
    assert text(tokenizer, reply.ids[after:]) == neutralise(answer, renderer.spelt) + "<|end|>"
    special = set(renderer.vocabulary.special.values())
    tags_ = [at for s in reply.sections for at in (s.start, s.close)]
    assert [n for n, token in enumerate(reply.ids) if token in special] == [*tags_, len(reply.ids) - 1]


def test_the_prompt_is_the_one_that_the_agents_make() -> None:
    tokenizer, renderer = made("nano's")

    class File:
        path, trained_tok = Path("x"), 2048
        chat_template = str(tokenizer.chat_template)

    from preflexor_agents.backends.base import Request
    from preflexor_agents.config import Sampling

    turns = (Message("system", "Be short."), Message("user", "Is </think> or <|end|> a tag?"))
    asked = Request(messages=turns, sampling=Sampling(), seed=0, thinking="Layers slide.")
    inference = ModelText(File(), HfVocabulary(tokenizer)).prompt(asked, context_tok=2048).tokens
    row = Pair(
        id="1", prompt=turns, chosen=Reply(thinking="Layers slide.", answer="No."), rejected=Reply(answer="Yes.")
    )
    trained = rendering.tokenize(row, renderer, mask=NONE)
    assert [*trained.prompt, *trained.chosen.ids[: trained.chosen.sections[0].end]] == inference


def test_ids_are_those_that_llama_cpp_makes_of_the_bundled_model(
    tmp_path: Path,
) -> None:
    from transformers import PreTrainedTokenizerFast

    from preflexor_agents.backends import model_file
    from preflexor_agents.backends.base import Request
    from preflexor_agents.backends.llamacpp import nano_path
    from preflexor_agents.backends.tokens import Vocabulary
    from preflexor_agents.config import Sampling

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folders.nano(tmp_path / "nano"))
    assert tags.add(tokenizer, OWN) == ()
    turns = (Message("user", "What holds 4.5 GPa, a < b | c?  é\n"),)
    row = Pair(id="1", prompt=turns, chosen=Reply(thinking="Fact: 4.5.", answer="It."), rejected=Reply(answer="No."))
    trained = rendering.tokenize(row, rendering.renderer(tokenizer, OWN), mask=NONE)
    file = model_file.load(nano_path(), vocabulary_only=True)
    asked = Request(messages=turns, sampling=Sampling(), seed=0, thinking="Fact: 4.5.")
    found = ModelText(file, Vocabulary(file.vocabulary)).prompt(asked, context_tok=2048).tokens
    file.close()
    assert [*trained.prompt, *trained.chosen.ids[: trained.chosen.sections[0].end]] == found


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - NOT_FOR_CHATS) or [None])
def test_every_real_template_trains(name: str | None) -> None:
    if name is None:
        pytest.skip("no chat-templates among the shared data")
    tokenizer = _own()
    tokenizer.chat_template = TEMPLATES[name].read_text(encoding="utf-8")
    renderer = rendering.renderer(tokenizer, OWN)
    row = rendering.tokenize(pair(), renderer, mask=NONE)
    assert "Why is it tough?" in text(tokenizer, row.prompt)
    assert "It deflects cracks." not in text(tokenizer, row.prompt)
    assert inside(tokenizer, row.chosen)["thinking"] == "Layers slide.\nCracks turn."
    assert text(tokenizer, row.chosen.ids).startswith("<|thinking|>\nLayers slide.")
    assert text(tokenizer, row.chosen.ids).endswith(f"It deflects cracks.{renderer.end}")
    assert renderer.end.strip() and renderer.end == renderer.end.rstrip()


def test_a_template_that_cannot_render_a_question_is_refused() -> None:
    tokenizer = folders.own_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('tools only') }}"
    with pytest.raises(ModelError, match="cannot render the turns user: tools only; use another model"):
        rendering.renderer(tokenizer, OWN)


@pytest.mark.parametrize(
    ("written", "end"),
    [
        ("<|end|>\\n", "<|end|>"),
        ("<|start|><|end|>\\n", "<|start|><|end|>"),
        ("<|start|>\\n<|end|>", "<|start|>"),
        ("\\n\\n", "<|end|>"),
        (" <|end|><|bos|>", " <|end|>"),
    ],
)
def test_a_reply_ends_with_the_token_that_ends_a_turn(written: str, end: str) -> None:
    tokenizer = folders.own_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ':' + m['content'] }}{{ '" + written + "' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    assert rendering.renderer(tokenizer, OWN).end == end


def test_a_row_that_the_template_refuses_is_damaged() -> None:
    tokenizer = folders.own_tokenizer()
    lone = "{% if messages | length > 2 %}{{ raise_exception('too many') }}{% endif %}"
    tokenizer.chat_template = lone + folders.CHAT
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    row = Pair(id="1", prompt=turns, chosen=Reply(answer="x"), rejected=Reply(answer="y"))
    with pytest.raises(Damaged, match=r"unrenderable: .*too many"):
        rendering.tokenize(row, rendering.renderer(tokenizer, OWN), mask=NONE)


def test_a_template_that_opens_the_thinking_itself_is_gone_on_from() -> None:
    tokenizer = folders.own_tokenizer()
    tokenizer.chat_template = folders.CHAT.replace("assistant\\n", "assistant\\n<|thinking|>\\n")
    renderer = rendering.renderer(tokenizer, OWN)
    row = rendering.tokenize(pair(Reply(thinking="Layers.", answer="Yes.")), renderer, mask=ANSWER)
    assert text(tokenizer, row.prompt).endswith("assistant\n<|thinking|>\n")
    assert text(tokenizer, row.chosen.ids) == "Layers.\n<|/thinking|>Yes.<|end|>"
    assert text(tokenizer, row.rejected.ids) == "\n<|/thinking|>No idea.<|end|>"
    section = row.chosen.sections[0]
    assert (section.start, section.body) == (0, 0)


def test_a_template_with_the_date_writes_the_same_day_always() -> None:
    tokenizer = folders.own_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}" + folders.CHAT
    row = rendering.tokenize(pair(), rendering.renderer(tokenizer, OWN), mask=NONE)
    assert text(tokenizer, row.prompt).startswith("26 Jul 2024")


def test_a_reply_that_begins_with_words_keeps_the_templates_space_before_them() -> None:
    tokenizer, renderer = made("gpt2")
    row = rendering.tokenize(pair(), renderer, mask=NONE)
    assert text(tokenizer, row.rejected.ids).startswith(" No idea.")
    assert text(tokenizer, row.chosen.ids).startswith("<|thinking|>")


def test_a_tokenizer_that_splits_the_tags_is_refused_with_the_remedy() -> None:
    tokenizer = _smol_spelt()[0]
    with pytest.raises(ConfigError) as caught:
        rendering.renderer(tokenizer, OWN)
    assert str(caught.value) == (
        "the tokenizer splits <|thinking|> into 5 tokens; let training add the tags to it, or set"
        ' tags.mode = "text" and tags.thinking = "<think>"'
    )


def test_tags_that_the_agents_would_not_use_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"has <\|thinking\|>, which the agents then use; set it to"):
        rendering.renderer(folders.own_tokenizer(), THINK)


def test_tags_are_added_once_as_single_visible_tokens() -> None:
    if not (DATA / "tokenizer-smollm2").is_dir():
        pytest.skip("no tokenizer-smollm2 among the shared data")
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(DATA / "tokenizer-smollm2")
    before = len(tokenizer)
    assert tags.add(tokenizer, OWN) == (before, before + 1, before + 2, before + 3)
    assert tags.add(tokenizer, OWN) == ()
    said = "<|thinking|>x<|/thinking|>"
    assert tokenizer.decode(tokenizer(said)["input_ids"], skip_special_tokens=True) == said


def test_a_tag_that_was_a_piece_of_the_vocabulary_keeps_its_row() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "x": 1, "<|reflect|>": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<unk>")
    assert tags.add(tokenizer, OWN) == (3, 4, 5)
    assert tokenizer("x<|reflect|>x")["input_ids"] == [1, 2, 1]


def test_a_base_without_template_and_end_token_is_refused() -> None:
    tokenizer = folders.own_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="has no chat template"):
        rendering.renderer(tokenizer, OWN)
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="neither a chat template nor an end token"):
        tags.add(tokenizer, OWN)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (pair(Reply(thinking="cut off", answer=" \n")), "unanswered"),
        (pair(rejected=Reply(answer="")), "unanswered"),
        (pair(Reply(answer="same"), Reply(answer="same")), "equal"),
        (pair(question="  "), "no_question"),
        (Pair(id="1", prompt=(), chosen=Reply(answer="a"), rejected=Reply(answer="b")), "no_question"),
    ],
    ids=["no answer", "no rejected answer", "equal", "blank question", "no turns"],
)
def test_a_row_that_teaches_nothing_is_damaged(row: Pair, kind: str) -> None:
    with pytest.raises(Damaged) as caught:
        rendering.tokenize(row, made("nano's")[1], mask=NONE)
    assert caught.value.kind == kind


def test_pauses_stand_after_every_token_of_the_chosen_reply_but_the_last() -> None:
    renderer = made("nano's")[1]
    plain = rendering.tokenize(pair(), renderer, mask=NONE)
    row = rendering.tokenize(pair(), renderer, mask=Mask(kind="pauses", pads=2))
    opens, closes = (renderer.vocabulary.special[tag] for tag in ("<|thinking|>", "<|/thinking|>"))
    pause = [opens, renderer.pad, renderer.pad, closes]
    expected = [token for kept in plain.chosen.ids[:-1] for token in (int(kept), *pause)]
    assert row.chosen.ids.tolist() == [*expected, int(plain.chosen.ids[-1])]
    assert row.chosen.labels is not None
    assert row.chosen.ids[row.chosen.labels].tolist() == [
        token for kept in plain.chosen.ids[:-1] for token in (int(kept), opens, closes)
    ] + [int(plain.chosen.ids[-1])]
    assert row.rejected.ids.tolist() == plain.rejected.ids.tolist()
    for before, after in zip(plain.chosen.sections, row.chosen.sections, strict=True):
        assert row.chosen.ids[after.close] == plain.chosen.ids[before.close]


def test_pauses_need_tags_that_are_tokens() -> None:
    with pytest.raises(ConfigError, match=r'needs tags\.mode = "tokens"'):
        rendering.tokenize(pair(), _smol_spelt()[1], mask=Mask(kind="pauses"))


def test_odd_texts_are_rows_like_others() -> None:
    for name in ("nano's", "no template"):
        _, renderer = made(name)
        for odd in ("\x00\x1b[2J\x7f", "\ufeff\u202e", "\ue0f0" + "7\ue0f1", "a" * 20_000, "\U000e0001"):
            row: TokenizedPair = rendering.tokenize(pair(question=odd + "?"), renderer, mask=NONE)
            assert len(row.prompt) > 4
