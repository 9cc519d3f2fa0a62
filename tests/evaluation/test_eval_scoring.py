"""What counts as a right answer, of each kind."""

import pytest

from preflexor_agents.evaluation.scoring import refuses, right
from preflexor_agents.evaluation.tasks import Kind, Task


def task(kind: Kind, answer: str, *, choices: tuple[str, ...] = (), states: tuple[str, ...] = ()) -> Task:
    return Task(id="t", question="q", kind=kind, answer=answer, choices=choices, states=states)


@pytest.mark.parametrize(
    ("kind", "expected", "answer", "verdict"),
    [
        ("exact", "chitin", "It is mostly Chitin [2].", True),
        ("exact", "chitin", "It is chitinous.", False),
        ("exact", "47", "It is 147.", False),
        ("exact", "the fleece of sheep", "The fleece of sheep!", True),
        ("exact", "chitin", "  ", False),
        ("numeric", "4.5 MPa m^0.5", "Its toughness is 4.5 MPa·m^1/2, not 3 GPa.", True),
        ("numeric", "4.5 MPa m^0.5", "Its toughness is 4.5 GPa.", False),
        ("numeric", "1200 um", "About 1,200 µm [1].", True),
        ("numeric", "42", "6 times 7 is 42.", True),
        ("numeric", "42", "The answer is 42, since 6 x 7.", True),
        ("numeric", "42", "Between 42 and 50.", False),
        ("numeric", "1200", "3 * 400 = 1,200\n#### 1,200", True),
        ("numeric", "-3", "The answer is -3", True),
        ("numeric", "0.5", "So it is .50", True),
        ("numeric", "7", "seven", False),
        ("unanswerable", "", "The passages do not say.", True),
        ("unanswerable", "", "This is not stated in the text.", True),
        ("unanswerable", "", "It is 4 MPa.", False),
        ("open", "", "Whatever.", False),
    ],
)
def test_an_answer_is_right_or_wrong(kind: Kind, expected: str, answer: str, verdict: bool) -> None:
    assert right(task(kind, expected), answer) is verdict


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("B", True),
        ("B) keratin", True),
        ("(B)", True),
        ("**B**", True),
        ("The answer is B.", True),
        ("Answer: b", True),
        ("A common error is A, but the answer is (B).", True),
        ("It is keratin.", True),
        ("A", False),
        ("It is keratin or silk.", False),
        ("A bird makes it.", False),
        ("none", False),
    ],
)
def test_a_choice_is_found_however_it_is_said(answer: str, verdict: bool) -> None:
    assert right(task("choice", "B", choices=("silk", "keratin", "chitin")), answer) is verdict


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Nacre is tougher: 8 MPa against 5 MPa.", True),
        ("Bone at 5 MPa is weaker than nacre at 8 MPa.", False),
        ("Nacre is tougher.", False),
        ("Black nacre is tougher: 8 MPa against 5 MPa.", True),
    ],
)
def test_a_comparison_names_the_winner_first_and_both_values(answer: str, verdict: bool) -> None:
    assert right(task("comparison", "nacre", choices=("nacre", "bone"), states=("8 MPa", "5 MPa")), answer) is verdict


def test_a_name_inside_the_longer_other_name_is_not_that_name() -> None:
    compared = task("comparison", "bone", choices=("bone", "cortical bone"))
    assert not right(compared, "Cortical bone is stiffer.")
    assert right(compared, "Bone is stiffer than cortical bone.")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Ada is a knight and Bruno is a knave.", True),
        ("(1) Ada is a knight\n(2) Bruno is a knave", True),
        ("Ada: knight, Bruno: knave", True),
        ("**Ada** is a **knight**; **Bruno** is a **knave**.", True),
        ("If Ada is a knave then no. So Ada is a knight and Bruno is a knave.", True),
        ("Ada is a knight.", False),
        ("Ada is a knave and Bruno is a knight.", False),
        ("Adam is a knight and Bruno is a knave.", False),
    ],
)
def test_everybody_must_be_called_what_they_are(answer: str, verdict: bool) -> None:
    assert right(task("identities", "Ada=knight\nBruno=knave"), answer) is verdict


@pytest.mark.parametrize(
    "answer", ["I do not have enough information.", "The text doesn't mention it.", "Unanswerable"]
)
def test_a_refusal_may_be_said_in_many_ways(answer: str) -> None:
    assert refuses(answer)
