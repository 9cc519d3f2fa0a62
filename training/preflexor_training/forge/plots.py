"""The numbers of a run as pictures, each as SVG and PNG: lengths, categories, margins, acceptance, what fell away."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from preflexor_agents.drawing import drawing
from preflexor_agents.errors import InputError
from preflexor_agents.prompts import one_line
from preflexor_training.forge.stats import Stats
from preflexor_training.plots import save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 30
_LONGEST_NAME = 40


def draw(stats: Stats, folder: Path) -> tuple[Path, ...]:
    """Draw the pictures into a folder; what there are no numbers for is left out.

    Returns:
        The SVG files; a PNG file lies beside each.

    Raises:
        InputError: matplotlib is missing, or the folder cannot be made.
        TrainingError: the files cannot be written.
    """
    pictures, made = _pictures(stats), []
    with drawing() as Figure:
        try:
            if pictures:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InputError(f"{folder} cannot be made: {e.strerror}; name another folder") from None
        for name, paint in pictures.items():
            figure = Figure(figsize=(6.4, 3.2), layout="constrained")
            paint(figure.add_subplot())
            made.append(save(figure, folder / name))
    return tuple(made)


def _pictures(stats: Stats) -> Mapping[str, Callable[["Axes"], None]]:
    """What there is to draw, by the name of its file."""
    fallen = {f"{state}: {kind}": count for (state, kind), count in stats.reasons.items()}
    samples = {"accepted": stats.accepted, **stats.faults} if stats.samples else {}
    found: dict[str, Callable[[Axes], None]] = {}
    if stats.lengths:
        found["lengths"] = lambda axes: _lengths(axes, stats)
    if stats.margins:
        found["margins"] = lambda axes: _margins(axes, stats)
    for name, title, unit, counts in (
        ("categories", "Categories filled", "rows", stats.categories),
        ("samples", f"Samples, {stats.acceptance:.0%} accepted", "samples", samples),
        ("dropped", "Rows that were not kept", "rows", fallen),
    ):
        if any(counts.values()):
            found[name] = _bars(title, unit, counts)
    return found


def _lengths(axes: "Axes", stats: Stats) -> None:
    for name in ("prompt", "thinking", "chosen", "rejected", "row"):
        axes.hist([getattr(length, name) for length in stats.lengths], bins=_BINS, histtype="step", label=name)
    axes.axvline(stats.max_length_tok, color="0.4", linestyle="--", linewidth=0.8, label="max_length_tok")
    title = f"Lengths; {stats.too_long} of {len(stats.lengths)} rows too long"
    axes.set(title=title, xlabel=f"tokens ({_short(stats.measured)})", ylabel="rows")
    axes.legend(frameon=False)


def _margins(axes: "Axes", stats: Stats) -> None:
    axes.hist(stats.margins, bins=_BINS, range=(0, 1))
    axes.set(title="Margin of chosen over rejected", xlabel="score, from 0 to 1", ylabel="rows")


def _bars(title: str, unit: str, counts: Mapping[str, int]) -> Callable[["Axes"], None]:
    def paint(axes: "Axes") -> None:
        rows = sorted(counts.items(), key=lambda item: (item[1], item[0]))
        axes.barh([_short(name) for name, _ in rows], [count for _, count in rows])
        axes.set(title=title, xlabel=unit)

    return paint


def _short(name: str) -> str:
    """A name as a label; matplotlib takes what stands between dollar signs for formulas."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in one_line(name)).replace("$", "\\$")
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"
