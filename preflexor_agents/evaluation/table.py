"""Results folded into rows of a table: a system each, with intervals; as values, as Markdown and as JSON."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from preflexor_agents.evaluation.judging import Standing
from preflexor_agents.evaluation.results import Result
from preflexor_agents.evaluation.statistics import Interval, paired, wilson

NONE = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One system over all its questions and seeds. A share is None where there was nothing to count."""

    system: str
    results: int
    errors: int
    accuracy: Mapping[str, Interval] = field(default_factory=dict)
    """Of each column of questions; `all` is over all of them. Wilson over questions."""
    first_round: Interval | None = None
    """Accuracy of the answer that stood after round 1, where there were more rounds."""
    oracle: Interval | None = None
    """Accuracy if the best of several drafts were always picked."""
    well_formed: Interval | None = None
    thinking_words: float | None = None
    """Mean words of the first draft's thinking."""
    citation_support: Interval | None = None
    """Share of the answers' sentences whose quote stands in a document."""
    accept_rate: Interval | None = None
    """Share of proposed revisions that were taken."""
    change_rate: Interval | None = None
    """Share of rounds whose proposal said other words than the answer before."""
    gate_accuracy: Interval | None = None
    """Share of right decisions where exactly one of incumbent and proposal was right."""
    tokens_prompt: float = 0.0
    """Means for each question, as are the following."""
    tokens_cached: float = 0.0
    tokens_generated: float = 0.0
    calls: float = 0.0
    seconds: float = 0.0


def rows(results: Iterable[Result]) -> list[Row]:
    """A row for each system, in the order in which they first appear. A result with an error counts as wrong."""
    by_system: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_system[result.system].append(result)
    return [_row(system, found) for system, found in by_system.items()]


def _row(system: str, results: Sequence[Result]) -> Row:
    columns: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        columns[result.column].append(result)
    if len(columns) > 1:
        columns["all"] = list(results)
    several = [r for r in results if len(r.rounds_right) > 1]
    choices = [r for r in results if len(r.drafts_right) > 1]
    formed = [r.well_formed for r in results if r.well_formed is not None]
    thought = [len(r.thinking.split()) for r in results if r.well_formed is not None]
    proposed = [(taken, right) for r in results for taken, right in zip(r.accepted, r.proposed_right, strict=True)]
    taken = [accepted for accepted, right in proposed if right is not None]
    decided = list(_decisions(results))
    return Row(
        system=system,
        results=len(results),
        errors=sum(bool(r.error) for r in results),
        accuracy={name: share(found, [r.right for r in found]) for name, found in columns.items()},
        first_round=share(several, [r.rounds_right[0] for r in several]) if several else None,
        oracle=share(choices, [any(r.drafts_right) for r in choices]) if choices else None,
        well_formed=_counted(formed),
        thinking_words=sum(thought) / len(thought) if thought else None,
        citation_support=_counted_of(sum(r.supported for r in results), sum(r.claims for r in results)),
        accept_rate=_counted(taken),
        change_rate=_counted([c for r in results for c in r.changed]),
        gate_accuracy=_counted(decided),
        **{name: _mean([getattr(r, name) for r in results]) for name in _COSTS},
    )


_COSTS = ("tokens_prompt", "tokens_cached", "tokens_generated", "calls", "seconds")


def _decisions(results: Iterable[Result]) -> Iterable[bool]:
    """Of each round in which one of the two answers was right and the other was not: whether the right one stayed."""
    for result in results:
        for number, proposal in enumerate(result.proposed_right):
            before = result.rounds_right[number]
            if proposal is not None and proposal != before:
                yield result.accepted[number] == proposal


def share(results: Sequence[Result], right: Sequence[bool]) -> Interval:
    """The share that is right; several answers to one question count as one, with their mean.

    So more seeds make no interval narrower, and all or nothing is not taken for certain.
    """
    by_task: dict[str, list[float]] = defaultdict(list)
    for result, is_right in zip(results, right, strict=True):
        by_task[result.task].append(float(is_right))
    return wilson(sum(map(_mean, by_task.values())), len(by_task))


