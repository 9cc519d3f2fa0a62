"""What the results show and what they do not: rows compared question by question, and the verdict in words."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from preflexor_agents.evaluation.results import Result
from preflexor_agents.evaluation.statistics import Interval, Paired, paired, wilson
from preflexor_agents.evaluation.table import percent, points

ALL = "all"
LEAST_COLUMNS = 2
"""Columns with separate intervals that make a claim shown."""
LEVEL = 0.05


class Compared(NamedTuple):
    """Two rows on the questions of a column that both were asked."""

    column: str
    questions: int
    first: Interval
    second: Interval
    paired: Paired

    def is_separate(self) -> bool:
        """Whether the second row's interval lies above the first one's."""
        return self.first.high < self.second.low

    def is_reversed(self) -> bool:
        """Whether it lies below."""
        return self.second.high < self.first.low


def compared(first: Sequence[Result], second: Sequence[Result]) -> list[Compared]:
    """By column, and over all of them if there are several; answers to one question are averaged over the seeds."""
    a, b = _means(first), _means(second)
    places = {result.task: result.column for result in first if result.task in b}
    columns: dict[str, list[str]] = defaultdict(list)
    for task, column in places.items():
        columns[column].append(task)
    if len(columns) > 1:
        columns[ALL] = [task for tasks in columns.values() for task in tasks]
    return [
        Compared(
            name,
            len(tasks),
            wilson(sum(a[task] for task in tasks), len(tasks)),
            wilson(sum(b[task] for task in tasks), len(tasks)),
            paired([a[task] for task in tasks], [b[task] for task in tasks]),
        )
        for name, tasks in columns.items()
    ]


def _means(results: Sequence[Result]) -> Mapping[str, float]:
    found: dict[str, list[bool]] = defaultdict(list)
    for result in results:
        found[result.task].append(result.right)
    return {task: sum(right) / len(right) for task, right in found.items()}


def first_round(results: Sequence[Result]) -> list[Result]:
    """The same runs, by the answer that stood after the first round."""
    return [replace(r, right=r.rounds_right[0]) for r in results if r.rounds_right]


def holm(ps: Sequence[float]) -> list[float]:
    """Each p for as many tests as there are (Holm 1979), in the order of the tests."""
    found = [0.0] * len(ps)
    largest = 0.0
    for place, at in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - place) * ps[at]))
        found[at] = largest
    return found


def is_over(name: str, found: Sequence[Compared]) -> str:
    """Whether the second row is better than the first: with separate intervals in at least two columns."""
    columns = [c for c in found if c.column != ALL]
    better = [c for c in columns if c.is_separate()]
    worse = [c for c in columns if c.is_reversed()]
    overlapping = [c for c in columns if c not in better and c not in worse]
    verdict = "shown" if len(better) >= LEAST_COLUMNS else "not shown"
    if worse:
        verdict += ", and worse elsewhere" if better else ", and worse"
    parts = [f"separate intervals in {_count(better, columns)}{_listed(better)}"]
    if worse:
        parts.append(f"**worse** with separate intervals in {_count(worse, columns)}{_listed(worse)}")
    if overlapping:
        parts.append(f"the intervals overlap in {_count(overlapping, columns)}{_listed(overlapping)}")
    by_pairs = [
        c for c, p in zip(columns, holm([c.paired.p for c in columns]), strict=True) if p < LEVEL and c in overlapping
    ]
    if by_pairs:
        parts.append(f"of these the paired test tells apart {', '.join(_signed(c) for c in by_pairs)}")
    return f"**{name}: {verdict}.** {_sentence('; '.join(parts))}"


def is_kept(name: str, found: Sequence[Compared]) -> str:
    """Whether rounds made answers worse than the first one of the same run; the interval is that of the difference."""
    worse = [c for c in found if c.paired.difference.high < 0]
    better = [c for c in found if c.paired.difference.low > 0]
    whole = next((c for c in found if c.column == ALL), found[0])
    verdict = "worse" if worse else "not worse"
    parts = [f"accuracy changes by {points(whole.paired.difference)} points over {whole.questions} questions"]
    parts.append(f"{whole.paired.better} answers became right and {whole.paired.worse} wrong, p = {whole.paired.p:.2g}")
    if not worse:
        unseen = wilson(whole.paired.worse, whole.questions).high - whole.paired.better / whole.questions
        least = 100 * max(unseen, -whole.paired.difference.low)
        parts.append(f"a loss of up to {least:.1f} points is not excluded")
    if worse:
        parts.append(f"below round 1 by more than the interval in {', '.join(_signed(c) for c in worse)}")
    if better:
        parts.append(f"above it by more than the interval in {', '.join(_signed(c) for c in better)}")
    return f"**{name}: {verdict} than round 1.** {_sentence('; '.join(parts))}"


def changes(name: str, found: Sequence[Compared]) -> str:
    """What a change of the training, or of the protocol at the same cost, does; no direction is claimed."""
    whole = next((c for c in found if c.column == ALL), found[0])
    difference = whole.paired.difference
    told = (
        "no difference shown" if difference.low <= 0 <= difference.high else "better" if difference.low > 0 else "worse"
    )
    apart = [c for c in found if c.column != ALL and (c.is_separate() or c.is_reversed())]
    text = f"{points(difference)} points over {whole.questions} questions, p = {whole.paired.p:.2g}"
    if apart:
        text += f"; separate intervals in {', '.join(_signed(c) for c in apart)}"
    return f"**{name}: {told}.** {_sentence(text)}"


def _count(some: Sequence[Compared], of: Sequence[Compared]) -> str:
    return f"{len(some)} of {len(of)} columns"


def _listed(some: Sequence[Compared]) -> str:
    if not some:
        return ""
    return f" ({', '.join(f'{c.column} {percent(c.first)} → {percent(c.second)}' for c in some)})"


def _signed(one: Compared) -> str:
    return f"{one.column} {points(one.paired.difference)}, p = {one.paired.p:.2g}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
