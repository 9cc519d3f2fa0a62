"""The pictures of the page of results."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from results_found import Measured, Point, drafts_sweep, overall, rounds_sweep, row_of

from preflexor_agents.drawing import drawing
from preflexor_agents.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(m: Measured, folder: Path) -> dict[str, Path]:
    """Write `results-accuracy.svg`, `results-cost.svg` and `results-sweeps.svg`; returns them by name.

    Raises:
        InputError: matplotlib is missing, or the folder cannot be written.
    """
    made = {}
    with drawing() as new:
        for name, figure in _figures(m, new):
            file = folder / f"results-{name}.svg"
            partial = file.with_name(f"{file.name}.partial")
            try:
                folder.mkdir(parents=True, exist_ok=True)
                figure.savefig(partial, format="svg", metadata={"Date": None})
                partial.replace(file)
            except OSError as error:
                raise InputError(f"{file} cannot be written: {error.strerror}; name a page elsewhere") from None
            finally:
                partial.unlink(missing_ok=True)
            made[name] = file
    return made


def _figures(m: Measured, new: "type[Figure]") -> "Iterator[tuple[str, Figure]]":
    drafts = m.of("draft")
    if drafts:
        yield "accuracy", _accuracy(m, new(figsize=(max(6.4, 1.4 * len(m.columns)), 3.6), layout="constrained"))
    if drafts or m.of("loop"):
        yield "cost", _cost(m, new(figsize=(7.6, 4.4), layout="constrained"))
    sweeps = {"drafts": drafts_sweep(m), **{name: rounds_sweep(runs) for name, runs in m.by_round.items()}}
    if any(sweeps.values()):
        yield "sweeps", _sweeps(sweeps, new(figsize=(7.6, 3.4), layout="constrained"))


def _accuracy(m: Measured, figure: "Figure") -> "Figure":
    axes = figure.subplots()
    entries = m.of("draft")
    width = 0.8 / len(entries)
    for number, entry in enumerate(entries):
        row = row_of(m.found[entry])
        shown = [(at, row.accuracy[name]) for at, name in enumerate(m.columns) if name in row.accuracy]
        places = [at + (number - (len(entries) - 1) / 2) * width for at, _ in shown]
        values = [100 * share.value for _, share in shown]
        ends = [[100 * (s.value - s.low) for _, s in shown], [100 * (s.high - s.value) for _, s in shown]]
        axes.bar(places, values, width, yerr=ends, capsize=2, label=entry.label)
    axes.set_xticks(range(len(m.columns)), [name.replace(", ", ",\n") for name in m.columns])
    axes.set(ylim=(0, 105), ylabel="right, %", title="One draft, with 95 % intervals")
    figure.legend(fontsize=7, loc="outside right upper")
    return figure


def _cost(m: Measured, figure: "Figure") -> "Figure":
    """Filled: as it comes; hollow: at equal budgets."""
    axes = figure.subplots()
    for number, entry in enumerate([*m.of("draft", "loop"), *m.of("equal")]):
        row = row_of(m.found[entry])
        value, low, high = (100 * part for part in overall(row))
        hollow = {"mfc": "none"} if entry.kind == "equal" else {}
        label = f"{entry.label} (equal)" if entry.kind == "equal" else entry.label
        ends = [[value - low], [high - value]]
        axes.errorbar(
            [row.tokens_generated], [value], ends, fmt="osD^vP"[number % 6], capsize=2, lw=0.8, label=label, **hollow
        )
    axes.set(ylim=(0, 105), ylabel="right, % of all questions", xlabel="tokens written for a question")
    axes.set_title("Accuracy and cost; hollow: at equal budgets")
    figure.legend(fontsize=6, loc="outside right upper")
    return figure


def _sweeps(sweeps: dict[str, Sequence[Point]], figure: "Figure") -> "Figure":
    by_drafts, by_rounds = figure.subplots(1, 2, sharey=True)
    for number, (name, found) in enumerate(sweeps.items()):
        if not found:
            continue
        beside = max(0, number - 1) * 0.06  # so that no interval hides another
        axes, label = (by_drafts, "chosen") if name == "drafts" else (by_rounds, name)
        shares = [[100 * part for part in overall(point.row)] for point in found]
        ends = [[v - low for v, low, _ in shares], [high - v for v, _, high in shares]]
        axes.errorbar(
            [p.at + beside for p in found], [v for v, _, _ in shares], ends, marker="o", capsize=2, label=label
        )
        axes.set_xticks([p.at for p in found])
        best = [(p.at, 100 * p.row.oracle.value) for p in found if p.row.oracle is not None]
        if name == "drafts" and best:
            axes.plot([at for at, _ in best], [v for _, v in best], "--", marker="x", color="0.5", label="oracle")
    by_drafts.set(ylim=(0, 105), ylabel="right, % of all questions", xlabel="drafts")
    by_rounds.set(xlabel="rounds")
    for axes in (by_drafts, by_rounds):
        if axes.has_data():
            axes.legend(fontsize=7)
    return figure
