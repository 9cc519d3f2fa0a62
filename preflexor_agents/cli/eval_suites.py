"""Where an evaluation takes its questions from: files, the shipped library, and puzzles made to measure."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from preflexor_agents.errors import InputError
from preflexor_agents.evaluation.puzzles import FEWEST, MOST, MOST_OF_TWO, puzzles
from preflexor_agents.evaluation.tasks import Task, read_tasks

SUITES = "a file of questions, library[:COLUMN,…] or knights[:PEOPLE[:COUNT]]"
_PUZZLES = 100


def gather(suites: Sequence[str], *, limit: int | None, seed: int) -> list[Task]:
    """The questions of all suites; with a limit so many of each column, drawn by the seed.

    Raises:
        InputError: a suite is none, or two of them have a question with the same id.
    """
    tasks: dict[str, Task] = {}
    for suite in suites:
        for task in _suite(suite, seed=seed):
            if task.id in tasks:
                raise InputError(f"suite {suite!r} has the id {task.id!r} of another suite; rename one")
            tasks[task.id] = task
    if limit is None:
        return list(tasks.values())
    columns: dict[str, list[Task]] = {}
    for task in tasks.values():
        columns.setdefault(task.column, []).append(task)
    drawn = [random.Random(f"{seed}|{name}").sample(mine, min(limit, len(mine))) for name, mine in columns.items()]
    return [task for mine in drawn for task in mine]


def _suite(suite: str, *, seed: int) -> list[Task]:
    kind, _, rest = suite.partition(":")
    if Path(suite).expanduser().is_file():
        return read_tasks(Path(suite).expanduser())
    match kind:
        case "library":
            return _library(rest)
        case "knights":
            return _knights(rest, seed=seed)
    raise InputError(f"suite {suite!r} is neither a file nor a known suite; use {SUITES}")


def _library(columns: str) -> list[Task]:
    from preflexor_training.nano.suite import library_tasks

    tasks = library_tasks()
    wanted, known = [c for c in columns.split(",") if c], {task.column for task in tasks}
    for column in wanted:
        if column not in known:
            raise InputError(f"the library suite has no column {column!r}; it has {', '.join(sorted(known))}")
    return [task for task in tasks if not wanted or task.column in wanted]


def _knights(rest: str, *, seed: int) -> list[Task]:
    people, _, count = rest.partition(":")
    try:
        many, number = int(people or 3), int(count or _PUZZLES)
    except ValueError:
        raise InputError(f"suite 'knights:{rest}' is not knights:PEOPLE:COUNT, as knights:3:100") from None
    if not FEWEST <= many <= MOST or not 1 <= number <= 10_000 or (many == FEWEST and number > MOST_OF_TWO):
        raise InputError(
            f"suite 'knights:{rest}': {FEWEST} to {MOST} people, 1 to 10000 puzzles (of 2 people {MOST_OF_TWO})"
        )
    return [replace(task, column=f"knights, {task.column}") for task in puzzles(number, people=many, seed=seed)]
