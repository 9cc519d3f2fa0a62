"""What the rows of a run come to in numbers."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from preflexor_training.forge.duplicates import AskedBefore
from preflexor_training.forge.lengths import Lengths, Measure
from preflexor_training.forge.records import Row
from preflexor_training.forge.rejected import FAULTS
from preflexor_training.forge.steps import Dropped, Who
from preflexor_training.forge.table import kind_of


class Spread(NamedTuple):
    """Numbers of many rows; all 0 if there are none."""

    least: float = 0.0
    median: float = 0.0
    p95: float = 0.0
    """95 of 100 are not larger."""
    most: float = 0.0


class Maker(NamedTuple):
    """A model and its part."""

    who: Who
    model: str
    adapter_sha256: str


@dataclass(slots=True)
class Cost:
    """What calls of one kind came to."""

    calls: int = 0
    failed: int = 0
    tokens_prompt: int = 0
    tokens_cached: int = 0
    tokens_generated: int = 0
    seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Stats:
    """The numbers of a run. Lengths, margins and categories are of the kept rows."""

    measured: str
    """What counted the tokens."""
    max_length_tok: int
    """The trainer's limit."""
    rows: int = 0
    states: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """State and kind of the rows that were not kept."""
    shapes: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    """Variant, phase and pack."""
    rejected_kinds: Counter[str] = field(default_factory=Counter)
    rounds: set[int] = field(default_factory=set)
    lengths: list[Lengths] = field(default_factory=list)
    """Tokens, by kept row."""
    categories: Counter[str] = field(default_factory=Counter)
    """Rows in which each is filled."""
    margins: list[float] = field(default_factory=list)
    """Of rows with a verifier or a judge."""
    samples: int = 0
    accepted: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    """Samples that were not accepted, by fault."""
    near_duplicates: list[tuple[int, str]] = field(default_factory=list)
    """Row and what it is like, of kept rows."""
    makers: Counter[Maker] = field(default_factory=Counter)
    """Calls by model."""
    costs: dict[str, Cost] = field(default_factory=dict)
    """By step; the categories are one."""
    sources: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Document -> title, and how many kept rows have a passage of it in their context."""
    claims: int = 0
    unsupported: int = 0

    @property
    def acceptance(self) -> float:
        """Share of the samples that were accepted; 0 if there were none."""
        return self.accepted / self.samples if self.samples else 0.0

    @property
    def too_long(self) -> int:
        """Kept rows that the trainer would leave out."""
        return sum(length.row > self.max_length_tok for length in self.lengths)

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain JSON values."""
        columns = ("prompt", "thinking", "chosen", "rejected")
        lengths = {name: spread(getattr(one, name) for one in self.lengths)._asdict() for name in (*columns, "row")}
        return {
            "rows": self.rows,
            "states": dict(self.states),
            "reasons": {f"{state}: {kind}": n for (state, kind), n in self.reasons.most_common()},
            "variants": {f"{v}, phase {p}, pack {k or 'unknown'}": n for (v, p, k), n in self.shapes.most_common()},
            "rejected_kinds": dict(self.rejected_kinds),
            "tokens": {"measured": self.measured, **lengths},
            "max_length_tok": self.max_length_tok,
            "too_long": self.too_long,
            "categories": dict(self.categories),
            "margins": spread(self.margins)._asdict() if self.margins else None,
            "samples": self.samples,
            "accepted": self.accepted,
            "acceptance": self.acceptance,
            "not_accepted": dict(self.faults),
            "near_duplicates": len(self.near_duplicates),
            "claims": self.claims,
            "unsupported": self.unsupported,
            "sources": len(self.sources),
            "calls": sum(cost.calls for cost in self.costs.values()),
            "tokens_generated": sum(cost.tokens_generated for cost in self.costs.values()),
        }


def collect(rows: Iterable[Row], measure: Measure, *, max_length_tok: int) -> Stats:
    """Read the rows once and count."""
    stats = Stats(measured=measure.name, max_length_tok=max_length_tok)
    asked = AskedBefore()
    for row in rows:
        stats.rows += 1
        stats.states[row.state] += 1
        stats.shapes[row.variant, row.phase, row.pack] += 1
        stats.rounds.add(row.round)
        _add_calls(stats, row)
        _add_samples(stats, row)
        if row.state == "kept":
            _add_kept(stats, row, measure, asked)
        else:
            stats.reasons[row.state, kind_of(row)] += 1
    return stats


def spread(numbers: Iterable[float]) -> Spread:
    """Least, median, 95th percentile (nearest rank) and largest."""
    found = sorted(numbers)
    if not found:
        return Spread()
    return Spread(found[0], float(median(found)), found[-(-95 * len(found) // 100) - 1], found[-1])


def _add_kept(stats: Stats, row: Row, measure: Measure, asked: AskedBefore) -> None:
    stats.lengths.append(measure.lengths(row.pair()))
    stats.categories.update(name for name, text in row.categories if text.strip())
    if row.rejected_kind:
        stats.rejected_kinds[row.rejected_kind] += 1
    if "margin" in row.scores:
        stats.margins.append(row.scores["margin"])
    stats.claims += int(row.scores.get("claims", 0))
    stats.unsupported += int(row.scores.get("unsupported", 0))
    for source, title in {span.source: span.title for span in row.context}.items():
        stats.sources[source] = (title, stats.sources.get(source, ("", 0))[1] + 1)
    try:
        asked.take(row.number, row.question)
    except Dropped as dropped:
        stats.near_duplicates.append((row.number, dropped.reason))


def _add_samples(stats: Stats, row: Row) -> None:
    stats.samples += int(row.scores.get("samples", 0))
    stats.accepted += int(row.scores.get("accepted", 0))
    stats.faults.update({fault: int(row.scores[fault]) for fault in FAULTS if row.scores.get(fault)})


def _add_calls(stats: Stats, row: Row) -> None:
    for call in row.calls:
        stats.makers[Maker(call.who, call.model, call.adapter_sha256)] += 1
        cost = stats.costs.setdefault(call.step.partition(":")[0], Cost())
        cost.calls += 1
        cost.failed += bool(call.error)
        cost.tokens_prompt += call.tokens_prompt
        cost.tokens_cached += call.tokens_cached
        cost.tokens_generated += call.tokens_generated
        cost.seconds += call.seconds
