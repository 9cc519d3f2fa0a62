"""Rows whose good side is what a teacher thinks and answers by itself, told right or wrong by the kind of question."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from preflexor_agents.backends import open_backend
from preflexor_agents.backends.base import Completion, Request
from preflexor_agents.backends.scripted import Reply, ScriptedBackend
from preflexor_agents.prompts import NOT_IN_PASSAGES, Grounds, draft
from preflexor_agents.store import Store
from preflexor_training.forge import lengths, stats
from preflexor_training.forge.answers import TRIES
from preflexor_training.forge.calls import Model
from preflexor_training.forge.exporting import export
from preflexor_training.forge.records import Row
from preflexor_training.forge.run import Work, forge
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.pairs import Pair, read_pairs
from tests.training.forging import AT_ONCE, rows_of
from tests.training.teaching import Teacher, library, make

ASKED = (
    {"question": "What is the density of bamboo?", "answer": "0.7 g/cm^3"},
    {"question": "What is nacre made of?", "answer": "aragonite"},
    {
        "question": "Which is denser, bamboo or nacre?",
        "kind": "comparison",
        "choices": ["bamboo", "nacre"],
        "answer": "nacre",
        "states": ["0.7", "2.6"],
    },
    {"question": "What is the price of bamboo?", "kind": "unanswerable"},
)
RIGHT = {
    "density of bamboo": "The density of bamboo is 0.7 g/cm^3 [1].",
    "nacre made of": "Nacre is made of aragonite.",
    "denser": "Nacre, with 2.6 g/cm^3, is denser than bamboo with 0.7 g/cm^3.",
    "price": NOT_IN_PASSAGES,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with library(tmp_path_factory.mktemp("direct") / "library.db") as opened:
        yield opened


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ASKED), encoding="utf-8")
    return path


def right(request: Request) -> str:
    """The right answer to whatever is asked, after some thinking."""
    asked = request.messages[-1].content.rsplit("Question: ", 1)[-1]
    return f"<|thinking|>Look it up.<|/thinking|>{next(RIGHT[key] for key in RIGHT if key in asked)}"


def made(
    store: Store,
    folder: Path,
    *,
    teacher: Callable[[Request], Reply] = right,
    student: Callable[[Request], Reply] = lambda _: "<|thinking|>Hm.<|/thinking|>It is moon dust.",
    **settings: Any,
) -> tuple[list[Row], Mapping[str, ScriptedBackend]]:
    """The rows of a run, and who was asked."""
    backends = {"teacher": ScriptedBackend(teacher), "student": ScriptedBackend(student)}
    backends["judge"] = backends["teacher"]
    work = Work(
        settings=ForgeSettings(variant="direct", phase=2, prompt="grounded", passages=5, **settings),
        folder=folder,
        store=store,
        models={who: Model(backend=backend) for who, backend in backends.items()},  # type: ignore[misc]
        patience=AT_ONCE,
    )
    asyncio.run(forge(work))
    return rows_of(folder), backends


def test_teacher_and_student_are_asked_just_what_the_agents_ask(store: Store, tmp_path: Path, questions: Path) -> None:
    rows, backends = made(store, tmp_path / "run", questions=questions, rows=4)
    for row, known in zip(rows, ASKED, strict=True):
        found = store.search(str(known["question"]), k=5)
        asked = draft(Grounds(question=str(known["question"]), passages=tuple(found)))
        assert row.prompt == asked and [span.chunk_id for span in row.context] == [p.chunk_id for p in found]
    asked_of = {who: {request.messages for request in backends[who].requests} for who in backends}
    assert asked_of["teacher"] == asked_of["student"] == {row.prompt for row in rows}


def test_a_given_question_takes_one_call_of_the_teacher_and_another_two(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl"
    file.write_text('{"question": "How stiff is nacre?"}', encoding="utf-8")
    for settings, steps in ((ForgeSettings(variant="direct", questions=file), ["reply"]),
                            (ForgeSettings(variant="direct"), ["question", "reply"])):  # fmt: skip
        teacher = Teacher()
        row = make(store, settings, teacher).row
        assert [call.step for call in teacher.calls] == steps
        assert row.prompt[-1].content == f"{row.question} Use <|thinking|>." and row.categories == ()
        assert teacher.calls[-1].request.messages == row.prompt


def test_thinking_reflection_and_answer_are_the_teachers_own(store: Store) -> None:
    said = "<|thinking|>Look.<|/thinking|><|reflect|>Sure?<|/reflect|>Tablets slide over each other [1]."
    for prompt, answer in (
        ("grounded", "Tablets slide over each other [1]."),
        ("question", "Tablets slide over each other."),
    ):
        settings = ForgeSettings.model_validate({"variant": "direct", "prompt": prompt})
        chosen = make(store, settings, Teacher({"reply": said})).row.chosen
        assert (chosen.thinking, chosen.reflection, chosen.answer) == ("Look.", "Sure?", answer)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("<|thinking|>and on and on", "unclosed"),
        (Completion(thinking="and on", finish_reason="length"), "unclosed"),
        ("<|thinking|>a<|thinking|>b<|/thinking|>Tablets slide.", "malformed"),
        ("<|thinking|>a<|/thinking|>Tablets slide.<|/reflect|>", "malformed"),
        ("Tablets slide over each other.", "empty_thinking"),
        ("<|thinking|> <|/thinking|>Tablets slide over each other.", "empty_thinking"),
        ("<|thinking|>a<|/thinking|>", "empty_answer"),
        ("", "empty_thinking"),
    ],
)
def test_a_reply_that_is_not_whole_is_asked_for_again_and_then_drops_the_row(
    store: Store, said: Reply, kind: str
) -> None:
    teacher = Teacher({"reply": said})
    fell = make(store, ForgeSettings(variant="direct"), teacher)
    assert fell.fell.startswith(f"{kind}: ") and not fell.row.chosen.answer
    asked = [call for call in teacher.calls if call.step == "reply"]
    assert len(asked) == TRIES == len({call.request.seed for call in asked})


def test_a_second_reply_that_is_whole_will_do(store: Store) -> None:
    replies = iter(["<|thinking|>on", "<|thinking|>Look.<|/thinking|>Tablets slide over each other."])
    teacher = Teacher({"reply": lambda _: next(replies)})
    row = make(store, ForgeSettings(variant="direct"), teacher).row
    assert row.chosen.thinking == "Look." and [call.attempt for call in teacher.calls if call.step == "reply"] == [0, 1]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (Completion(thinking="a", answer="Tablets slide over each", finish_reason="length"), "cut_off"),
        ("<|thinking|>a<|/thinking|>The passages do not say.", "not_answerable"),
        ("<|thinking|>a<|/thinking|>...", "empty_answer"),
    ],
)
def test_an_answer_that_no_row_may_have_drops_it(store: Store, said: Reply, kind: str) -> None:
    assert make(store, ForgeSettings(variant="direct"), Teacher({"reply": said})).fell.startswith(f"{kind}: ")


def test_right_answers_of_every_kind_are_kept_with_the_wrong_ones_of_the_student(
    store: Store, tmp_path: Path, questions: Path
) -> None:
    rows, _ = made(store, tmp_path / "run", questions=questions, rows=4, verifier="task")
    assert [row.state for row in rows] == ["kept"] * 4
    assert [row.chosen.answer for row in rows] == list(RIGHT.values())
    assert {(row.scores["chosen"], row.scores["rejected"], row.scores["margin"]) for row in rows} == {(1, 0, 1)}
    assert [row.gold for row in rows] == ["0.7 g/cm^3", "aragonite", "nacre", ""]


def test_of_several_samples_only_wrong_ones_are_accepted(store: Store, tmp_path: Path, questions: Path) -> None:
    def student(request: Request) -> str:
        return (
            right(request).replace("Look", "See")
            if request.seed % 2
            else f"<|thinking|>x<|/thinking|>{request.seed} stones."
        )

    rows, _ = made(store, tmp_path / "run", questions=questions, rows=12, verifier="task", samples=4, student=student)
    for row in rows:
        wrong = sum(call.seed % 2 == 0 for call in row.calls if call.step == "sample")
        assert row.scores["samples"] == 4 and row.scores["accepted"] == wrong
        assert (row.state == "kept") == bool(wrong)
        assert row.state != "kept" or row.rejected.answer.endswith("stones.")
    assert {"kept"} <= {row.state for row in rows}


def test_a_teacher_that_is_wrong_makes_no_pair_and_costs_no_sample(
    store: Store, tmp_path: Path, questions: Path
) -> None:
    def mistaken(request: Request) -> str:
        return right(request).replace("0.7", "0.8").replace(NOT_IN_PASSAGES, "It costs 12 EUR.")

    rows, backends = made(
        store, tmp_path / "run", questions=questions, rows=4, verifier="task", teacher=mistaken, samples=3
    )
    fell = Counter(row.reason.partition(":")[0] for row in rows)
    assert fell == {"chosen_wrong": 3, "": 1} and rows[1].state == "kept"
    assert len(backends["student"].requests) == 3, "only the row that is kept"
    assert [row.scores["samples"] for row in rows] == [0, 3, 0, 0]


def test_to_decline_in_any_words_is_the_right_answer_to_what_cannot_be_answered(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl"
    file.write_text(json.dumps(ASKED[3]), encoding="utf-8")
    said = "<|thinking|>No price there.<|/thinking|>I cannot tell: the price is not stated."
    rows, _ = made(store, tmp_path / "run", questions=file, rows=1, verifier="task", teacher=lambda _: said)
    assert rows[0].state == "kept" and rows[0].chosen.answer.startswith("I cannot tell")


def test_a_refusal_of_what_can_be_answered_is_counted_and_fails_the_row(
    store: Store, tmp_path: Path, questions: Path
) -> None:
    said = "<|thinking|>Hm.<|/thinking|>I'm sorry, but I can't help with that."
    rows, _ = made(store, tmp_path / "run", questions=questions, rows=1, teacher=lambda _: said)
    assert rows[0].state == "failed" and rows[0].reason.startswith("refusal: ")


def test_rows_are_counted_exported_and_read_back_as_the_replies_that_they_are(
    store: Store, tmp_path: Path, questions: Path
) -> None:
    rows, _ = made(store, tmp_path / "run", questions=questions, rows=4, verifier="task")
    with lengths.measure(None) as measure:
        found = stats.collect(rows, measure, max_length_tok=4096)
    assert found.states["kept"] == 4 and found.costs["reply"].calls == 4 and not found.categories
    export(rows, tmp_path / "out.jsonl", form="trl-chat")
    pairs = [pair for pair in read_pairs(tmp_path / "out.jsonl") if isinstance(pair, Pair)]
    assert [(p.prompt, p.chosen, p.rejected) for p in pairs] == [(r.prompt, r.chosen, r.rejected) for r in rows]


def test_nano_teaches_what_it_knows(store: Store, tmp_path: Path, questions: Path) -> None:
    async def made_by_nano() -> None:
        nano = await open_backend("nano")
        student = ScriptedBackend(lambda _: "<|thinking|>Hm.<|/thinking|>It is moon dust.")
        models: Any = {"teacher": Model(backend=nano), "student": Model(backend=student), "judge": Model(backend=nano)}
        settings = ForgeSettings.model_validate(
            {
                "variant": "direct",
                "phase": 2,
                "prompt": "grounded",
                "passages": 5,
                "questions": questions,
                "rows": 1,
                "verifier": "task",
                "teacher_drawing": {"temperature": 0.0, "max_tok": 200},
            }
        )
        try:
            await forge(Work(settings=settings, folder=tmp_path / "run", store=store, models=models, patience=AT_ONCE))
        finally:
            await nano.aclose()

    asyncio.run(made_by_nano())
    (row,) = rows_of(tmp_path / "run")
    assert row.state == "kept" and row.chosen.thinking and "0.7 g/cm^3" in row.chosen.answer
