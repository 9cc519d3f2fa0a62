from hypothesis import given
from hypothesis import strategies as st

from preflexor_agents.backends.base import Delta
from preflexor_agents.backends.reply import ReplyReader
from preflexor_agents.markup import SectionParser, parse


def read(chunks: list[bytes], *stop: str) -> tuple[list[Delta], ReplyReader]:
    reader = ReplyReader(SectionParser(), stop)
    deltas = [delta for chunk in chunks for delta in reader.piece(chunk)]
    return [*deltas, *reader.finish()[0]], reader


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@given(st.text(max_size=20))
def test_characters_cut_between_tokens_are_completed(words):
    deltas, _ = read([bytes([b]) for b in words.encode("utf-8", "replace")])
    assert text(deltas) == parse_without_tags(words)


def parse_without_tags(words: str) -> str:
    return "".join(s.text for s in parse(words.encode("utf-8", "replace").decode()).segments)


def test_bytes_that_are_no_text_become_replacement_characters():
    assert text(read([b"a\xff", b"\xe2\x82"])[0]) == "a\ufffd\ufffd"


@given(st.text("abc", max_size=12), st.lists(st.text("abc", min_size=1, max_size=3), max_size=2))
def test_reply_ends_before_a_stop_string_however_it_is_cut(words, stop):
    whole = text(read([words.encode()], *stop)[0])
    by_letter, reader = read([letter.encode() for letter in words], *stop)
    assert not any(s in text(by_letter) for s in stop)
    assert words.startswith(text(by_letter))
    assert reader.stopped == any(s in words for s in stop)
    if len(stop) == 1:
        assert text(by_letter) == whole == words.split(stop[0])[0]


def test_beginning_of_a_stop_string_is_held_back_until_it_is_decided():
    reader = ReplyReader(SectionParser(), ["\n\nUser:"])
    assert reader.piece(b"a\n\nUs") == [Delta("answer", "a")]
    assert reader.piece(b"es") == [Delta("answer", "\n\nUses")]


def test_what_comes_after_a_stop_string_is_ignored():
    reader = ReplyReader(SectionParser(), ["END"])
    assert reader.piece(b"a END b") == [Delta("answer", "a ")]
    assert reader.piece(b"c") == reader.tag("<|thinking|>") == []
    assert reader.finish()[1].answer == "a"


def test_empty_stop_string_stops_nothing():
    assert text(read([b"abc"], "")[0]) == "abc"


def test_tag_token_ends_what_was_held_back():
    reader = ReplyReader(SectionParser(opened="thinking", tags=()), ["stop"])
    assert reader.piece(b"a st") == [Delta("thinking", "a ")]
    assert reader.tag("<|/thinking|>") == [Delta("thinking", "st")]
    assert reader.piece(b"b") == [Delta("answer", "b")]
