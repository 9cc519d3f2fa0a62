"""The held-out questions about the shipped library as a suite for `preflexor eval`."""

import random
from collections.abc import Iterator

from preflexor_agents.evaluation.tasks import Task
from preflexor_training.nano.attributes import ATTRIBUTES, BY_NAME
from preflexor_training.nano.facts import materials
from preflexor_training.nano.frames import ask_single
from preflexor_training.nano.questions import Question, library_questions


def library_tasks() -> list[Task]:
    """Every held-out question, of each column in a shuffled order that is always the same.

    Columns: `single` (a fact in words), `numeric` (a fact with a unit), `comparison`, `unanswerable` (a fact that the
    library does not hold).
    """
    tasks = [_task(number, question) for number, question in enumerate(library_questions("heldout"))]
    tasks += _unanswerable()
    random.Random(5).shuffle(tasks)
    return tasks


def _task(number: int, question: Question) -> Task:
    if question.kind == "comparison":
        names = (question.material, question.other)
        return Task(
            id=f"library-{number}",
            question=question.text,
            kind="comparison",
            answer=question.value,
            choices=names,
            states=question.numbers,
            column="comparison",
        )
    column = "numeric" if BY_NAME[question.attribute].numeric else "single"
    return Task(id=f"library-{number}", question=question.text, kind="exact", answer=question.value, column=column)


def _unanswerable() -> Iterator[Task]:
    """One question for each material, about what its note does not say."""
    for material in materials():
        rng = random.Random(f"{material.name}|missing")
        told = {known.fact.attribute for known in material.known}
        attribute = rng.choice([a for a in ATTRIBUTES if a.name not in told and a.numeric])
        asked = ask_single(rng, attribute, material.name, split="heldout")
        yield Task(
            id=f"library-missing-{material.name}", question=asked.text, kind="unanswerable", column="unanswerable"
        )
