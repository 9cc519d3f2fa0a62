"""What nano is taught by: questions that share nothing with the held-out ones, and a teacher that reads. No torch."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from preflexor_agents import prompts
from preflexor_agents.backends.base import Completion, Request, complete
from preflexor_agents.errors import BackendError, ConfigError
from preflexor_agents.evaluation.scoring import right
from preflexor_agents.evaluation.tasks import read_tasks
from preflexor_agents.events import Passage
from preflexor_agents.prompts import NOT_IN_PASSAGES, Grounds, Message
from preflexor_agents.store import Store
from preflexor_training.nano import frames, taught
from preflexor_training.nano.facts import materials, states
from preflexor_training.nano.questions import Question, lacking, library_questions, tells
from preflexor_training.nano.suite import column_of, library_tasks, task_of
from preflexor_training.nano.taught import MIX, draw_questions, write_questions
from preflexor_training.nano.teacher import LibraryTeacher
from preflexor_training.nano.worlds import held_out_fact, held_out_hop, held_out_pair

LIBRARY = Path(__file__).parents[2] / "preflexor_agents" / "data" / "library"
DRAWN = draw_questions(1500, seed=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("store") / "library.db", embedder="hash") as opened:
        opened.ingest([LIBRARY])
        yield opened


def asked(question: Question, passages: Sequence[Passage]) -> Completion:
    teacher = LibraryTeacher([question])
    messages = prompts.draft(Grounds(question=question.text, passages=tuple(passages)))
    return asyncio.run(complete(teacher, Request(messages=messages)))


def of_column(column: str, count: int = 60) -> list[Question]:
    return [q for q in DRAWN if column_of(q) == column][:count]


def notes(store: Store, question: Question) -> list[Passage]:
    """Every passage of the materials that a question is about."""
    found = store.search(f"{question.material} {question.other}", k=40)
    return [p for p in found if p.title.lower() in (question.material, question.other)]


def test_no_held_out_question_shape_fact_pair_or_gap_is_taught() -> None:
    held = library_questions("heldout")
    shapes = {s.id for s in (*frames.SINGLE, *frames.COMPARISON, *frames.TWO_HOP, *frames.MULTI_HOP) if s.held_out}
    gaps = {(q.material, q.attribute) for q in held if q.kind == "unanswerable"}
    assert {q.shape for q in held} <= shapes
    for q in (*DRAWN, *library_questions("train")):
        assert q.shape not in shapes and not q.held_out
        assert not held_out_fact(q.material, q.attribute)
        assert (q.material, q.attribute) not in gaps and (q.other, q.attribute) not in gaps
        if q.other:
            assert not held_out_pair(q.material, q.other) and not held_out_fact(q.other, q.attribute)
        if q.key is not None:
            assert not held_out_fact(q.material, q.key.attribute)
            assert not held_out_hop(q.material, q.key.attribute, q.attribute)


def test_questions_in_two_steps_are_apart_in_the_two_splits_and_there_are_hundreds_of_both() -> None:
    hops = {
        split: {(q.material, q.key.attribute, q.attribute) for q in library_questions(split) if q.key is not None}
        for split in ("train", "heldout")
    }
    assert not hops["train"] & hops["heldout"]
    assert all(len(found) >= 200 for found in hops.values())
    assert all(q.key is not None and tells(q.key) for q in library_questions("heldout") if q.kind == "two-hop")


def test_every_column_of_the_suite_is_taught_and_measured() -> None:
    measured, drawn = Counter(t.column for t in library_tasks()), Counter(map(column_of, DRAWN))
    assert set(measured) == set(drawn) == set(MIX)
    assert all(drawn[column] / len(DRAWN) == pytest.approx(share / 100, abs=0.04) for column, share in MIX.items())
    assert all(count >= 100 for count in measured.values())
    assert len({t.id for t in library_tasks()} | {t.id for t in library_tasks("train")}) == len(
        library_tasks() + library_tasks("train")
    )


def test_the_same_seed_draws_the_same_questions_and_none_twice() -> None:
    assert draw_questions(100, seed=3) == DRAWN[:100] != draw_questions(100, seed=4)
    assert len({q.text for q in DRAWN}) == len(DRAWN)


def test_a_mix_draws_its_columns_alone_and_refuses_others() -> None:
    assert {q.kind for q in draw_questions(30, seed=0, mix={"two-hop": 1})} == {"two-hop"}
    with pytest.raises(ConfigError, match="'three-hop' is unknown; use single, "):
        draw_questions(1, seed=0, mix={"three-hop": 1})


def test_more_questions_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(taught._DRAWS, "single", lambda _: DRAWN[0])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="there are not 2 different"):
        draw_questions(2, seed=0, mix={"single": 1})


def test_a_file_of_questions_is_read_back_as_the_suite_asks_them(tmp_path: Path) -> None:
    write_questions(tmp_path / "new" / "questions.jsonl", DRAWN[:200])
    read = read_tasks(tmp_path / "new" / "questions.jsonl")
    assert read == [task_of(q, f"train-{n}") for n, q in enumerate(DRAWN[:200])]
    assert {t.kind for t in read} == {"exact", "comparison", "unanswerable"}


def test_what_has_no_answer_is_told_nowhere_in_its_note() -> None:
    told = {(k.fact.entity, k.fact.attribute) for m in materials() for k in m.known}
    for q in DRAWN:
        if q.kind == "unanswerable":
            sides = {(q.material, q.attribute), (q.other, q.attribute)}
            assert not (sides <= told) and (q.other or not sides & told)
    assert all(
        {a.name for a in lacking(m, "train")}.isdisjoint(a.name for a in lacking(m, "heldout")) for m in materials()
    )


@pytest.mark.parametrize("column", MIX)
def test_the_teacher_is_right_where_the_passages_hold_the_answer(store: Store, column: str) -> None:
    for question in of_column(column):
        reply = asked(question, notes(store, question))
        assert right(task_of(question, "q"), reply.answer), (question.text, reply)


@pytest.mark.parametrize("column", ["single", "numeric", "comparison", "two-hop", "multi-hop"])
def test_what_the_teacher_thinks_and_cites_stands_in_the_passages(store: Store, column: str) -> None:
    for question in of_column(column):
        passages = notes(store, question)
        reply = asked(question, passages)
        cited = [passages[int(n) - 1] for n in re.findall(r"\[(\d+)\]", reply.answer)]
        wanted = question.numbers or (question.value,)
        assert all(any(states(p.text, value) for p in cited) for value in wanted)
        assert all(f": {value}." in reply.thinking for value in wanted)


@pytest.mark.parametrize("column", MIX)
def test_without_the_passage_that_says_so_the_teacher_does_not_know(store: Store, column: str) -> None:
    for question in of_column(column):
        assert asked(question, ()).answer == NOT_IN_PASSAGES
        values = (*(question.numbers or (question.value,)), question.key.value if question.key else "")
        silent = [p for p in notes(store, question) if not any(v and states(p.text, v) for v in values)]
        assert asked(question, silent).answer == NOT_IN_PASSAGES


def test_half_of_an_answer_is_thought_and_not_told(store: Store) -> None:
    compared, hop = of_column("comparison", 1)[0], of_column("two-hop", 1)[0]
    one_side = [p for p in notes(store, compared) if p.title.lower() == compared.material]
    reply = asked(compared, one_side)
    assert reply.answer == NOT_IN_PASSAGES
    assert f"Fact: {compared.material}: {compared.attribute}: {compared.numbers[0]}.\n" in reply.thinking
    assert reply.thinking.endswith(f"Fact: {compared.other}: {compared.attribute}: none.")
    assert hop.key is not None
    first_step = [p for p in notes(store, hop) if states(p.text, hop.key.value) and not states(p.text, hop.value)]
    reply = asked(hop, first_step)
    assert reply.answer == NOT_IN_PASSAGES
    assert reply.thinking.endswith(f"{hop.key.value}: {hop.material}.\nFact: {hop.material}: {hop.attribute}: none.")


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ((), "only thinks and answers"),
        ((Message("user", "What is the hardness of nacre?"),), "only thinks and answers"),
        (prompts.draft(Grounds(question="How old is the Moon?")), "was not taught the question 'How old is the Moon"),
        (prompts.draft(Grounds(question=DRAWN[0].text), reflect=True), "only thinks and answers"),
        (prompts.judge(Grounds(question=DRAWN[0].text), a="a", b="b"), "only thinks and answers"),
    ],
)
def test_whatever_the_teacher_was_not_taught_is_an_error(messages: tuple[Message, ...], words: str) -> None:
    with pytest.raises(BackendError, match=words):
        asyncio.run(complete(LibraryTeacher(DRAWN), Request(messages=messages)))
