"""What a model file answers right of the held-out questions, column by column, by the rules of `preflexor eval`."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from preflexor_agents import prompts
from preflexor_agents.config import ReflectConfig
from preflexor_agents.evaluation.scoring import right
from preflexor_agents.evaluation.statistics import wilson
from preflexor_agents.evaluation.tasks import Task
from preflexor_agents.prompts import Grounds
from preflexor_agents.store import Store
from preflexor_training.nano.evaluate import Speaker
from preflexor_training.nano.suite import library_tasks
from preflexor_training.schedule import Watch


def measure(gguf: Path, store: Store, *, limit: int, watch: Watch) -> dict[str, Any]:
    """Ask the file greedily, with the passages that the agents would show it.

    Args:
        gguf: the model.
        store: with the notes.
        limit: most questions of a column; 0 is all.
        watch: is told how it goes.

    Returns:
        `columns` (right, of, low, high and well_formed of each), `sha256` of the file, and `limit`.
    """
    tasks = [task for column in _columns().values() for task in islice(column, limit or None)]
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    speaker = Speaker(gguf)
    try:
        for done, task in enumerate(tasks):
            watch.show(f"measuring {gguf.name}", done=done, total=len(tasks), note=task.column)
            passages = tuple(store.search(task.question, k=ReflectConfig().passages))
            reply = speaker.reply(prompts.draft(Grounds(question=task.question, passages=passages)))
            for place, counted in enumerate((right(task, reply.answer), True, reply.well_formed)):
                counts[task.column][place] += counted
    finally:
        speaker.close()
    columns = dict(_shares(counts))
    return {"columns": columns, "limit": limit, "sha256": hashlib.sha256(gguf.read_bytes()).hexdigest()}


def _columns() -> dict[str, list[Task]]:
    found: dict[str, list[Task]] = defaultdict(list)
    for task in library_tasks():
        found[task.column].append(task)
    return dict(sorted(found.items()))


def _shares(counts: dict[str, list[int]]) -> Iterator[tuple[str, dict[str, float]]]:
    for column, (good, of, well_formed) in counts.items():
        _, low, high = wilson(good, of)
        yield (
            column,
            {
                "right": good,
                "of": of,
                "low": round(low, 4),
                "high": round(high, 4),
                "well_formed": round(well_formed / of, 4),
            },
        )
