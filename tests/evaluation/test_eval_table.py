"""What results come to: shares, decisions, differences, and the tables they are shown in."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from preflexor_agents.backends.base import Request
from preflexor_agents.backends.scripted import ScriptedBackend
from preflexor_agents.errors import BackendError, InputError
from preflexor_agents.evaluation.folder import ASKED, RESULTS, EvalFolder, read_results
from preflexor_agents.evaluation.judging import Judgement, judge, standings
from preflexor_agents.evaluation.results import Result
from preflexor_agents.evaluation.systems import system
from preflexor_agents.evaluation.table import Row, differences, markdown, rows
from preflexor_agents.evaluation.tasks import Task


def result(task: str, right: bool, *, system: str = "a", seed: int = 0, column: str = "x", **more: object) -> Result:
    return Result(task=task, system=system, seed=seed, column=column, right=right, **more)  # type: ignore[arg-type]


def row(*results: Result) -> Row:
    (found,) = rows(results)
    return found


def test_accuracy_is_by_column_and_over_all() -> None:
    found = row(result("1", True), result("2", False), result("3", True, column="y"))
    assert {name: share.value for name, share in found.accuracy.items()} == pytest.approx(
        {"x": 0.5, "y": 1, "all": 2 / 3}
    )


def test_a_failed_question_counts_as_wrong_and_is_shown() -> None:
    found = row(result("1", True), result("2", False, error="gone"))
    assert (found.accuracy["x"].value, found.errors) == (0.5, 1)


def test_several_seeds_of_a_question_do_not_make_it_several_questions() -> None:
    once = row(*(result(str(n), n < 5) for n in range(10))).accuracy["x"]
    eight = row(*(result(str(n), n < 5, seed=seed) for n in range(10) for seed in range(8))).accuracy["x"]
    assert eight.value == 0.5 and eight.high - eight.low == pytest.approx(once.high - once.low, abs=0.12)


def test_the_gate_is_right_if_the_right_answer_stays() -> None:
    found = row(
        result("1", True, rounds_right=(False, True), proposed_right=(True,), accepted=(True,), changed=(True,)),
        result("2", False, rounds_right=(True, False), proposed_right=(False,), accepted=(True,), changed=(True,)),
        result("3", True, rounds_right=(True, True), proposed_right=(False,), accepted=(False,), changed=(True,)),
        result("4", True, rounds_right=(True, True), proposed_right=(True,), accepted=(False,), changed=(False,)),
        result("5", True, rounds_right=(True, True), proposed_right=(None,), accepted=(False,), changed=(False,)),
    )
    assert found.gate_accuracy is not None and found.gate_accuracy.value == pytest.approx(2 / 3)
    assert found.accept_rate is not None and found.accept_rate.value == 0.5
    assert found.change_rate is not None and found.change_rate.value == 0.6
    assert found.first_round is not None and found.first_round.value == 0.8


def test_the_oracle_takes_the_best_draft() -> None:
    found = row(result("1", False, drafts_right=(False, True)), result("2", False, drafts_right=(False, False)))
    assert found.oracle is not None and found.oracle.value == 0.5


def test_what_was_not_counted_is_none() -> None:
    found = row(result("1", True))
    assert (found.oracle, found.gate_accuracy, found.well_formed, found.citation_support) == (None, None, None, None)


def test_systems_are_compared_on_the_questions_that_both_answered() -> None:
    results = [result(str(n), n < 4) for n in range(10)] + [result(str(n), True, system="b") for n in range(8)]
    (found,) = differences(results, first="a")
    assert (found.second, found.questions, found.better, found.worse) == ("b", 8, 4, 0)
    assert found.difference.value == pytest.approx(0.5) and found.p == pytest.approx(0.125)


def test_tables_hold_every_system_and_nothing_breaks_them() -> None:
    text = markdown(rows([result("1", True, system="a|b")]))
    assert "| a\\|b | 100.0 [20.7, 100.0] | - | - |" in text


TASKS = [Task(id="1", question="Why?", kind="exact", answer="x"), Task(id="2", question="How?", kind="open")]


def folder(path: Path, *, tasks: list[Task] = TASKS, protocol: str = "think", library: str = "") -> EvalFolder:
    return EvalFolder(path, tasks, [system(f"a=nano::{protocol}")], library=library)


def test_a_folder_is_gone_on_with_and_errors_are_asked_again(tmp_path: Path) -> None:
    with folder(tmp_path) as first:
        first.add(result("1", True))
        first.add(result("2", False, error="gone"))
    with (tmp_path / RESULTS).open("ab") as file:
        file.write(b'{"task": "3", "sys')
    with folder(tmp_path) as again:
        assert again.done() == {("a", "1", 0)}
        again.add(result("2", True))
    assert {r.task: r.right for r in read_results(tmp_path)} == {"1": True, "2": True}


def test_a_system_may_be_added_to_a_folder_but_not_changed(tmp_path: Path) -> None:
    folder(tmp_path).close()
    EvalFolder(tmp_path, TASKS, [system("b=nano::answer")], library="").close()
    assert set(json.loads((tmp_path / ASKED).read_text())["systems"]) == {"a", "b"}
    with pytest.raises(InputError, match="with other settings; name another folder"):
        folder(tmp_path, protocol="paper")


@pytest.mark.parametrize(
    ("change", "words"), [({"tasks": TASKS[:1]}, "other questions"), ({"library": "b.db"}, "another store")]
)
def test_a_folder_of_another_evaluation_is_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    folder(tmp_path).close()
    with pytest.raises(InputError, match=words):
        folder(tmp_path, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["{half", "[]", "{}"])
def test_a_damaged_folder_is_one_line(tmp_path: Path, text: str) -> None:
    folder(tmp_path).close()
    (tmp_path / ASKED).write_text(text)
    with pytest.raises(InputError, match=r"eval\.json is damaged"):
        folder(tmp_path)


def test_only_one_process_writes(tmp_path: Path) -> None:
    with folder(tmp_path), pytest.raises(InputError, match="another process writes"):
        folder(tmp_path)


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no results"):
        read_results(tmp_path)


async def judged(say: str, answers: tuple[str, str] = ("short", "long")) -> list[Judgement]:
    def reply(request: Request) -> str:
        text = request.messages[-1].content
        return say if say != "long" else "Better: A" if "A:\nlong" in text else "Better: B"

    named = {task.id: task for task in TASKS}
    results = [result("2", False, system=name, answer=said) for name, said in zip("ab", answers, strict=True)]
    results.append(result("1", True, system="b", answer="never judged"))
    found: AsyncIterator[Judgement] = judge(named, results, first="a", backend=ScriptedBackend(reply))
    return [judgement async for judgement in found]


async def test_a_judge_that_looks_at_the_answer_decides() -> None:
    (found,) = await judged("long")
    assert (found.score, found.orders) == (1.0, (1.0, 1.0))
    (lost,) = await judged("long", ("long", "short"))
    assert lost.score == 0.0


@pytest.mark.parametrize("say", ["Better: A", "Better: B", "no idea"])
async def test_a_judge_that_prefers_a_place_makes_ties(say: str) -> None:
    assert [j.score for j in await judged(say)] == [0.5]


async def test_a_judge_that_fails_is_counted_apart() -> None:
    named = {task.id: task for task in TASKS}
    results = [result("2", False, system=name, answer="x") for name in "ab"]
    backend = ScriptedBackend([BackendError("gone")])
    found = [j async for j in judge(named, results, first="a", backend=backend)]
    (standing,) = standings(found)
    assert (standing.failed, standing.won, standing.tied) == (1, 0, 0) and "gone" in found[0].error


def test_standings_count_wins_ties_and_losses() -> None:
    said = [Judgement(task=str(n), seed=0, first="a", second="b", score=s) for n, s in enumerate((1, 1, 1, 0.5, 0))]
    (found,) = standings(said)
    assert (found.won, found.tied, found.lost, found.score.value) == (3, 1, 1, 0.7)
    assert found.p == pytest.approx(0.625)
