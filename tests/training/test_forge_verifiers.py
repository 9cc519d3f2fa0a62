"""Answers scored by a known answer, by number and unit, and by a rule."""

import json
from pathlib import Path
from typing import Any

import pytest

from preflexor_agents.errors import ConfigError
from preflexor_training.forge.given import Question, read_questions
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Dropped
from preflexor_training.forge.verifiers import by_task, exact, numeric, score_of


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("It is made of Keratin.", "keratin", 1),
        ("Van-der-Waals forces hold it.", "van der Waals forces", 1),
        ("It is made of chitin.", "keratin", 0),
        ("keratins", "keratin", 0),
        ("It has 147 of them.", "47", 0),
        ("The charge is -1.", "1", 0),
        ("It has 1,200 tiles.", "1200", 1),
        ("Yes, as a beam does.", "yes", 1),
        ("It is not so, yes or no matters little here.", "no", 0),
        ("A good thing, so the answer is: B", "b", 1),
        ("A good thing, so the answer is (B), not C, for a reason.", "B", 1),
        ("B is a letter, and a reason is D", "a", 0),
        ("\uff2b\uff45\uff52\uff41\uff54\uff49\uff4e", "keratin", 1),
        ("", "keratin", 0),
    ],
)
def test_exact(answer: str, gold: str, score: float) -> None:
    assert exact(answer, gold) == score


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("It reaches 70 GPa.", "70 GPa", 1),
        ("It reaches 70,000 MPa.", "70 GPa", 1),
        ("It reaches 7e10 Pa.", "70 GPa", 1),
        ("It reaches 70.5 GPa.", "70 GPa", 1),
        ("It reaches 72 GPa.", "70 GPa", 0),
        ("It reaches 70 MPa.", "70 GPa", 0),
        ("It reaches 70.", "70 GPa", 0),
        ("It is 4.5 MPa m^0.5 tough.", "4.5 MPa m^0.5", 1),
        ("It is 4.5 MPa tough.", "4.5 MPa m^0.5", 0),
        ("It weighs 2 g/cm^3.", "2000 kg/m^3", 1),
        ("Between 2 nm and 9 nm.", "2 nm to 5 nm", 0.5),
        ("There are 12 of them.", "12", 1),
        ("None.", "12", 0),
    ],
)
def test_numeric(answer: str, gold: str, score: float) -> None:
    assert numeric(answer, gold) == score


def test_a_known_answer_that_cannot_be_compared_drops_the_row() -> None:
    for score, gold in ((exact, "?!"), (numeric, "keratin")):
        with pytest.raises(Dropped, match="no_gold"):
            score("Keratin.", gold)


def test_a_rule_is_found_whatever_its_case() -> None:
    score = score_of(ForgeSettings(verifier="rule", rule=r"\bvan der waals\b"))
    asked = Question(text="What holds it?")
    assert score is not None and (score("Van der Waals forces", asked), score("Glue", asked)) == (1, 0)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"verifier": "rule"}, "has no rule"),
        ({"verifier": "rule", "rule": "("}, "no regular expression"),
        ({"verifier": "exact"}, "name a file of questions with answers"),
        ({"verifier": "numeric"}, "name a file of questions with answers"),
        ({"verifier": "task"}, "name a file of questions with answers"),
    ],
)
def test_a_verifier_without_what_it_needs_is_refused_before_the_run(given: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        score_of(ForgeSettings.model_validate(given))


@pytest.mark.parametrize("kind", ["none", "judge"])
def test_nothing_is_scored_without_a_verifier_or_with_a_judge(kind: str) -> None:
    assert score_of(ForgeSettings.model_validate({"verifier": kind})) is None


BY_KIND: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"question": "What is it made of?", "answer": "keratin"}, "It is made of Keratin [2].", "It is chitin."),
    ({"question": "How stiff is it?", "answer": "70 GPa"}, "Its modulus is 70 GPa [1].", "It is 70.5 GPa."),
    ({"question": "How many are there?", "answer": "12"}, "Of 47 there are 12 [1].", "Of 12 there are 47."),
    ({"question": "Which?", "choices": ["silk", "wood"], "answer": "wood"}, "B) wood", "The answer is A."),
    (
        {
            "question": "Which is tougher?",
            "kind": "comparison",
            "choices": ["bone", "nacre"],
            "answer": "nacre",
            "states": ["4.5 MPa", "3 MPa"],
        },
        "Nacre (4.5 MPa) is tougher than bone (3 MPa) [1][3].",
        "Bone (3 MPa) is tougher than nacre (4.5 MPa).",
    ),
    (
        {"quiz": "Who is what?", "names": ["Ann", "Bob"], "solution": [True, False]},
        "Ann is a knight and Bob is a knave.",
        "Ann is a knave and Bob is a knight.",
    ),
    (
        {"question": "What does it cost?", "kind": "unanswerable"},
        "The passages do not say what it costs.",
        "It costs 12 EUR.",
    ),
)


@pytest.mark.parametrize(("row", "good", "bad"), BY_KIND, ids=lambda value: str(value)[:30])
def test_a_task_is_scored_by_the_rules_of_its_kind(tmp_path: Path, row: dict[str, Any], good: str, bad: str) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (asked,) = read_questions(tmp_path / "q.jsonl")
    assert (by_task(good, asked), by_task(bad, asked), by_task("", asked)) == (1, 0, 0)


def test_a_comparison_that_leaves_out_the_values_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps(BY_KIND[4][0]), encoding="utf-8")
    (asked,) = read_questions(tmp_path / "q.jsonl")
    assert by_task("Nacre is tougher than bone.", asked) == 0


def test_only_an_open_question_has_no_task_to_be_scored_by(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "Why?"}', encoding="utf-8")
    for asked in (*read_questions(tmp_path / "q.jsonl"), Question(text="Why?", gold="because")):
        with pytest.raises(Dropped, match="no_gold: the question is an open one"):
            by_task("Because.", asked)
