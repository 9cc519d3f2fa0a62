"""`preflexor train show` and `preflexor train recipes`: a run in the terminal, and what runs there are to begin."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preflexor_agents.cli.options import json_option
from preflexor_agents.errors import ConfigError, InputError
from preflexor_agents.run_folder import CONFIG, RunFolder, find_runs, runs_folder, shown

if TYPE_CHECKING:
    from rich.console import Group

    from preflexor_training.recipes import Phase, Recipe

_BLOCKS = "▁▂▃▄▅▆▇█"
_CURVES = (
    "loss",
    "margin",
    "accuracy",
    "held_out_loss",
    "held_out_margin",
    "held_out_accuracy",
    "masked_fraction",
    "grad_norm",
    "tokens_per_s",
)
_AUDITED = {
    "round": "round",
    "phase": "phase",
    "rows": "rows",
    "kept": "kept",
    "closed": "closed_chosen",
    "masked": "masked_chosen",
    "of rejected": "masked_rejected",
}
"""Column -> the key in a line of audit.jsonl."""
FOLLOW_S = 1.0
_SAMPLE_CHARS = 600


@click.command("show", short_help="Show a run: recipe, audits, curves, rounds, samples.")
@click.argument("run", type=click.Path(path_type=Path), required=False, metavar="[RUN]")
@click.option("--follow", is_flag=True, help="Go on showing it while it is written, until Ctrl-C.")
@click.option("--plots", is_flag=True, help="Draw the curves again into RUN/plots, as SVG and PNG.")
@json_option
def show(*, run: Path | None, follow: bool, plots: bool, as_json: bool) -> None:
    """Show the training run in the folder RUN; without it, the newest of your runs."""
    folder = run or _newest()
    reader = RunFolder(folder)
    _read(reader)
    if not reader.config and not reader.points:
        raise InputError(f"{folder} holds no training run; name the folder of one")
    if plots:
        from preflexor_training.plots import draw

        for file in draw(folder):
            click.echo(str(file), err=as_json)
    if as_json:
        click.echo(json.dumps(_report(reader), ensure_ascii=False, indent=2))
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    if not follow:
        console.print(_page(reader, width=console.width))
        return
    try:
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            while True:
                live.update(_page(reader, width=console.width), refresh=True)
                time.sleep(FOLLOW_S)
                _read(reader)
    except KeyboardInterrupt:
        return


@click.command("recipes", short_help="List the recipes, a sentence each.")
@json_option
def recipes(*, as_json: bool) -> None:
    """List the recipes that come with preflexor, with what each is for."""
    from preflexor_training.recipes import about, names

    found = {name: about(name) for name in names()}
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    width = max(map(len, found))
    for name, sentence in found.items():
        click.echo(f"{name:<{width}}  {sentence}")


def sparkline(values: Sequence[float], *, width: int) -> str:
    """A curve in one line of at most `width` characters; a value that is not finite is a gap.

    Where there are more values than characters, each stands for the mean of its share.
    """
    count = min(width, len(values))
    cells = []
    for n in range(count):
        part = values[n * len(values) // count : (n + 1) * len(values) // count]
        finite = [value for value in part if math.isfinite(value)]
        cells.append(sum(finite) / len(finite) if finite else math.nan)
    known = [cell for cell in cells if math.isfinite(cell)]
    if not known:
        return " " * count
    low, high = min(known), max(known)
    steps = len(_BLOCKS) - 1
    return "".join(
        " " if math.isnan(cell) else _BLOCKS[round(steps * (cell - low) / (high - low)) if high > low else 0]
        for cell in cells
    )


def _newest() -> Path:
    found = find_runs(runs_folder())
    if not found:
        raise InputError(f"there are no runs in {runs_folder()}; name the folder of one")
    return found[0]


def _read(reader: RunFolder) -> None:
    reader.refresh()
    while reader.more:
        reader.refresh()


def _page(reader: RunFolder, *, width: int) -> "Group":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from preflexor_agents.cli.show import inert

    parts: list[Text | Table] = [Text(f"{inert(str(reader.path))}", style="bold")]
    parts += [Text(inert(line)) for line in _head(reader)]
    parts += [Text(inert(problem), style="yellow") for problem in reader.problems]
    curves = Table(box=None, padding=(0, 1), show_header=False)
    names = [name for name in _CURVES if reader.series(name)]
    for name in names:
        points = reader.series(name)
        ends = f"{shown(points[0][1])} → {shown(points[-1][1])}"
        curves.add_row(name, sparkline([y for _, y in points], width=max(10, width - 46)), ends)
    if names:
        parts.append(curves)
    audits = _lines(reader.path / "audit.jsonl")
    if audits:
        table = Table(*_AUDITED, box=None, padding=(0, 1), title="audits", title_justify="left")
        for line in audits[-8:]:
            table.add_row(*(_cell(line.get(key)) for key in _AUDITED.values()))
        parts.append(table)
    rounds = [point for point in reader.points if "held_out_margin" in point.values]
    if rounds:
        table = Table("round", "step", "loss", "margin", "right", box=None, padding=(0, 1), title="held out")
        table.title_justify = "left"
        for point in rounds[-8:]:
            v = point.values
            shares = f"{v['held_out_accuracy']:.0%} of {v['held_out_rows']:.0f}"
            table.add_row(
                str(point.round), str(point.step), shown(v["held_out_loss"]), shown(v["held_out_margin"]), shares
            )
        parts.append(table)
    for sample in list(reader.samples)[-3:]:
        parts.append(Text(f"\nround {sample.round}, step {sample.step}: {inert(sample.prompt.strip())}", style="bold"))
        text = inert(sample.text.strip())
        parts.append(Text(text if len(text) <= _SAMPLE_CHARS else text[: _SAMPLE_CHARS - 1] + "…"))
    return Group(*parts)


def _head(reader: RunFolder) -> list[str]:
    """What the run is and how far it is, in lines."""
    from preflexor_training.recipes import load

    origin, state = _object(reader.path / "run.json"), _object(reader.path / "state.json")
    lines = []
    if origin:
        lines.append(f"base {origin.get('base')}, rows from {origin.get('data')}, by {origin.get('backend')}")
    if reader.config and state:
        try:
            recipe = load(reader.path / CONFIG)
        except ConfigError as e:
            return [*lines, str(e)]
        lines += [_phase_line(phase) for phase in recipe.phases]
        lines.append(_progress(reader, recipe, state))
    return lines


def _phase_line(phase: "Phase") -> str:
    rows = phase.rows_per_round or "all"
    return (
        f"{phase.name}: {phase.loss}, beta {phase.beta:g}, learning rate {phase.learning_rate:g}, "
        f"{phase.rounds} rounds of {rows} rows, {phase.passes} passes each"
    )


def _progress(reader: RunFolder, recipe: "Recipe", state: dict[str, Any]) -> str:
    from preflexor_training.schedule import duration, planned_steps

    if state["phase"] == len(recipe.phases):
        return f"done: {state['step']} steps in {duration(state['seconds'])}"
    phase = recipe.phases[state["phase"]]
    last = reader.points[-1] if reader.points else None
    step, seconds = (last.step, last.t_s or 0.0) if last else (0, 0.0)
    total = max(planned_steps(recipe), step)
    left = f", about {duration((total - step) * seconds / step)} left" if step and seconds else ""
    return (
        f"phase {state['phase'] + 1} of {len(recipe.phases)} ({phase.name}, {phase.loss}), "
        f"{state['round']} of {phase.rounds} rounds done, step {step} of about {total}{left}"
    )


def _report(reader: RunFolder) -> dict[str, Any]:
    return {
        "run": str(reader.path),
        "origin": _object(reader.path / "run.json"),
        "versions": _object(reader.path / "versions.json"),
        "state": _object(reader.path / "state.json"),
        "last": {name: reader.series(name)[-1][1] for name in reader.names()},
        "audits": _lines(reader.path / "audit.jsonl"),
        "rounds": [
            {"round": point.round, "step": point.step, **point.values}
            for point in reader.points
            if "held_out_margin" in point.values
        ],
        "samples": [sample._asdict() for sample in reader.samples],
        "problems": list(reader.problems),
    }


def _object(path: Path) -> dict[str, Any]:
    """A file's object; empty while it is not there or not whole."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a small file of JSON lines, without a last one that is still being written."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return []
    found = []
    for line in text.split("\n"):
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in found if isinstance(line, dict)]


def _cell(value: Any) -> str:
    return shown(value) if isinstance(value, float) else str(value if value is not None else "-")
