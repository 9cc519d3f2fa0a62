"""Sentences as spans."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflexor_agents.store.sentences import split


def parts(text: str) -> list[str]:
    return [text[start:end] for start, end in split(text)]


@pytest.mark.parametrize(
    "sentence",
    [
        "The toughness is 4.5 MPa m^0.5.",
        "E. coli was used, e.g. by Smith et al. in 1998.",
        "See Fig. 3 and Eqs. 2 and 4.",
        "It lies on the line of J. Smith.",
        "Is it so?!",
        'He said "it is tough."',
        "It is tough [1, 2].",
        "It is tough. [2]",
        "A hard-wrapped\nsentence goes on.",
    ],
)
def test_a_sentence_stays_whole_and_ends_where_it_ends(sentence: str) -> None:
    assert parts(f"{sentence} Then another.") == [sentence, "Then another."]


def test_a_unit_of_one_letter_ends_a_sentence() -> None:
    assert parts("It held 3 N. This is much.") == ["It held 3 N.", "This is much."]


def test_headings_and_list_markers_are_left_out() -> None:
    assert parts("# Nacre\n\nTough.\n\n## Uses\n- armour\n- 2. glass\n\n1. one\n2) two\n> said\n") == [
        *["Tough.", "armour", "glass", "one", "two", "said"]
    ]


def test_rows_of_a_table_stand_alone() -> None:
    assert parts("| a | 1 |\n| b | 2 |\nAfter it.") == ["| a | 1 |", "| b | 2 |", "After it."]


@given(st.text(st.sampled_from("aB1.?! \n\t-#|>*[]()\"'\u2019e.g"), max_size=200))
def test_sentences_are_trimmed_apart_and_in_order(text: str) -> None:
    spans = split(text)
    assert all(text[s:e] == text[s:e].strip() != "" for s, e in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))
