"""What the table of results asks: its rows, its questions, how many of them, and what an equal budget is spent on."""

import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from preflexor_agents.errors import InputError
from preflexor_agents.evaluation.puzzles import MOST_OF_TWO, puzzles
from preflexor_agents.evaluation.tasks import Task, read_tasks

LOGIC_RL = Path(__file__).resolve().parents[2] / "shared" / "data" / "knights-knaves" / "3ppl" / "train.parquet"
PHASES: Mapping[str, str] = {"base": "base", "phase1": "Phase I", "phase2": "Phase II"}
"""Options that name a model, and what it is called on the page."""
ORDER = ("single", "numeric", "comparison", "two-hop", "multi-hop", "unanswerable")
PUZZLE_PART = 3
"""Of puzzles one for so many questions of another column: all they tell is whether anything carries over."""
PILOT = 5
"""So many questions of each column are asked of every row first; what they cost decides the equal budgets."""
PARTS = 8
"""The rest goes in so many parts, each through all rows, so that a run that is cut short compares all of them."""
ROUNDS = 4
"""Of the runs with and without gate; what stood after fewer rounds is read from the same runs."""
SHOWN_ROUNDS = 3
"""Of these runs in the table, as the published loop has."""
BEST_OF = 4
MOST_DRAFTS = 16

Kind = Literal["draft", "loop", "equal", "sweep", "seeds"]
"""What a row is there for; of `seeds`, what drafts have in common that were written with other seeds."""
Key = tuple[str, int]
"""A question and a seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row: a model under a protocol."""

    label: str
    model: str
    """`base`, `phase1`, `phase2` or the name of an ablation."""
    protocol: str
    kind: Kind
    rounds: int | None = None
    """Show it as if it had ended after so many rounds."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Questions of each column."""

    draft: int
    """Of rows that write one draft."""
    loop: int
    """Of rows with rounds or candidates, at either budget."""
    sweep: int

    @classmethod
    def of(cls, questions: int) -> "Sizes":
        """A draft costs about a tenth of a loop, so three times as many questions are asked of rows that write one."""
        return cls(questions, math.ceil(questions / 3), math.ceil(questions * 4 / 15))

    def count(self, kind: Kind) -> int:
        return {"draft": self.draft, "loop": self.loop, "equal": self.loop}.get(kind, self.sweep)


@dataclass(frozen=True, slots=True)
class Suite:
    """The questions, by column."""

    columns: Mapping[str, tuple[Task, ...]]
    puzzles: frozenset[str]
    """Columns that are asked without the library, which holds nothing about them."""

    def tasks(self) -> list[Task]:
        return [task for tasks in self.columns.values() for task in tasks]

    def of(self, column: str, count: int) -> tuple[Task, ...]:
        """The first so many; of puzzles fewer."""
        return self.columns[column][: math.ceil(count / PUZZLE_PART) if column in self.puzzles else count]


def suite() -> Suite:
    """The held-out questions about the library, and puzzles."""
    from preflexor_training.nano.suite import library_tasks

    found: dict[str, list[Task]] = {}
    for task in library_tasks():
        found.setdefault(task.column, []).append(task)
    columns = {name: tuple(found[name]) for name in sorted(found, key=lambda name: (_place(name), name))}
    others = {"knights, 2 people": list(puzzles(MOST_OF_TWO, people=2))}
    if LOGIC_RL.is_file():
        rows = read_tasks(LOGIC_RL)
        others["Logic-RL, 3 people"] = random.Random(0).sample(rows, min(200, len(rows)))
    for name, tasks in others.items():
        columns[name] = tuple(replace(task, column=name) for task in tasks)
    return Suite(columns, frozenset(others))


def only(suite: Suite, columns: Collection[str]) -> Suite:
    """Some columns of it, all if none are named.

    Raises:
        InputError: there is no such column; names those that there are.
    """
    if unknown := [name for name in columns if name not in suite.columns]:
        raise InputError(f"there is no column {unknown[0]!r}; there are: {'; '.join(suite.columns)}")
    return Suite(
        {name: tasks for name, tasks in suite.columns.items() if name in columns or not columns}, suite.puzzles
    )


def _place(column: str) -> int:
    return ORDER.index(column) if column in ORDER else len(ORDER)


def entries(models: Collection[str]) -> list[Entry]:
    """The rows for the models that there are, equal budgets left out. The best-trained one runs the loops."""
    top = top_of(models)
    found = [Entry(label="base", model="base", protocol="answer", kind="draft")]
    found.append(Entry(label="base, thinking", model="base", protocol="think", kind="draft"))
    found += [
        Entry(label=name, model=key, protocol="think", kind="draft")
        for key, name in PHASES.items()
        if key != "base" and key in models
    ]
    if "phase2" in models:
        found.append(Entry(label="Phase II, no thinking", model="phase2", protocol="answer", kind="draft"))
    found += [
        Entry(label=f"ablation: {key}", model=key, protocol="think", kind="draft")
        for key in models
        if key not in PHASES
    ]
    found.append(Entry(label="base, default loop", model="base", protocol="default", kind="loop"))
    for name, protocol in _LOOPS.items():
        rounds = SHOWN_ROUNDS if f"rounds={ROUNDS}" in protocol else None
        found.append(Entry(label=f"{PHASES[top]} + {name}", model=top, protocol=protocol, kind="loop", rounds=rounds))
    for n in (2, 8):
        found.append(Entry(label=f"best of {n}", model=top, protocol=f"best-of:candidates={n}", kind="sweep"))
    found += [replace(entry, kind="seeds") for entry in found if entry.protocol == "think" and entry.model in PHASES]
    return found


