"""Accuracy with its intervals, and what it costs, as pictures."""

from collections.abc import Sequence
from pathlib import Path

from preflexor_agents.drawing import drawing
from preflexor_agents.errors import InputError
from preflexor_agents.evaluation.table import Row


def draw(folder: Path, rows: Sequence[Row]) -> tuple[Path, ...]:
    """`accuracy` (by column and system) and `cost` (accuracy against tokens written), as SVG and PNG.

    Raises:
        InputError: matplotlib is missing, or the folder cannot be written.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row.accuracy))
    made = []
    with drawing() as Figure:
        accuracy = Figure(figsize=(max(6.4, 1.5 * len(columns)), 3.6), layout="constrained")
        axes = accuracy.subplots()
        width = 0.8 / max(1, len(rows))
        for number, row in enumerate(rows):
            at = [columns.index(name) + (number - (len(rows) - 1) / 2) * width for name in row.accuracy]
            found = [[100 * part for part in interval] for interval in row.accuracy.values()]
            ends = [[v - low for v, low, _ in found], [high - v for v, _, high in found]]
            axes.bar(at, [v for v, _, _ in found], width, yerr=ends, capsize=2, label=row.system)
        axes.set_xticks(range(len(columns)), columns)
        axes.set(ylim=(0, 105), ylabel="right, %", title="Accuracy with 95 % intervals")
        accuracy.legend(fontsize=7, loc="outside right upper")
        cost = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = cost.subplots()
        for row in rows:
            v, low, high = (100 * part for part in row.accuracy.get("all", next(iter(row.accuracy.values()))))
            axes.errorbar([row.tokens_generated], [v], [[v - low], [high - v]], fmt="o", capsize=2, label=row.system)
        axes.set(ylim=(0, 105), ylabel="right, %", xlabel="tokens written for a question", title="Accuracy and cost")
        cost.legend(fontsize=7, loc="outside right upper")
        for name, figure in (("accuracy", accuracy), ("cost", cost)):
            try:
                figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
                figure.savefig(folder / f"{name}.png", dpi=150)
            except OSError as error:
                raise InputError(f"{folder / name} cannot be written: {error.strerror}; free some space") from None
            made.append(folder / f"{name}.svg")
    return tuple(made)
