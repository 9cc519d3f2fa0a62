"""Questions that come from a file, with their answers where these are known."""

from dataclasses import dataclass
from pathlib import Path

from preflexor_agents.evaluation.tasks import Task, read_tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a row asks."""

    text: str
    gold: str = ""
    """The known answer, if there is one."""
    task: Task | None = None
    """What it was read from, which says how an answer is told right; None if a teacher wrote it."""

    @property
    def is_unanswerable(self) -> bool:
        """Whether it is known that to decline is the right answer."""
        return self.task is not None and self.task.kind == "unanswerable"


def read_questions(path: Path) -> tuple[Question, ...]:
    """The questions of a file in any of the shapes that evaluation reads, as `{"question": …, "answer": …}` lines.

    Raises:
        InputError: the file cannot be read, holds none, or a row is no question; names the row.
    """
    return tuple(
        Question(text=_storable(task.prompt()), gold=_storable(task.answer), task=task) for task in read_tasks(path)
    )


def _storable(text: str) -> str:
    """Halves of surrogate pairs, which JSON can spell and UTF-8 cannot, as question marks."""
    return text.encode("utf-8", "replace").decode("utf-8").strip()
