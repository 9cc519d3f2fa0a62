import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from preflexor_agents.markup import TAGS, SectionParser, neutralise, parse

TAG = re.compile("|".join(map(re.escape, TAGS)))
LETTERS = st.text("ab <|/>", max_size=6)
REPLIES = st.lists(st.sampled_from(list(TAGS)) | LETTERS | st.text(max_size=4), max_size=12).map("".join)
OPENED = st.sampled_from([None, "answer", "thinking", "reflection"])


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(p % (len(text) + 1) for p in places), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@given(REPLIES, st.lists(st.integers(0, 10**6), max_size=20), OPENED)
@example("<|thinking|>a<|/thinking|>b", list(range(30)), None)
def test_any_chunking_gives_the_parse_of_the_whole_text(text, places, opened):
    parser = SectionParser(opened=opened)
    for piece in cut(text, places):
        parser.feed(piece)
    assert parser.finish() == parse(text, opened=opened)


@given(REPLIES, OPENED)
def test_no_character_but_the_tags_is_lost(text, opened):
    segments = parse(text, opened=opened).segments
    assert "".join(s.text for s in segments) == TAG.sub("", text)
    assert all(s.text for s in segments)


@given(REPLIES, st.lists(st.integers(0, 10**6), max_size=20), OPENED)
def test_streamed_pieces_are_the_text_without_tags_in_order(text, places, opened):
    parser = SectionParser(opened=opened)
    pieces = [piece for chunk in cut(text, places) for piece in parser.feed(chunk)]
    pieces += parser.release()
    assert "".join(t for _, t in pieces) == TAG.sub("", text)
    assert all(t for _, t in pieces)


@given(st.lists(st.tuples(st.sampled_from(["thinking", "reflection"]), st.text("xyz \n", max_size=5)), max_size=4))
def test_streamed_channels_agree_with_the_sections_of_a_well_formed_reply(parts):
    tags = {"thinking": ("<|thinking|>", "<|/thinking|>"), "reflection": ("<|reflect|>", "<|/reflect|>")}
    text = "".join(tags[c][0] + t + tags[c][1] for c, t in parts) + "the answer"
    parser = SectionParser()
    pieces = [piece for letter in text for piece in parser.feed(letter)]
    sections = parser.finish()
    for channel in ("thinking", "reflection", "answer"):
        assert "".join(t for c, t in pieces if c == channel) == "".join(
            s.text for s in sections.segments if s.channel == channel
        )
    assert sections.problems == ()
    assert sections.answer == "the answer"


@pytest.mark.parametrize(
    ("text", "thinking", "reflection", "answer"),
    [
        ("", "", "", ""),
        ("only an answer", "", "", "only an answer"),
        ("<|thinking|>t<|/thinking|>\na", "t", "", "a"),
        ("<think>\nt\n</think>\n\na", "t", "", "a"),
        ("<|thinking|>t<|/thinking|><|reflect|>r<|/reflect|>a", "t", "r", "a"),
        ("<|thinking|>cut sho", "cut sho", "", ""),
        ("<|thinking|>t<|/thin", "t<|/thin", "", ""),
        ("before<think>t</think>a", "t", "", "before\na"),
        ("<think>one</think>a<think>two</think>b", "one\ntwo", "", "a\nb"),
        ("t, since the template opened it</think>a", "t, since the template opened it", "", "a"),
        ("<|thinking|>t</think>a", "t", "", "a"),
        ("<|thinking|>t<|reflect|>r<|/reflect|>a", "t", "r", "a"),
        ("<|thinking|>t<|reflect|>r<|/reflect|>u<|/thinking|>a", "t\nu", "r", "a"),
        ("<think>t<think>u</think>v</think>a", "t\nu\nv", "", "a"),
        ("<think><think>t</think>a", "t", "", "a"),
        ("<|thinking|>t<|/reflect|>a", "t", "", "a"),
        ("<|thinking|>t<|/reflect|>u<|/thinking|>a", "t\nu", "", "a"),
        ("<|thinking|>t<|reflect|>r<|/thinking|>a", "t", "r", "a"),
        ("<think>t</think>a</think>b", "t", "", "a\nb"),
        ("a<|/reflect|>b", "", "", "a\nb"),
        ("a < b, |x| > 2 and NONE </thinks>", "", "", "a < b, |x| > 2 and NONE </thinks>"),
        ("<|thinking|>N<|/thinking|>", "N", "", ""),
    ],
)
def test_sections_of_well_formed_and_odd_replies(text, thinking, reflection, answer):
    sections = parse(text)
    assert (sections.thinking, sections.reflection, sections.answer) == (thinking, reflection, answer)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<|thinking|>t", "thinking was not closed"),
        ("t</think>a", "</think> without an opening tag"),
        ("<think>t</think>a</think>", "</think> closes nothing"),
        ("<think>t<|reflect|>r<|/reflect|>a", "<|reflect|> inside thinking"),
        ("<think>t<|/reflect|>a", "<|/reflect|> closes thinking"),
    ],
)
def test_odd_tags_are_named(text, problem):
    assert problem in parse(text).problems


def test_reply_to_finished_thinking_keeps_text_before_a_stray_closing_tag():
    assert parse("a</think>b", opened="answer").answer == "a\nb"


def test_reply_that_starts_inside_thinking_streams_as_thinking():
    parser = SectionParser(opened="thinking")
    assert parser.feed("so</think>yes") == [("thinking", "so"), ("answer", "yes")]


def test_beginning_of_a_tag_is_held_back_until_it_is_decided():
    parser = SectionParser()
    assert parser.feed("a<|thin") == [("answer", "a")]
    assert parser.feed("gs") == [("answer", "<|things")]
    assert parser.feed("<") == []
    assert parser.release() == [("answer", "<")]


def test_tag_that_is_not_listed_is_plain_text_unless_it_comes_as_a_token():
    parser = SectionParser(tags=["<think>", "</think>"])
    assert parser.feed("<|thinking|>") == [("answer", "<|thinking|>")]
    parser.tag("<|thinking|>")
    assert parser.feed("t<|/thinking|>") == [("thinking", "t<|/thinking|>")]
    parser.tag("<|/thinking|>")
    assert parser.finish().answer == "<|thinking|>"


def test_flood_of_tags_is_reported_once():
    assert len(parse("</think>" * 10_000, opened="answer").problems) == 1


CONTROL = ["<|im_end|>", "<|/thinking|>", "</s>", "[INST]"]


@given(
    st.lists(st.text("ab<|>", min_size=1, max_size=3), min_size=1, max_size=4),
    st.text("ab<|> ", max_size=20),
)
@example(["aa"], "aaaa")
@example([" a", "a "], " a a ")
@example(["a"], "a")
def test_no_control_string_is_left_and_the_other_characters_are(tokens, text):
    result = neutralise(text, tokens)
    assert not any(token in result for token in tokens)
    if all(len(token) > 1 for token in tokens):
        assert re.sub("[ ·]", "", result) == re.sub(" ", "", text)


def test_control_strings_stay_readable():
    assert neutralise("end<|im_end|> and [INST]", CONTROL) == "end< |im_end|> and [ INST]"


@given(st.text("xyz <>|é\n", max_size=30))
def test_text_without_control_strings_is_unchanged(text):
    assert neutralise(text, CONTROL) == text


def test_break_differs_from_every_character_of_the_control_strings():
    assert neutralise("<place holder>", ["<place holder>", "< place"]) == "<·place holder>"
