"""`preflexor ingest`: put documents into the knowledge store."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from preflexor_agents.cli.options import json_option
from preflexor_agents.cli.progress import now_and_then

if TYPE_CHECKING:
    from preflexor_agents.store.records import IngestProgress

    Watch = Callable[[IngestProgress], None]


EXAMPLE = """
\b
Examples:
  preflexor ingest papers/ notes.md
  preflexor ingest 'papers/**/*.pdf' --collection reviews
"""


@click.command(short_help="Put documents into the knowledge store.", epilog=EXAMPLE)
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option("--store", metavar="PATH", help="Knowledge store to fill; made if absent. Default: your own.")
@click.option(
    "--collection",
    metavar="NAME",
    help="Collection that the documents belong to. Default: where they are, `default` for new ones.",
)
@click.option(
    "--embedder",
    metavar="SPEC",
    help="What turns text into vectors: hash (no model), ollama:NAME, gguf:PATH and others. A store keeps the one it "
    "was made with. Default: hash.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    paths: tuple[str, ...],
    store: str | None,
    collection: str | None,
    embedder: str | None,
    as_json: bool,
) -> None:
    """Read documents into the store: Markdown, text, HTML, PDF, DOCX, EPUB, JATS XML and source code.

    PATH is a file, a folder, or a pattern in quotes. What is unchanged is skipped, so the same call may be repeated,
    also after Ctrl-C: each document is taken whole or not at all. Of a changed document only the changed parts are
    embedded again. Ends with exit code 1 if some documents failed and 2 if nothing could be read.
    """
    from preflexor_agents.settings import load
    from preflexor_agents.store import Store
    from preflexor_agents.store.documents import Reader
    from preflexor_agents.store.ingest import check_collection
    from preflexor_agents.store.reading.finding import find

    file = load({"store": store}).store
    check_collection(collection)
    wanted = [Path(path) for path in paths]
    unusable: list[str] = []
    with Reader() as reader:
        found = find(wanted, unusable, suffixes=reader.plugged)
    if not found:
        complain(unusable)
        ctx.exit(2)
    with Store.open(file, embedder=embedder) as opened:
        try:
            with watched() as watch:
                report = opened.ingest(wanted, collection=collection, progress=watch)
        except KeyboardInterrupt:
            click.echo("stopped: finished documents are kept, the same call goes on with the rest", err=True)
            ctx.exit(1)
    complain((*report.notes, *report.failed))
    if as_json:
        click.echo(json.dumps({"store": str(file), **asdict(report)}, ensure_ascii=False, indent=2))
    else:
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
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        began = time.monotonic()
        task = bar.add_task("", total=None, rate="")

        def show(now: "IngestProgress") -> None:
            rate = rates(now, time.monotonic() - began)
            bar.update(task, completed=work_done(now), total=1.0, description=last_part(now.source), rate=rate)

        yield show


def plain_lines() -> "Watch":
    """A line now and then."""
    began = time.monotonic()
    is_due = now_and_then(began)

    def show(now: "IngestProgress") -> None:
        moment = time.monotonic()
        if not is_due(moment):
            return
        done = work_done(now)
        left = f", about {(moment - began) * (1 - done) / done:.0f} s left" if done else ""
        click.echo(f"{rates(now, moment - began)}{left}", err=True)

    return show


def rates(now: "IngestProgress", seconds: float) -> str:
    """How far the work is, and how fast it goes."""
    per_second = now.chunks_written / max(seconds, 1e-3)
    return f"{now.documents_done} of {now.documents_total} documents, {now.chunks_written} chunks, {per_second:.0f}/s"


def work_done(now: "IngestProgress") -> float:
    """Share of the work, 0 to 1, by the sizes of the files; of the one at hand by its chunks."""
    share = now.chunks_done / now.chunks_total if now.outcome is None and now.chunks_total else 0.0
    if not now.bytes_total:
        return (now.documents_done + share) / max(now.documents_total, 1)
    return min(1.0, (now.bytes_done + share * now.file_bytes) / now.bytes_total)


def last_part(source: str) -> str:
    """The file's name, without what could steer a terminal, short enough for one line."""
    from preflexor_agents.cli.show import inert

    return inert(source.replace("\\", "/").rsplit("/", 1)[-1])[:40].replace("\n", " ")
