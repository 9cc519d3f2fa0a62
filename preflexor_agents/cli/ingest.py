"""`preflexor ingest`: put documents into the knowledge store."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from preflexor_agents.store.records import IngestProgress

    Watch = Callable[[IngestProgress], None]

LINE_EVERY_S = 5.0
"""Without a terminal, progress is a line at most this often."""


EXAMPLE = """
\b
Example:
  preflexor ingest papers/ notes.md
"""


@click.command(short_help="Put documents into the knowledge store.", epilog=EXAMPLE)
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option("--store", metavar="PATH", help="Knowledge store to fill; made if absent. Default: your own.")
@click.option(
    "--embedder",
    metavar="SPEC",
    help="What turns text into vectors: hash (no model), ollama:NAME or gguf:PATH. A store keeps the one it was "
    "made with. Default: hash.",
)
@click.pass_context
def command(ctx: click.Context, *, paths: tuple[str, ...], store: str | None, embedder: str | None) -> None:
    """Read Markdown and text files, and the folders that hold them, into the store.

    What is unchanged is skipped, so the same call may be repeated, also after Ctrl-C: each document is taken whole or
    not at all. Ends with exit code 1 if some documents failed and 2 if nothing could be read.
    """
    from preflexor_agents.settings import load
    from preflexor_agents.store import Store
    from preflexor_agents.store.documents import find

    file = load({"store": store}).store
    wanted = [Path(path) for path in paths]
    unusable: list[str] = []
    if not find(wanted, unusable):
        complain(unusable)
        ctx.exit(2)
    with Store.open(file, embedder=embedder) as opened:
        try:
            with watched() as watch:
                report = opened.ingest(wanted, progress=watch)
        except KeyboardInterrupt:
            click.echo("stopped: finished documents are kept, the same call goes on with the rest", err=True)
            ctx.exit(1)
    complain((*report.notes, *report.failed))
    click.echo(f"{report} in {report.seconds:.1f} s; store {file}")
    read = report.added + report.changed + report.unchanged + report.duplicates
    ctx.exit(0 if not report.failed else 1 if read else 2)


def complain(lines: Iterable[str]) -> None:
    """One line for each document that needs a look."""
    for line in lines:
        click.echo(f"preflexor: {line}", err=True)


@contextmanager
def watched() -> Iterator["Watch"]:
    """What shows the progress on standard error: a bar on a terminal, else plain lines."""
    if not sys.stderr.isatty():
        yield plain_lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        began = time.monotonic()
        task = bar.add_task("", total=None, rate="")

        def show(now: "IngestProgress") -> None:
            done = whole_documents(now)
            rate = f"{done / max(time.monotonic() - began, 1e-3):.1f}/s"
            name = last_part(now.source)
            bar.update(task, completed=done, total=now.documents_total, description=name, rate=rate)

        yield show


def plain_lines() -> "Watch":
    """A line now and then."""
    began = last = time.monotonic()

    def show(now: "IngestProgress") -> None:
        nonlocal last
        moment = time.monotonic()
        if moment - last < LINE_EVERY_S:
            return
        last = moment
        done = whole_documents(now)
        rate = done / (moment - began)
        left = f", about {(now.documents_total - done) / rate:.0f} s left" if rate else ""
        click.echo(f"{now.documents_done} of {now.documents_total} documents, {rate:.1f}/s{left}", err=True)

    return show


def whole_documents(now: "IngestProgress") -> float:
    """Documents done, the share of the one at hand included."""
    share = now.chunks_done / now.chunks_total if now.outcome is None and now.chunks_total else 0.0
    return now.documents_done + share


def last_part(source: str) -> str:
    """The file's name, without what could steer a terminal, short enough for one line."""
    from preflexor_agents.cli.show import inert

    return inert(source.replace("\\", "/").rsplit("/", 1)[-1])[:40].replace("\n", " ")
