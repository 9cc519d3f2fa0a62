"""`preflexor eval show`, `compare` and `protocols`: what an evaluation found."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preflexor_agents.cli.options import json_option
from preflexor_agents.cli.show import inert
from preflexor_agents.errors import InputError

if TYPE_CHECKING:
    from preflexor_agents.evaluation.judging import Standing
    from preflexor_agents.evaluation.table import Difference, Row

TABLE = "table.md"


@dataclass(frozen=True, slots=True)
class Report:
    """What the results of a folder come to."""

    rows: "Sequence[Row]"
    differences: "Sequence[Difference]"
    standings: "Sequence[Standing]"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; an interval is `[value, low, high]`."""
        return {
            "systems": [asdict(row) for row in self.rows],
            "differences": [asdict(difference) for difference in self.differences],
            "judged": [asdict(standing) for standing in self.standings],
        }

    def markdown(self) -> str:
        """The tables."""
        from preflexor_agents.evaluation.table import judged, markdown

        return markdown(self.rows, self.differences) + judged(self.standings)


def report(folder: Path, *, first: str | None = None) -> Report:
    """The tables of a folder, the other systems against `first`; also written beside the results.

    Raises:
        InputError: the folder holds no results, or no such system.
    """
    from preflexor_agents.evaluation.folder import read_judgements, read_results
    from preflexor_agents.evaluation.judging import standings
    from preflexor_agents.evaluation.table import differences, rows

    results = read_results(folder)
    names = list(dict.fromkeys(result.system for result in results))
    first = first or names[0]
    if first not in names:
        raise InputError(f"{folder} has no system {first!r}; it has {', '.join(names)}")
    found = Report(rows(results), differences(results, first=first), standings(read_judgements(folder)))
    try:
        (folder / TABLE).write_text(found.markdown(), encoding="utf-8")
    except OSError as error:
        click.echo(f"{folder / TABLE} could not be written: {error.strerror}", err=True)
    return found


def show(found: Report) -> None:
    """Print the tables."""
    click.echo(inert(found.markdown()), nl=False)


@click.command(short_help="The tables of an evaluation.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--against", metavar="SYSTEM", help="What the other systems are compared with. Default: the first.")
@click.option("--plot", is_flag=True, help="Also draw accuracy and cost, as SVG and PNG, into the folder.")
@json_option
def show_command(*, folder: Path, against: str | None, plot: bool, as_json: bool) -> None:
    """Print what an evaluation found, also while it is running."""
    found = report(folder, first=against)
    if plot:
        from preflexor_agents.evaluation.plots import draw

        for file in draw(folder, found.rows):
            click.echo(str(file), err=True)
    if as_json:
        click.echo(json.dumps(found.as_json(), ensure_ascii=False, indent=2))
    else:
        show(found)


@click.command(short_help="Two evaluations of the same questions.")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@json_option
def compare_command(*, first: Path, second: Path, as_json: bool) -> None:
    """Compare each system of SECOND with the system of that name in FIRST, or with the only one there."""
    from preflexor_agents.evaluation.folder import read_results
    from preflexor_agents.evaluation.table import differences, markdown, rows

    before, after = read_results(first), read_results(second)
    old, new = ({result.system for result in results} for results in (before, after))
    found, tables = [], []
    for name in sorted(new):
        match = name if name in old else next(iter(old)) if len(old) == 1 else None
        if match is None:
            continue
        a = [replace(r, system=f"{first.name}: {match}") for r in before if r.system == match]
        b = [replace(r, system=f"{second.name}: {name}") for r in after if r.system == name]
        compared = differences([*a, *b], first=f"{first.name}: {match}")
        found += compared
        tables.append(markdown(rows([*a, *b]), compared))
    if not found:
        raise InputError(f"{first} and {second} share no questions of a system; name evaluations of the same suite")
    if as_json:
        click.echo(json.dumps([asdict(difference) for difference in found], ensure_ascii=False, indent=2))
    else:
        click.echo(inert("\n".join(tables)), nl=False)


@click.command(short_help="The protocols that a system can run.")
def protocols_command() -> None:
    """List the protocols. Any setting of one can be changed, as in default:rounds=4,candidates=2,gate=off."""
    from preflexor_agents.evaluation.systems import PROTOCOLS

    for name, about in PROTOCOLS.items():
        click.echo(f"{name:12} {about}")