RECURSION, GATE, REVISE, CHOICE, BOTH = "recursion", "gate", "always revise", f"best of {BEST_OF}", "gate, best of 4"
_LOOPS: Mapping[str, str] = {
    RECURSION: "paper",
    GATE: f"gate:rounds={ROUNDS}",
    REVISE: f"revise:rounds={ROUNDS}",
    CHOICE: f"best-of:candidates={BEST_OF}",
    BOTH: f"gate:candidates={BEST_OF}",
}


def top_of(models: Collection[str]) -> str:
    """The model that was trained furthest."""
    return next(key for key in reversed(PHASES) if key in models)


class Budget(NamedTuple):
    """What all rows may spend on a question."""

    tokens: int
    limit: bool
    """Whether it is a limit that was given, and not what the dearest row came to."""
    dearest: str
    entries: tuple[Entry, ...]


def is_counted(entry: Entry) -> bool:
    """Whether what it costs decides the equal budgets."""
    return entry.kind == "loop" or (entry.kind == "draft" and entry.protocol == "think" and entry.model in PHASES)


def at_equal_budget(listed: Sequence[Entry], tokens: Callable[[Entry], float], *, given: int | None = None) -> Budget:
    """The rows once more, each with as many drafts to choose from as bring its cost to that of the dearest one.

    A hard limit at the dearest row's mean would cut that row in every second question, and it alone; so the means are
    made equal instead. A limit that was given holds for every question of every row, the bare answer excepted.

    Args:
        listed: the rows as they come.
        tokens: what a question costs a row, the mean of what was written.
        given: a limit instead of the dearest row's mean.
    """
    listed = [entry for entry in listed if entry.kind in ("draft", "loop")]
    loops = [entry for entry in listed if entry.kind == "loop"]
    dearest = max(loops, key=tokens)
    target = given or round(tokens(dearest))
    named = {entry.label: entry for entry in listed}
    top = next(entry.model for entry in loops if entry.protocol == "paper")
    thinking = {entry.model: entry for entry in listed if entry.protocol == "think" and entry.model in PHASES}
    one = tokens(thinking[top])
    draft = max(1.0, tokens(named[f"{PHASES[top]} + {CHOICE}"]) - one) / (BEST_OF - 1)
    found = [replace(named["base"], kind="equal")]
    for entry in thinking.values():
        n = _drafts(target, tokens(entry), draft * tokens(entry) / max(1.0, one))
        found.append(_with(entry, n, "best-of", given, label=entry.label))
    for entry in loops:
        if f"candidates={BEST_OF}" not in entry.protocol:
            each = draft * tokens(thinking[entry.model]) / max(1.0, one)
            kind = entry.protocol.partition(":")[0]
            found.append(_with(entry, _drafts(target, tokens(entry), each), kind, given, label=entry.label))
    return Budget(target, given is not None, "" if given else dearest.label, tuple(found))


def _drafts(target: float, one: float, each: float) -> int:
    return min(MOST_DRAFTS, 1 + max(0, round((target - one) / max(1.0, each))))


def _with(entry: Entry, drafts: int, kind: str, limit: int | None, *, label: str) -> Entry:
    if drafts == 1 and limit is None:
        return replace(entry, kind="equal")
    changes = [f"candidates={drafts}"] * (drafts > 1) + [f"budget_tok={limit}"] * (limit is not None)
    many = f", {drafts} drafts" if drafts > 1 else ""
    kind = "think" if kind == "best-of" and drafts == 1 else kind
    return Entry(label=label + many, model=entry.model, protocol=f"{kind}:{','.join(changes)}", kind="equal")


class Job(NamedTuple):
    """Questions that are put to a row with the same seeds."""

    entry: Entry
    tasks: tuple[Task, ...]
    seeds: tuple[int, ...]
    with_library: bool

    def asked(self) -> list[Key]:
        return [(task.id, seed) for task in self.tasks for seed in self.seeds]


def jobs(entry: Entry, suite: Suite, sizes: Sizes, seeds: Sequence[int], *, part: int | None = None) -> Iterator[Job]:
    """What a row is asked, all of it or one part.

    A question is asked with one of the seeds, in turn: for the same time, more questions tell more than more answers to
    one. Only where seeds are compared it is asked with all.

    Args:
        entry: the row.
        suite: all questions.
        sizes: questions of each column.
        seeds: of the runs.
        part: 0 is the pilot, then 1 to PARTS.
    """
    for with_library in (True, False):
        mine: list[tuple[int, Task]] = []
        for column in suite.columns:
            if (column not in suite.puzzles) != with_library:
                continue
            asked = suite.of(column, sizes.count(entry.kind))
            first, last = _slice(len(asked), part)
            mine += [(number, asked[number]) for number in range(first, last)]
        if entry.kind == "seeds":
            groups = [(tuple(seeds), [task for _, task in mine])]
        else:
            turns = range(len(seeds))
            groups = [((seeds[at],), [task for n, task in mine if n % len(seeds) == at]) for at in turns]
        for with_seeds, tasks in groups:
            if tasks:
                yield Job(entry, tuple(tasks), with_seeds, with_library)


def _slice(count: int, part: int | None) -> tuple[int, int]:
    if part is None:
        return 0, count
    ends = [0, min(PILOT, count)]
    ends += [max(ends[1], count * n // PARTS) for n in range(1, PARTS + 1)]
    return ends[part], ends[part + 1]
