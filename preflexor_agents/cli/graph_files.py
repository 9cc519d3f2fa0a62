"""`preflexor graph export` and `graph import`: the graph as files of other programs, and back."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from preflexor_agents.cli.options import store_option
from preflexor_agents.cli.store import file_of
from preflexor_agents.errors import InputError

if TYPE_CHECKING:
    from preflexor_agents.graph.imported import Imported
    from preflexor_agents.graph.values import Entity, Graph
    from preflexor_agents.store import Store

FORMATS = (".html", ".graphml", ".json", ".csv", ".mmd", ".dot")
MOST_IN_PAGE = 5000
FAN_OUT = 1000
"""Neighbours followed from each entity around the one that is named."""
TAGGED_SUFFIXES = (".jsonl", ".txt", ".md")
MANY = 5000
"""Relations whose storing takes more than a few seconds."""
LARGEST_BYTES = 1 << 29
"""Of a file to import."""

EXPORT_EXAMPLE = """
\b
Example:
  preflexor graph export graph.html
  preflexor graph export nacre.graphml --around nacre --hops 2
"""


@click.command(
    name="export", short_help="Write the graph as HTML, GraphML, JSON, CSV, Mermaid or DOT.", epilog=EXPORT_EXAMPLE
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--around", metavar="ENTITY", help="Only this entity and what is near it.")
@click.option("--hops", type=click.IntRange(1, 6), default=2, show_default=True, help="How far from that entity to go.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Only the N best connected entities. Default: all; {MOST_IN_PAGE} for a page.",
)
@store_option
def export_command(*, file: Path, around: str | None, hops: int, limit: int | None, store: str | None) -> None:
    """Write the graph to FILE, in the format of its suffix.

    \b
    .html     a page to explore it in, which needs nothing else and no network
    .graphml  for Gephi, yEd, Cytoscape, networkx; with evidence
    .json     everything, for scripts and for `graph import`
    .csv      two tables beside each other: FILE-entities.csv and FILE-relations.csv
    .mmd      Mermaid, for Markdown pages: the 40 best connected entities
    .dot      Graphviz
    """  # noqa: D301 - \b is click's
    suffix = file.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{file} has no suffix of a format; use one of {', '.join(FORMATS)}")
    targets = (
        [file] if suffix != ".csv" else [file.with_name(f"{file.stem}-{t}.csv") for t in ("entities", "relations")]
    )
    for target in targets:
        if target.exists():
            raise InputError(f"{target} exists already; name another file or remove it")
    from preflexor_agents.store import Store

    with Store.open(file_of(store), create=False) as opened:
        centre = None if around is None else opened.graph.entity(around)
        graph = _part(opened, centre, hops=hops, limit=limit or (MOST_IN_PAGE if suffix == ".html" else None))
        if not graph.relations:
            raise InputError(f"the graph in {opened.path} is empty; there is nothing to export")
        texts = _texts(suffix, graph, opened, centre)
    for target, text in zip(targets, texts, strict=True):
        _write(target, text)
    size = sum(target.stat().st_size for target in targets)
    what = f"{len(graph.entities)} entities and {len(graph.relations)} relations"
    click.echo(f"wrote {what} to {' and '.join(map(str, targets))} ({size / 1e6:.1f} MB)")


def _part(store: "Store", centre: "Entity | None", *, hops: int, limit: int | None) -> "Graph":
    from preflexor_agents.graph.parts import best_connected

    if centre is None:
        return store.graph.whole(limit=limit)
    graph = store.graph.neighbourhood(centre.id, hops=hops, fan_out=FAN_OUT)
    return graph if limit is None else best_connected(graph, most=limit)


def _texts(suffix: str, graph: "Graph", store: "Store", centre: "Entity | None") -> tuple[str, ...]:
    from preflexor_agents.graph import csv_form, dot, explorer, graphml, json_form, mermaid

    match suffix:
        case ".html":
            title = f"{centre.name}: what is near" if centre else f"Knowledge graph of {store.path.stem}"
            return (explorer.write(graph, title=title, communities=store.graph.communities()),)
        case ".csv":
            return csv_form.write(graph)
    writers: dict[str, Callable[[Graph], str]] = {
        ".graphml": graphml.write,
        ".json": json_form.write,
        ".mmd": mermaid.write,
        ".dot": dot.write,
    }
    return (writers[suffix](graph),)


def _write(file: Path, text: str) -> None:
    partial = file.with_name(file.name + ".partial")
    try:
        try:
            partial.write_text(text, encoding="utf-8", newline="")
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as e:
        raise InputError(f"can not write {file}: {e.strerror}; name a writable place") from None


@click.command(name="import", short_help="Take in a graph from GraphML or JSON, or the graphs in a model's texts.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--tagged", is_flag=True, help="FILE holds texts of a graph-reasoning model; .jsonl, .txt and .md do.")
@store_option
def import_command(*, file: Path, tagged: bool, store: str | None) -> None:
    """Take in the graph in FILE: GraphML (networkx, Gephi, yEd…) or JSON (ours, node-link, Cytoscape.js…).

    Every fact needs a quote. A fact of ours keeps its quotes where the same text stands at the same place in this
    store; for the others a document is stored that lists the facts, a line for each, and that line is the quote.
    Importing the file again replaces what it brought before. Each edge that cannot be taken is told in one line.

    Graphs that Graph-PRefLexOR and graph-preflexor wrote into their thinking are taken from texts, a record a line in
    .jsonl: the text of each graph is stored, and the lines that say a fact are its quotes.
    """
    from preflexor_agents.cli.show import inert
    from preflexor_agents.store import Store
    from preflexor_agents.store.imported_facts import take_in

    if tagged or file.suffix.lower() in TAGGED_SUFFIXES:
        _import_tagged(file, store)
        return
    data = _read(file)
    imported = _parsed(file, data)
    count = len(imported.graph.relations)
    if count > MANY:
        click.echo(f"storing {count} relations, which takes a while; stopping it leaves the graph as it is", err=True)
    with Store.open(file_of(store)) as opened:
        report = take_in(opened, imported, name=file.name)
    for line in report.left_out:
        click.echo(f"preflexor: left out: {inert(' '.join(line.split()))}", err=True)
    added = report.added
    click.echo(
        f"{added.relations} new relations, {added.entities} new entities, {added.evidence} quotes; "
        f"{report.known} relations known already, {len(report.left_out)} parts of the file left out"
    )
    if report.listed:
        click.echo(f"{report.listed} relations without a quote in your documents are listed in a document of their own")


def _import_tagged(file: Path, store: str | None) -> None:
    from preflexor_agents.cli.progress import counting
    from preflexor_agents.cli.show import inert
    from preflexor_agents.store import Store
    from preflexor_agents.store.graph_import import import_tagged

    with Store.open(file_of(store)) as opened, counting(None, "texts") as tell:
        report = import_tagged(opened, file, progress=lambda done, _: tell(done))
    for line in (*report.failed, *report.dangling):
        click.echo(f"preflexor: left out: {inert(' '.join(line.split()))}", err=True)
    added = report.added
    click.echo(
        f"{report.graphs} graphs in {report.records} texts, {report.known} known already: "
        f"{added.relations} new relations, {added.entities} new entities, {added.evidence} quotes; "
        f"{len(report.dangling)} dangling edges left out"
    )
    if not report.graphs:
        raise InputError(f"{file} holds no graph that can be read")


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > LARGEST_BYTES:
            raise InputError(f"{file} has more than {LARGEST_BYTES} bytes; split the graph")
        return file.read_bytes()
    except OSError as e:
        raise InputError(f"can not read {file}: {e.strerror}; name a GraphML or JSON file") from None


def _parsed(file: Path, data: bytes) -> "Imported":
    from preflexor_agents.graph import graphml, json_form

    suffix = file.suffix.lower()
    if suffix not in (".graphml", ".xml", ".json"):
        raise InputError(f"{file} is neither .graphml nor .json; export the graph in one of these formats")
    try:
        imported = json_form.read(data) if suffix == ".json" else graphml.read(data)
    except InputError as e:
        raise InputError(f"{file}: {e}") from None
    if not imported.graph.relations:
        raise InputError(f"{file} holds no relation between two nodes; there is nothing to import")
    return imported
