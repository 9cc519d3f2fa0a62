"""How a forge run stands: a table on a terminal, a line elsewhere. Pure folds over its rows and its spending."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from preflexor_agents.prompts import one_line
from preflexor_training.forge.calls import Spending
from preflexor_training.forge.records import Row

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(slots=True)
class Tally:
    """The rows of a run so far."""

    total: int
    """That were asked for."""
    before: int = 0
    """That were in the log when this process began."""
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """By kind, likewise `failed`."""
    failed: Counter[str] = field(default_factory=Counter)
    samples: int = 0
    """Attempts at rejected answers that were looked at, and how many of them were worse than the good answer."""
    accepted: int = 0

    @property
    def done(self) -> int:
        """Rows in the log."""
        return self.kept + self.dropped.total() + self.failed.total()

    def add(self, row: Row) -> None:
        """Count a row that is in the log."""
        self.samples += int(row.scores.get("samples", 0))
        self.accepted += int(row.scores.get("accepted", 0))
        match row.state:
            case "kept":
                self.kept += 1
            case "dropped":
                self.dropped[kind_of(row)] += 1
            case "failed":
                self.failed[kind_of(row)] += 1


def kind_of(row: Row) -> str:
    """Kind of a row's drop or failure."""
    return row.reason.partition(":")[0]


def line(tally: Tally, spending: Spending, *, seconds: float) -> str:
    """The run in one line, after so many seconds of this process."""
    parts = [f"{tally.done} of {tally.total} rows", f"{tally.kept} kept"]
    parts += [f"{count} {name}" for name, count in _fallen(tally)]
    parts += [_pace(tally, seconds), f"{spending.usage.generated} tokens written"]
    left = eta_s(tally, seconds)
    return ", ".join(parts) + (f", about {_time(left)} left" if left else "")


def table(tally: Tally, spending: Spending, *, seconds: float) -> "Table":
    """The run as a table of two columns."""
    from rich.table import Table
    from rich.text import Text

    found = Table.grid(padding=(0, 2))
    for name, value in facts(tally, spending, seconds=seconds):
        found.add_row(Text(name, style="dim"), Text(value))
    return found


def facts(tally: Tally, spending: Spending, *, seconds: float) -> list[tuple[str, str]]:
    """What there is to say, by name."""
    left = eta_s(tally, seconds)
    usage = spending.usage
    shares = [("kept", tally.kept), *_fallen(tally)]
    done = max(tally.done, 1)
    facts = [
        (
            "rows",
            f"{tally.done} of {tally.total}, {_pace(tally, seconds)}{f', about {_time(left)} left' if left else ''}",
        ),
        ("of these", ", ".join(f"{name} {count} ({count / done:.0%})" for name, count in shares)),
        ("calls", f"{spending.paid} made, {spending.cached} paid for before"),
        ("tokens", f"{usage.generated} written, {usage.prompt} read, {usage.cached} of them from the cache"),
    ]
    if tally.samples:
        facts.append(("attempts", f"{tally.samples}, accepted {tally.accepted} ({tally.accepted / tally.samples:.0%})"))
    if spending.failures:
        facts.append(("tried again", ", ".join(f"{kind} {count}" for kind, count in spending.failures.most_common())))
    return [(name, one_line(value)) for name, value in facts]


def eta_s(tally: Tally, seconds: float) -> float:
    """Seconds that the rest will take at the pace of this process; 0 if there is no pace yet, or no rest."""
    made = tally.done - tally.before
    return (tally.total - tally.done) * seconds / made if made else 0.0


def rows_per_hour(tally: Tally, seconds: float) -> float:
    """The pace of this process."""
    return (tally.done - tally.before) * 3600 / seconds if seconds > 0 else 0.0


def _fallen(tally: Tally) -> list[tuple[str, int]]:
    """Drops and failures by kind, the most frequent first."""
    dropped = [(f"dropped as {kind}", count) for kind, count in tally.dropped.most_common()]
    return dropped + [(f"failed by {kind}", count) for kind, count in tally.failed.most_common()]


def _pace(tally: Tally, seconds: float) -> str:
    return f"{rows_per_hour(tally, seconds):.4g} rows/h"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
