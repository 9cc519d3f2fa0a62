"""Questions about the shipped library as `preflexor eval` and forge read them."""

import random

from preflexor_agents.evaluation.tasks import Task
from preflexor_training.nano.attributes import BY_NAME
from preflexor_training.nano.frames import Split
from preflexor_training.nano.questions import Question, library_questions


def library_tasks(split: Split = "heldout") -> list[Task]:
    """Every held-out question, or those of training, of each column in a shuffled order that is always the same.

    Columns: `single` (a fact in words), `numeric` (a fact with a unit), `comparison`, `two-hop` (a fact of a material
    that is told by another fact), `multi-hop` (a comparison with such a material), `unanswerable` (a fact that the
    library does not hold).
    """
    prefix = "library" if split == "heldout" else f"library-{split}"
    tasks = [task_of(question, f"{prefix}-{n}") for n, question in enumerate(library_questions(split))]
    random.Random(5).shuffle(tasks)
    return tasks


def task_of(question: Question, id_: str) -> Task:
    """The question as a row of a suite."""
    match question.kind:
        case "comparison":
            return Task(
                id=id_,
                question=question.text,
                kind="comparison",
                answer=question.value,
                choices=(question.material, question.other),
                states=question.numbers,
                column=column_of(question),
            )
        case "unanswerable":
            return Task(id=id_, question=question.text, kind="unanswerable", column="unanswerable")
        case _:
            return Task(id=id_, question=question.text, kind="exact", answer=question.value, column=column_of(question))


def column_of(question: Question) -> str:
    """What the question is counted as."""
    if question.kind == "comparison" and question.key is not None:
        return "multi-hop"
    if question.kind == "single" and BY_NAME[question.attribute].numeric:
        return "numeric"
    return question.kind
