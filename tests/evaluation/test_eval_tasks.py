"""Question files in the shapes that are about."""

import json
from pathlib import Path
from typing import Any

import pytest

from preflexor_agents.errors import InputError
from preflexor_agents.evaluation.tasks import Task, read_tasks, task_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "knights-knaves"


def one(row: dict[str, Any]) -> Task:
    return task_of(row, where="row 1 of x.jsonl")


def test_a_plain_question_is_exact() -> None:
    task = one({"question": " How tough is nacre? ", "answer": "very"})
    assert (task.question, task.kind, task.answer, task.column) == ("How tough is nacre?", "exact", "very", "exact")


@pytest.mark.parametrize("answer", ["47", 47, "1,200 um", "-3.5e2", "4.5 MPa m^0.5"])
def test_an_answer_that_is_a_number_is_numeric(answer: object) -> None:
    assert one({"question": "q", "answer": answer}).kind == "numeric"


def test_gsm8k_keeps_the_number_after_the_working() -> None:
    task = one({"question": "q", "answer": "3 * 400 = <<3*400=1200>>1200\n#### 1,200"})
    assert (task.kind, task.answer) == ("numeric", "1200")


@pytest.mark.parametrize("answer", [2, "2", "C", "c", "chitin"])
def test_mmlu_finds_the_letter(answer: object) -> None:
    task = one({"question": "q", "choices": ["silk", "wood", "chitin"], "answer": answer, "subject": "biology"})
    assert (task.kind, task.answer, task.column) == ("choice", "C", "biology")
    assert task.prompt() == "q\nA) silk\nB) wood\nC) chitin\nAnswer with the letter of the right choice."


def test_a_choice_that_is_a_number_is_meant_by_its_words() -> None:
    assert one({"question": "q", "choices": ["1", "2", "3"], "answer": "1"}).answer == "A"


def test_pubmedqa_brings_its_abstract() -> None:
    row = {"pubid": 7, "QUESTION": "Does it?", "CONTEXTS": ["It does.", "Mostly."], "final_decision": "maybe"}
    task = one(row)
    assert (task.id, task.passages, task.answer) == ("7", ("It does.", "Mostly."), "C")


def test_a_comparison_keeps_its_two_names_and_what_a_right_answer_states_besides() -> None:
    row = {
        "question": "Which?",
        "kind": "comparison",
        "choices": ["bone", "nacre"],
        "answer": "nacre",
        "states": ["3", 4.5],
    }
    task = one(row)
    assert (task.kind, task.answer, task.choices, task.states) == (
        "comparison",
        "nacre",
        ("bone", "nacre"),
        ("3", "4.5"),
    )
    assert task.prompt() == "Which?"


def test_what_cannot_be_answered_needs_no_answer() -> None:
    assert one({"question": "q", "kind": "unanswerable"}).answer == ""


def test_half_a_character_is_replaced() -> None:
    task = one({"question": "q\ud800", "choices": ["a\udfff", "b"], "answer": 0})
    assert (task.question, task.choices) == ("q?", ("a?", "b"))


def test_equal_questions_have_equal_ids_and_others_do_not() -> None:
    a, b = one({"question": "q", "answer": "1"}), one({"question": "r", "answer": "1"})
    assert a.id == one({"question": "q", "answer": "1"}).id != b.id


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "x"}, "has no question; its keys: text"),
        ({"question": "q", "answer": "", "kind": "exact"}, "has no answer"),
        ({"question": "q", "answer": "1", "kind": "vague"}, "kind is 'vague'; use exact, numeric"),
        ({"question": "q", "choices": ["a"], "answer": 0}, "2 to 26 texts"),
        ({"question": "q", "choices": ["a", "b"], "answer": 2}, "answer is 2; it must be one of the 2 choices"),
        ({"question": "q", "choices": ["a", "b"], "answer": True}, "answer is True"),
        ({"question": "q", "kind": "choice", "answer": "A"}, "there are no choices"),
        ({"question": "q", "kind": "comparison", "answer": "a"}, "2 to 26 texts"),
        ({"question": "q", "kind": "comparison", "choices": ["a", "b"], "answer": 0}, "one of two names"),
        ({"question": "q", "kind": "comparison", "choices": ["a", "a"], "answer": "a"}, "one of two names"),
        ({"question": "q", "answer": "1", "states": "47"}, "states is '47'; it must be a list"),
        ({"QUESTION": "q", "final_decision": "perhaps"}, "no PubMedQA row"),
        ({"quiz": "q", "names": ["a"], "solution": []}, "no puzzle"),
    ],
)
def test_a_row_that_is_none_is_named_with_the_remedy(row: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=r"^row 1 of x\.jsonl.*" + words):
        one(row)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"question": "q", "answer": "x"}\n\n{"question": "r", "answer": "y"}\n'),
        ("a.json", '[{"question": "q", "answer": "x"}, {"question": "r", "answer": "y"}]'),
        ("a.csv", "question,answer\nq,x\nr,y\n"),
        ("a.tsv", "question\tanswer\nq\tx\nr\ty\n"),
    ],
)
def test_every_form_of_file_gives_the_same_questions(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert [(t.question, t.answer) for t in read_tasks(tmp_path / name)] == [("q", "x"), ("r", "y")]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "has no questions"),
        (b'{"question": "q", "answer": "x"}\n{half', "row 2 of a.jsonl is no JSON: '{half'"),
        (b"[1]", "is no object: '1'"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (json.dumps({"question": "q", "answer": "x"}).encode() * 1 + b"\n" + b'{"question": "q", "answer": "x"}', "id"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(data)
    with pytest.raises(InputError, match=words):
        read_tasks(tmp_path / "a.jsonl")


def test_a_missing_file_and_a_broken_parquet_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_tasks(tmp_path / "none.jsonl")
    (tmp_path / "a.parquet").write_bytes(b"PAR1nothing")
    with pytest.raises(InputError, match=r"no Parquet file|needs pyarrow"):
        read_tasks(tmp_path / "a.parquet")


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/knights-knaves")
def test_published_puzzles_are_read() -> None:
    tasks = read_tasks(DATA / "3ppl" / "train.parquet")
    assert len(tasks) == 900
    assert tasks[0].answer.splitlines() == ["Michael=knight", "Zoey=knight", "Ethan=knight"]
    assert {task.column for task in tasks} == {"3 people"}
