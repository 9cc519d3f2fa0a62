"""What was measured, as one value: the rows with their results, the sweeps, and which rows are compared."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from results_claims import Compared, changes, compared, first_round, is_kept, is_over
from results_plan import BEST_OF, CHOICE, GATE, PHASES, RECURSION, REVISE, Budget, Entry
from results_run import Asking, Model

from preflexor_agents.evaluation.results import Result
from preflexor_agents.evaluation.statistics import Interval, wilson
from preflexor_agents.evaluation.table import Row, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything that the page is made of."""

    found: Mapping[Entry, Sequence[Result]]
    """The results of each row, under its label."""
    by_round: Mapping[str, Sequence[Sequence[Result]]]
    """With the gate and without: the same runs as if they had ended after one round, two, and so on."""
    budget: Budget | None
    columns: tuple[str, ...]
    models: tuple[Model, ...]
    how: Asking
    command: str
    machine: str
    missing: int
    """Answers that are not there yet."""

    @property
    def top(self) -> str:
        """The model that runs the loops."""
        return next(entry.model for entry in self.found if entry.protocol == "paper")

    def of(self, *kinds: str) -> list[Entry]:
        """The rows that have results."""
        return [entry for entry, results in self.found.items() if entry.kind in kinds and results]

    def named(self, label: str) -> Sequence[Result]:
        """The results of a row at its own cost; none if there is no such row."""
        return next((self.found[entry] for entry in self.of("draft", "loop", "sweep") if entry.label == label), ())


class Comparison(NamedTuple):
    """Two rows on the same questions, and the verdict on them."""

    name: str
    compared: Sequence[Compared]
    verdict: str


class Pair(NamedTuple):
    """Two rows that are to be compared, and in which words."""

    name: str
    first: Sequence[Result]
    second: Sequence[Result]
    verdict: str


VERDICTS = {"over": is_over, "kept": is_kept, "changes": changes}


def comparisons(m: Measured) -> list[Comparison]:
    """Every comparison for which there are results."""
    made = []
    for pair in (*_training(m), *_protocols(m), *_at_equal_budget(m), *_ablations(m)):
        if found := compared(pair.first, pair.second):
            made.append(Comparison(pair.name, found, VERDICTS[pair.verdict](pair.name, found)))
    return made


def _training(m: Measured) -> list[Pair]:
    base, thinking, phase_1, phase_2 = map(m.named, ("base", "base, thinking", "Phase I", "Phase II"))
    return [
        Pair("Phase I over base", base, phase_1, "over"),
        Pair("Phase I over base, both thinking", thinking, phase_1, "over"),
        Pair("Phase II over Phase I", phase_1, phase_2, "over"),
        Pair("Phase II over base", base, phase_2, "over"),
        Pair("Phase II over base, both thinking", thinking, phase_2, "over"),
        Pair("Base: thinking against none", base, thinking, "changes"),
        Pair("Phase II: thinking against none", m.named("Phase II, no thinking"), phase_2, "changes"),
    ]


def draft_of(m: Measured) -> str:
    """The row with one draft of the model that runs the loops."""
    return "base, thinking" if m.top == "base" else PHASES[m.top]


def _protocols(m: Measured) -> list[Pair]:
    runs = {what: m.named(f"{PHASES[m.top]} + {what}") for what in (GATE, REVISE, RECURSION, CHOICE)}
    one = m.named(draft_of(m))
    return [
        Pair("The gate", first_round(runs[GATE]), runs[GATE], "kept"),
        Pair("Always revising", first_round(runs[REVISE]), runs[REVISE], "kept"),
        Pair("Recursion as published", first_round(runs[RECURSION]), runs[RECURSION], "kept"),
        Pair("The gate against always revising", runs[REVISE], runs[GATE], "changes"),
        Pair(f"Best of {BEST_OF} against one draft", one, runs[CHOICE], "changes"),
    ]


def _at_equal_budget(m: Measured) -> list[Pair]:
    """What has rounds against drafts alone."""
    mine = [entry for entry in m.of("equal") if entry.model == m.top and entry.protocol != "answer"]
    single = next((entry for entry in mine if entry.protocol.startswith(("best-of", "think"))), None)
    return [
        Pair(f"At equal budgets: {entry.label} against {single.label}", m.found[single], m.found[entry], "changes")
        for entry in mine
        if single is not None and entry is not single
    ]


def _ablations(m: Measured) -> list[Pair]:
    ours = draft_of(m)
    return [
        Pair(f"{entry.label[:1].upper()}{entry.label[1:]} against {ours}", m.named(ours), m.found[entry], "changes")
        for entry in m.of("draft")
        if entry.model not in PHASES
    ]


class Seeds(NamedTuple):
    """What drafts to the same questions, written with each seed, have in common."""

    label: str
    questions: int
    by_seed: Mapping[int, Interval]
    """Accuracy with each."""
    split: Interval
    """Share of the questions that were answered rightly with one seed and wrongly with another."""


def by_seed(m: Measured) -> list[Seeds]:
    """For each row whose questions were asked with every seed; those that were not yet are left out."""
    made = []
    for entry in m.of("seeds"):
        right: dict[str, dict[int, bool]] = defaultdict(dict)
        for result in m.found[entry]:
            right[result.task][result.seed] = result.right
        whole = [found for found in right.values() if len(found) == len(m.how.seeds)]
        if whole:
            shares = {seed: wilson(sum(found[seed] for found in whole), len(whole)) for seed in m.how.seeds}
            split = wilson(sum(len(set(found.values())) > 1 for found in whole), len(whole))
            made.append(Seeds(entry.label, len(whole), shares, split))
    return made


class Point(NamedTuple):
    """One place of a sweep."""

    at: int
    row: Row


def drafts_sweep(m: Measured) -> list[Point]:
    """By number of drafts, over the questions that were asked with each."""
    choices = {"think": 1, **{f"best-of:candidates={n}": n for n in (2, BEST_OF, 8)}}
    mine = [entry for entry in m.of("draft", "loop", "sweep") if entry.model == m.top and entry.protocol in choices]
    runs = {choices[entry.protocol]: m.found[entry] for entry in mine}
    if len(runs) < 2:
        return []
    shared = set.intersection(*({(r.task, r.seed) for r in results} for results in runs.values()))
    points = [(n, [r for r in runs[n] if (r.task, r.seed) in shared]) for n in sorted(runs)]
    return [Point(n, row_of(results)) for n, results in points if results]


def rounds_sweep(runs: Sequence[Sequence[Result]]) -> list[Point]:
    """By number of rounds; `runs` are the same runs, cut after one round, two, and so on."""
    return [Point(n, row_of(results)) for n, results in enumerate(runs, 1) if results]


def row_of(results: Sequence[Result]) -> Row:
    """The row of results that have the same label."""
    (row,) = rows(results)
    return row


def overall(row: Row) -> Interval:
    """Accuracy over all columns of a row, or in the only one."""
    return row.accuracy.get("all", next(iter(row.accuracy.values())))
