"""What may become a control token, asked of llama.cpp's own tokenizer over three vocabularies."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("gguf", reason="needs the quantize extra")
llama_cpp = pytest.importorskip("llama_cpp")

from gguf import TokenType  # noqa: E402

from preflexor_agents.backends import model_file  # noqa: E402
from preflexor_agents.backends.template import Span  # noqa: E402
from preflexor_agents.backends.tokens import Vocabulary  # noqa: E402
from tests.fakes.tiny_gguf import TAGS, byte_letters, vocabulary, write_vocabulary  # noqa: E402

SMOLLM2 = Path(__file__).parents[3] / "shared" / "data" / "tokenizer-smollm2" / "tokenizer.json"
TURN = {"tiny": "<|end|>", "smollm2": "<|im_end|>", "spm": "</s>"}
HOSTILE = [
    *TAGS,
    *TURN.values(),
    "<|start|>",
    "<|im_start|>assistant\n",
    "<s>",
    "<",
    "|>",
    "/thinking|>",
    " ",
    "silk\n",
]
BYTES = [f"<0x{b:02X}>" for b in range(256)]
LETTERS = st.text("abz Zéß€漢\n\t0", max_size=5)
ANY_TEXT = st.lists(st.sampled_from(HOSTILE) | LETTERS, max_size=8).map("".join)
KEEP_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def tiny(path: Path) -> Path:
    tokens = vocabulary(TAGS)
    types = [TokenType.CONTROL] * 4 + [TokenType.NORMAL] * (len(tokens) - 8) + [TokenType.USER_DEFINED] * 4
    merges = [f"{t[:-1]} {t[-1]}" for t in tokens[4 + 256 : -4]]
    return write_vocabulary(path, tokens=tokens, types=types, model="gpt2", pre="qwen2", merges=merges)


def smollm2(path: Path) -> Path:
    if not SMOLLM2.exists():
        pytest.skip("no ../shared/data/tokenizer-smollm2 here")
    data = json.loads(SMOLLM2.read_text(encoding="utf-8"))
    ids = dict(data["model"]["vocab"])
    control = {t["content"] for t in data["added_tokens"]}
    tokens = [*sorted(ids, key=ids.__getitem__), *TAGS, "  "]
    types = [TokenType.CONTROL if t in control else TokenType.NORMAL for t in tokens[: len(ids)]]
    types += [TokenType.USER_DEFINED] * 5
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    return write_vocabulary(path, tokens=tokens, types=types, model="gpt2", pre="smollm", merges=merges)


def spm(path: Path) -> Path:
    """As in Llama 2: text gets a space put before it, and merging alone can spell a control token."""
    tokens = ["<unk>", "<s>", "</s>", *BYTES, "</", "s>", "▁", "▁silk"]
    tokens += [chr(c) for c in range(0x21, 0x7F)] + ["si", "sil", "silk", *TAGS]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    types += [TokenType.NORMAL] * (len(tokens) - len(types) - 4) + [TokenType.USER_DEFINED] * 4
    scores = [0.0] * 259 + [-1.0, -2.0] + [-float(n) for n in range(3, len(tokens) - 258)]
    return write_vocabulary(path, tokens=tokens, types=types, model="llama", scores=scores)


@contextmanager
def opened(path: Path) -> Iterator[Vocabulary]:
    model_file._log()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    yield Vocabulary(llama_cpp.llama_model_get_vocab(model))
    llama_cpp.llama_model_free(model)


@pytest.fixture(scope="module", params=[tiny, smollm2, spm], ids=lambda f: f.__name__)
def words(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vocabulary]:
    path: Path = request.param(tmp_path_factory.mktemp("vocabulary") / "vocabulary.gguf")
    with opened(path) as vocabulary:
        yield vocabulary


def decoded(words: Vocabulary, ids: list[int]) -> str:
    data = b"".join(words.text_of(i).encode() if i in words.special.values() else words.piece(i) for i in ids)
    text = data.decode("utf-8", "replace")
    return text.removeprefix(" ") if words._adds_space else text


def specials(words: Vocabulary, ids: list[int]) -> list[str]:
    return [words.text_of(i) for i in ids if i in words.special.values()]


@KEEP_FIXTURE
@given(ANY_TEXT)
@example("</s>")
@example("a</s>b <|/thinking|>")
@example("<|<|end|>end|>")
def test_untrusted_text_never_becomes_a_special_token_and_loses_nothing(words, text):
    ids = words.encode([Span(text, trusted=False)])
    assert specials(words, ids) == []
    assert decoded(words, ids) == text.encode("utf-8", "replace").decode()


@KEEP_FIXTURE
@given(st.lists(st.tuples(ANY_TEXT, st.booleans()).map(lambda t: Span(*t)), max_size=5))
def test_special_tokens_are_those_of_the_trusted_text(words, spans):
    expected = [
        name for span in spans if span.trusted for name in specials(words, words.tokenize(span.text, special=True))
    ]
    assert specials(words, words.encode(spans)) == expected


@KEEP_FIXTURE
@given(st.lists(st.text("silk <>|e/\n", max_size=8), min_size=2, max_size=4))
def test_plain_contents_are_tokenised_as_in_the_whole_text(words, contents):
    assume(not any(name in "".join(contents) for name in words.special))
    turn = specials(words, words.tokenize("<|end|><|im_end|></s>", special=True))[0]
    spans = [span for text in contents for span in (Span(f"{turn}user\n", trusted=True), Span(text, trusted=False))]
    assert words.encode(spans) == words.tokenize("".join(s.text for s in spans), special=True)


def test_control_string_that_forms_across_an_edge_stays_text(words):
    tag = "<|/thinking|>"
    for cut in range(1, len(tag)):
        spans = [Span(tag[:cut], trusted=True), Span(tag[cut:], trusted=False)]
        assert specials(words, words.encode(spans)) == []


def test_tags_of_the_template_are_single_tokens(words):
    ids = words.encode([Span("<|thinking|>", trusted=True), Span("silk", trusted=False)])
    assert words.tags[ids[0]] == "<|thinking|>"
    assert set(words.tags.values()) >= set(TAGS)


def test_white_space_tokens_stay_usable_in_untrusted_text(words):
    if words.tokenize("  ") != [words.size - 1]:
        pytest.skip("this vocabulary has no white space token")
    assert words.size - 1 in words.encode([Span("a  b", trusted=False)])


def test_byte_letters_are_those_of_gpt2():
    assert (byte_letters()[0x20], byte_letters()[0x0A], byte_letters()[0xC3]) == ("Ġ", "Ċ", "Ã")


def test_merging_alone_can_spell_a_control_token_where_no_guard_is(words):
    """Why parsing specials off is not enough; the first test of this file covers the guard."""
    if not words._adds_space:
        pytest.skip("not with this vocabulary")
    assert "</s>" in specials(words, words.tokenize("</s>"))


def test_beginning_token_is_put_first_once_where_the_vocabulary_wants_it(tmp_path):
    control = [TokenType.CONTROL]
    tokens = ["<s>", *byte_letters()]
    types = control + [TokenType.NORMAL] * 256
    path = write_vocabulary(tmp_path / "v.gguf", tokens=tokens, types=types, model="gpt2", bos=0, merges=["a b"])
    with opened(path) as words:
        assert words.encode([Span("a", trusted=False)]) == [0, tokens.index("a")]
        assert words.encode([Span("<s>", trusted=True), Span("a", trusted=False)]) == [0, tokens.index("a")]
        assert words.encode([Span("<s>", trusted=False)])[1:] == [tokens.index(c) for c in "<s>"]


def test_tag_that_is_an_ordinary_token_counts_in_trusted_text_only(tmp_path):
    pieces = ["<unk>", *BYTES, *"<think>", "<t", "<th", "<thi", "<thin", "<think", "<think>"]
    types = [TokenType.UNKNOWN, *[TokenType.BYTE] * 256, *[TokenType.NORMAL] * (len(pieces) - 257)]
    scores = [-float(n) for n in range(len(pieces))]
    path = write_vocabulary(
        tmp_path / "v.gguf", tokens=pieces, types=types, model="llama", scores=scores, space_prefix=False
    )
    with opened(path) as words:
        last = len(pieces) - 1
        assert words.encode([Span("<think>", trusted=True)]) == words.tokenize("<think>") == [last]
        assert last not in words.encode([Span("<think>", trusted=False)])
