"""`preflexor store`: look after the knowledge store's file."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

    from preflexor_agents.store.soundness import Problem

EXAMPLE = """
\b
Example:
  preflexor store backup /media/usb/
  preflexor store check
"""


def store_option(function: click.decorators.FC) -> click.decorators.FC:
    """The option that names the store."""
    return click.option("--store", metavar="PATH", help="Knowledge store. Default: your own.")(function)


@click.group(short_help="Look after the knowledge store: list, remove, check, back up.", epilog=EXAMPLE)
def command() -> None:
    """Look after the knowledge store: one file that holds documents, vectors, the graph and conversations."""


@command.command()
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on standard output.")
def show(*, store: str | None, as_json: bool) -> None:
    """Say what the store holds and how it searches."""
    from preflexor_agents.cli.show import inert
    from preflexor_agents.store import Store

    with Store.open(file_of(store), create=False) as opened:
        found = asdict(opened.stats())
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    width = max(map(len, found))
    for name, value in found.items():
        click.echo(f"{name.replace('_', ' '):<{width}}  {inert(str(value))}")


@command.command()
@store_option
def check(*, store: str | None) -> None:
    """Check that rows, indexes, pages and the graph agree; changes nothing.

    Ends with exit code 1 if something is wrong, and says what mends it.
    """
    from preflexor_agents.store import upkeep

    file = file_of(store)
    found = upkeep.check(file)
    if not found:
        click.echo(f"store {file} is sound")
        return
    complain(found)
    mend = "restore FILE, with a backup" if any(p.remedy == "restore" for p in found) else "rebuild"
    click.echo(f"preflexor: mend it with: preflexor store {mend}", err=True)
    raise SystemExit(1)


@command.command()
@click.argument("to", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@store_option
def backup(*, to: Path | None, store: str | None) -> None:
    """Copy the store to FILE, or into a folder; others may go on writing meanwhile.

    Without FILE the copy lies beside the store, with the time in its name.
    """
    from preflexor_agents.store import upkeep

    copy = upkeep.backup(file_of(store), to)
    click.echo(f"copied to {copy} ({copy.stat().st_size / 1e6:.1f} MB)")


@command.command()
@click.argument("copy", type=click.Path(path_type=Path), metavar="FILE")
@store_option
def restore(*, copy: Path, store: str | None) -> None:
    """Put the copy in FILE back in the store's place; what was there is kept beside it."""
    from preflexor_agents.store import upkeep

    file = file_of(store)
    done = upkeep.restore(copy, file)
    click.echo(f"restored {done.documents} documents to {file}")
    if done.kept is not None:
        click.echo(f"what was there is kept as {done.kept}")


@command.command()
@store_option
@click.option("--verify", is_flag=True, help="Say first what the old indexes had wrong; check the new ones afterwards.")
def rebuild(*, store: str | None, verify: bool) -> None:
    """Make the full-text and vector indexes again from the documents' rows."""
    from preflexor_agents.store import upkeep

    file = file_of(store)
    done = upkeep.rebuild(file)
    if verify:
        complain(done.before)
    click.echo(f"rebuilt the indexes of {done.chunks} chunks and {done.vectors} vectors")
    left = upkeep.check(file) if verify else []
    if left:
        complain(left)
        raise SystemExit(1)
    if verify:
        click.echo("they agree with the rows" + ("" if done.before else ", as the old ones did"))


@command.command()
@store_option
def vacuum(*, store: str | None) -> None:
    """Give the space of removed documents back to the disk."""
    from preflexor_agents.store import upkeep

    file = file_of(store)
    before, after = upkeep.vacuum(file)
    click.echo(f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after")


def file_of(store: str | None) -> Path:
    """The store that the option, the environment or the settings name."""
    from preflexor_agents.settings import load

    return load({"store": store}).store


def complain(found: "Iterable[Problem]") -> None:
    """One line for each problem."""
    for problem in found:
        click.echo(f"preflexor: {problem}", err=True)