def _counted(found: Sequence[bool]) -> Interval | None:
    return _counted_of(sum(found), len(found))


def _counted_of(right: int, of: int) -> Interval | None:
    return wilson(right, of) if of else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One system against another on the same questions."""

    first: str
    second: str
    questions: int
    difference: Interval
    """Accuracy of the second minus that of the first."""
    p: float
    better: int
    worse: int


def differences(results: Iterable[Result], *, first: str) -> list[Difference]:
    """Each other system against `first`, over the questions that both answered; several seeds are averaged."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        scores[result.system][result.task].append(float(result.right))
    found = []
    for system in scores:
        shared = [task for task in scores[first] if task in scores[system]]
        if system == first or not shared:
            continue
        a, b = ([_mean(scores[name][task]) for task in shared] for name in (first, system))
        test = paired(a, b)
        found.append(
            Difference(
                first=first,
                second=system,
                questions=len(shared),
                difference=test.difference,
                p=test.p,
                better=test.better,
                worse=test.worse,
            )
        )
    return found


def markdown(found: Sequence[Row], differences: Sequence[Difference] = ()) -> str:
    """Accuracy, then form and decisions, then cost; a table each, and the differences, if there are some."""
    columns = list(dict.fromkeys(name for row in found for name in row.accuracy))
    parts = [
        "Accuracy in % with its 95 % interval.",
        grid(
            ["system", *columns, "round 1", "oracle"],
            [
                [
                    row.system,
                    *(percent(row.accuracy.get(name)) for name in columns),
                    percent(row.first_round),
                    percent(row.oracle),
                ]
                for row in found
            ],
        ),
        "Form, citations and decisions in %; thinking in words.",
        grid(
            ["system", "well-formed", "thinking", "cited", "accepted", "changed", "gate right"],
            [
                [
                    row.system,
                    percent(row.well_formed),
                    NONE if row.thinking_words is None else f"{row.thinking_words:.0f}",
                    *map(percent, (row.citation_support, row.accept_rate, row.change_rate, row.gate_accuracy)),
                ]
                for row in found
            ],
        ),
        "Cost of a question: means.",
        grid(
            ["system", "calls", "tokens read", "from cache", "tokens written", "seconds", "questions", "errors"],
            [
                [
                    row.system,
                    f"{row.calls:.1f}",
                    *(f"{tok:.0f}" for tok in (row.tokens_prompt, row.tokens_cached, row.tokens_generated)),
                    f"{row.seconds:.2f}",
                    str(row.results),
                    str(row.errors),
                ]
                for row in found
            ],
        ),
    ]
    if differences:
        parts += [
            f"Against {differences[0].first} on the same questions, in percentage points; p by an exact sign test.",
            grid(
                ["system", "difference", "better", "worse", "questions", "p"],
                [
                    [d.second, points(d.difference), str(d.better), str(d.worse), str(d.questions), f"{d.p:.2g}"]
                    for d in differences
                ],
            ),
        ]
    return "\n\n".join(parts) + "\n"


def judged(found: Sequence[Standing]) -> str:
    """What a judge said of open questions; empty if there were none."""
    if not found:
        return ""
    body = [
        [s.second, s.first, str(s.won), str(s.tied), str(s.lost), str(s.failed), percent(s.score), f"{s.p:.2g}"]
        for s in found
    ]
    head = ["system", "against", "won", "tied", "lost", "judge failed", "score", "p"]
    return "\nOpen questions by the judge, blind and in both orders; score in %.\n\n" + grid(head, body) + "\n"


def percent(interval: Interval | None) -> str:
    """`92.0 [75.0, 97.8]`."""
    if interval is None or math.isnan(interval.value):
        return NONE
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * v for v in interval))


def points(interval: Interval) -> str:
    """A difference, as `+4.0 [-1.2, +9.1]`."""
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * v for v in interval))


def grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [
        list(head),
        ["---", *("---:" for _ in head[1:])],
        *([cell.replace("|", "\\|") for cell in r] for r in body),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
