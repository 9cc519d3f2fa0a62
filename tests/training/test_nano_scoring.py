import pytest

from preflexor_agents.evaluation.scoring import names_first, states
from preflexor_training.nano.scoring import Reply


@pytest.mark.parametrize(
    "text", ["it is 147 GPa", "it is 4.75 GPa", "it is 0.47 GPa", "it is 47.5 GPa", "it is 470 GPa"]
)
def test_a_number_inside_another_does_not_count(text: str) -> None:
    assert not states(text, "47")


@pytest.mark.parametrize("text", ["it is 47 GPa [1].", "47", "It is 47.", "(47)"])
def test_a_whole_number_counts(text: str) -> None:
    assert states(text, "47")


def test_a_unit_belongs_to_the_value() -> None:
    assert states("The toughness is 4.5 MPa m^0.5 [2].", "4.5 MPa m^0.5")
    assert not states("The toughness is 4.5 GPa.", "4.5 MPa")


@pytest.mark.parametrize(
    ("text", "ended", "expected"),
    [
        ("<|thinking|>\nFind: x.\n<|/thinking|>It is 4.", True, True),
        ("<|thinking|>\nFind: x.\n<|/thinking|>It is 4.", False, False),
        ("<|thinking|>\nFind: x.\n<|/thinking|>", True, False),
        ("<|thinking|>\n\n<|/thinking|>It is 4.", True, False),
        ("<|thinking|>\nCompare: a 4 < b 5.\n<|/thinking|>It is b.", True, True),
        ("It is 4.", True, False),
        ("<|thinking|>\nFind: x.<|thinking|>\n<|/thinking|>It is 4.", True, False),
    ],
)
def test_thinking_is_well_formed_only_with_one_section_an_answer_and_an_end(
    text: str, *, ended: bool, expected: bool
) -> None:
    assert Reply(text, ended).well_formed is expected


def test_a_reply_is_taken_apart() -> None:
    reply = Reply("<|thinking|>\nFact: x: 5 [9].\n<|/thinking|>It is 5 [2] [3].", True)
    assert reply.answer == "It is 5 [2] [3]."
    assert reply.cited == (2, 3)


def test_the_winner_of_a_comparison_is_named_first() -> None:
    assert names_first("The hardness of enamel, 4 GPa, is higher than that of bone, 1 GPa.", "enamel", "bone")
    assert not names_first("The hardness of bone, 1 GPa, is higher than that of enamel.", "enamel", "bone")


def test_a_name_inside_the_other_name_is_not_that_name() -> None:
    assert not names_first("The hardness of spider silk is higher than that of silk.", "silk", "spider silk")
    assert names_first("The hardness of spider silk is higher than that of silk.", "spider silk", "silk")
