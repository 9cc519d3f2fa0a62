"""`preflexor store`: look after the knowledge store's file."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from preflexor_agents.cli.options import json_option, store_option

if TYPE_CHECKING:
    from collections.abc import Iterable

    from preflexor_agents.store.soundness import Problem

EXAMPLE = """
\b
Example:
  preflexor store backup /media/usb/
  preflexor store check
"""

MOST_LISTED = 10_000


@click.group(short_help="Look after the knowledge store: list, remove, check, back up.", epilog=EXAMPLE)
def command() -> None:
    """Look after the knowledge store: one file that holds documents, vectors, the graph and conversations."""


@command.command(short_help="Say what the store holds.")
@store_option
@json_option
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


@command.command(name="list", short_help="List the documents.")
@click.argument("words", required=False, default="")
@store_option
@json_option
def list_(*, words: str, store: str | None, as_json: bool) -> None:
    """List the documents, or those with WORDS in their title, source or collection."""
    from preflexor_agents.cli.show import inert
    from preflexor_agents.store import browsing

    file = file_of(store)
    found = browsing.documents(file, containing=words, most=MOST_LISTED)
    if as_json:
        click.echo(
            json.dumps({"store": str(file), "documents": [asdict(d) for d in found]}, ensure_ascii=False, indent=2)
        )
        return
    if not found:
        click.echo("no such document" if words else "the store is empty", err=True)
    for document in found:
        pages = f", {document.pages} pages" if document.pages else ""
        where = "" if document.collection == "default" else f", in {document.collection}"
        click.echo(click.style(inert(document.title), bold=True) + f"  {document.chunks} chunks{pages}{inert(where)}")
        click.echo(click.style(f"    {inert(document.source)}", dim=True))


@command.command(short_help="Take documents out of the store.")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…")
@store_option
def remove(*, sources: tuple[str, ...], store: str | None) -> None:
    """Take out documents by their source (see `list`), or all below a folder; the files themselves are left alone.

    Nothing that was made of them stays. Ends with exit code 2 if there was nothing to take out.
    """
    from preflexor_agents.cli.show import inert
    from preflexor_agents.store import Store

    with Store.open(file_of(store), create=False) as opened:
        counts = {source: len(opened.remove(source)) for source in sources}
    for source in [source for source, count in counts.items() if not count]:
        click.echo(inert(f"preflexor: {source} is not in the store; see: preflexor store list"), err=True)
    click.echo(f"{sum(counts.values())} documents taken out")
    raise SystemExit(0 if any(counts.values()) else 2)


@command.command(short_help="Give the store another embedder.")
@click.option("--embedder", required=True, metavar="SPEC", help="What turns text into vectors from here on.")
@store_option
def reindex(*, embedder: str, store: str | None) -> None:
    """Make new vectors with another embedder, beside the old ones, which answer until all are there.

    May be stopped at any time; the same call goes on with the rest.
    """
    from preflexor_agents.cli.progress import counting
    from preflexor_agents.store import Store

    with Store.open(file_of(store), create=False) as opened:
        try:
            with counting(opened.stats().chunks, "chunks") as tell:
                done = opened.reindex(embedder, progress=lambda now: tell(now.chunks_done))
        except KeyboardInterrupt:
            click.echo("stopped: the old vectors answer, the same call goes on with the rest", err=True)
            raise SystemExit(1) from None
    click.echo(f"{done.embedded} chunks embedded; searching by {done.embedder} ({done.dim} dimensions)")


@command.command(short_help="Check that rows, indexes, pages and graph agree.")
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


@command.command(short_help="Copy the store, also while others write.")
@click.argument("to", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@store_option
def backup(*, to: Path | None, store: str | None) -> None:
    """Copy the store to FILE, or into a folder; others may go on writing meanwhile.

    Without FILE the copy lies beside the store, with the time in its name.
    """
    from preflexor_agents.store import upkeep

    copy = upkeep.backup(file_of(store), to)
    click.echo(f"copied to {copy} ({copy.stat().st_size / 1e6:.1f} MB)")


@command.command(short_help="Put a copy back in the store's place.")
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


@command.command(short_help="Make the indexes again from the rows.")
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


@command.command(short_help="Give unused space back to the disk.")
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
