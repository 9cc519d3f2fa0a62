"""Curves of a run as pictures: loss, margins, accuracy, masked fraction, lengths; each as SVG and PNG."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from preflexor_agents.drawing import drawing
from preflexor_agents.errors import TrainingError
from preflexor_agents.run_folder import RunFolder

FOLDER = "plots"


class Picture(NamedTuple):
    """What is drawn into one picture."""

    name: str
    title: str
    unit: str
    series: tuple[str, ...]


PICTURES = (
    Picture("loss", "Loss", "nats", ("loss", "nll", "held_out_loss")),
    Picture("margins", "Margin of chosen over rejected", "nats", ("margin", "held_out_margin")),
    Picture("accuracy", "Pairs with the chosen reply ahead", "share", ("accuracy", "held_out_accuracy")),
    Picture("masked_fraction", "Reply tokens outside the loss", "share", ("masked_fraction",)),
    Picture("lengths", "Lengths", "tokens", ("prompt_tok", "chosen_tok", "rejected_tok")),
)


def draw(folder: Path) -> tuple[Path, ...]:
    """Draw a run's pictures into `plots/` in its folder; what has no values is left out.

    Returns:
        The SVG files; a PNG file lies beside each.

    Raises:
        InputError: matplotlib is missing, or the folder holds no run.
        TrainingError: the files cannot be written.
    """
    run = RunFolder(folder)
    run.refresh()
    while run.more:
        run.refresh()
    edges = _edges(run)
    made = []
    out = folder / FOLDER
    with drawing() as Figure:
        for picture in PICTURES:
            series = {name: points for name in picture.series if (points := run.series(name))}
            if not series:
                continue
            figure = Figure(figsize=(6.4, 3.2), layout="tight")
            axes = figure.add_subplot()
            for name, points in series.items():
                steps, values = zip(*points, strict=True)
                marker = "o" if name.startswith("held_out") or len(points) == 1 else ""
                axes.plot(steps, _gapped(values), label=name, linewidth=1.2, marker=marker, markersize=3)
            for edge in edges:
                axes.axvline(edge, color="0.85", linewidth=0.6, zorder=0)
            axes.set(title=picture.title, xlabel="optimizer step", ylabel=picture.unit)
            axes.legend(frameon=False)
            made.append(save(figure, out / picture.name))
    return tuple(made)


def save(figure: "Figure", stem: Path) -> Path:  # type: ignore[name-defined]  # noqa: F821
    """Write both files, each under its name only when it is whole."""
    try:
        stem.parent.mkdir(exist_ok=True)
        for end, extra in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 144})):
            partial = stem.with_name(f"{stem.name}.partial.{end}")
            try:
                figure.savefig(partial, format=end, **extra)
                partial.replace(stem.with_suffix(f".{end}"))
            finally:
                partial.unlink(missing_ok=True)
    except OSError as e:
        raise TrainingError(f"{stem.parent} cannot be written: {e.strerror}; make room") from None
    return stem.with_suffix(".svg")


def _edges(run: RunFolder) -> list[float]:
    """Steps at which a new round began; none where there are too many to be told apart."""
    found = [b.step - 0.5 for a, b in zip(run.points, run.points[1:], strict=False) if a.round != b.round]
    return found if len(found) <= 60 else []


def _gapped(values: Sequence[float]) -> list[float]:
    return [value if math.isfinite(value) else math.nan for value in values]
