"""Knights and knaves: puzzles with exactly one solution, and the same ones every time."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preflexor_agents.evaluation.puzzles import MOST_OF_TWO, Saying, puzzles, solutions

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "knights-knaves"
FORMS = {"<=>": "iff", "or": "or", "and": "and", "->": "if"}


@pytest.mark.parametrize("people", [2, 3, 5, 8])
def test_puzzles_are_different_and_name_everybody(people: int) -> None:
    made = list(puzzles(20, people=people, seed=3))
    assert len({task.question for task in made}) == len({task.id for task in made}) == 20
    for task in made:
        names = [line.partition("=")[0] for line in task.answer.splitlines()]
        assert len(set(names)) == people and all(f'{name} says: "' in task.question for name in names)


def test_a_seed_gives_the_same_puzzles_and_another_others() -> None:
    first, again, other = (list(puzzles(5, people=3, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_a_puzzle_is_solved_by_trying_all() -> None:
    says_b_is_knave, says_both_same = Saying("is", ((1, False),)), Saying("iff", ((0, True), (1, True)))
    assert solutions((says_b_is_knave, says_both_same)) == [(True, False)]
    assert solutions((Saying("is", ((1, True),)), Saying("is", ((0, True),)))) == [(True, True), (False, False)]


@pytest.mark.parametrize("people", [1, 9])
def test_too_few_or_too_many_people_are_refused(people: int) -> None:
    with pytest.raises(ValueError, match=f"people is {people}; it must be 2 to 8"):
        next(puzzles(1, people=people))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/knights-knaves")
@pytest.mark.parametrize("size", ["3ppl", "5ppl"])
def test_the_solver_finds_the_published_solutions(size: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for row in parquet.read_table(DATA / size / "train.parquet", columns=["statements", "solution"]).to_pylist():
        said = [tuple(_claims(form)) for form in ast.literal_eval(row["statements"])]
        if any(not claims for claims in said):
            continue
        sayings = [Saying(form, claims) for ((form, claims),) in said]
        assert solutions(sayings) == [tuple(row["solution"])]


def _claims(said: Any) -> Iterator[tuple[str, tuple[tuple[int, bool], ...]]]:
    """The published form in ours; nothing for nested ones."""
    flat = [part for part in said[1:] if isinstance(part, tuple)]
    if said[0] in ("telling-truth", "lying"):
        yield "is", ((said[1], said[0] == "telling-truth"),)
    elif said[0] == "not" and flat[0][0] in ("telling-truth", "lying"):
        yield "is", ((flat[0][1], flat[0][0] == "lying"),)
    elif said[0] in FORMS and len(flat) == 2 and all(part[0] in ("telling-truth", "lying") for part in flat):
        yield FORMS[said[0]], tuple((part[1], part[0] == "telling-truth") for part in flat)


def test_with_two_people_there_are_so_many_puzzles_and_no_more() -> None:
    assert len({task.id for task in puzzles(MOST_OF_TWO, people=2)}) == MOST_OF_TWO
    with pytest.raises(ValueError, match=f"count is {MOST_OF_TWO + 1}; with two people there are {MOST_OF_TWO}"):
        next(puzzles(MOST_OF_TWO + 1, people=2))
