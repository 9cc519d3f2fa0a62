"""`preflexor search`: the passages of the knowledge store that fit a query."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from preflexor_agents.events import Passage


EXAMPLE = """
\b
Example:
  preflexor search "toughness of nacre" -k 3
"""


@click.command(short_help="Find passages in the knowledge store.", epilog=EXAMPLE)
@click.argument("query")
@click.option(
    "-k", "count", type=click.IntRange(1, 1000), default=5, show_default=True, metavar="N", help="Passages to show."
)
@click.option("--store", metavar="PATH", help="Knowledge store to search. Default: your own.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on standard output.")
def command(*, query: str, count: int, store: str | None, as_json: bool) -> None:
    """Search by words and by meaning at once, best passage first.

    Each passage comes with its source and the character offsets of its text in the document.
    """
    from preflexor_agents.errors import InputError
    from preflexor_agents.settings import load
    from preflexor_agents.store import Store

    if not query.strip():
        raise InputError("the query is empty; say what to look for, as: preflexor search 'toughness of nacre'")
    path = load({"store": store}).store
    with Store.open(path, create=False) as opened:
        passages = opened.search(query, k=count)
    if as_json:
        found = {"query": query, "store": str(path), "passages": [asdict(p) for p in passages]}
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    if not passages:
        click.echo("nothing found", err=True)
    for number, passage in enumerate(passages, 1):
        show(number, passage)


def show(number: int, passage: "Passage") -> None:
    """One passage for people: where it stands, how it was found, its text."""
    from preflexor_agents.cli.show import inert

    page = f", page {passage.page}" if passage.page is not None else ""
    where = f"{passage.source}{page}, characters {passage.start}-{passage.end}"
    found_by = [
        f"{kind} rank {rank}"
        for kind, rank in (("words", passage.text_rank), ("meaning", passage.vector_rank))
        if rank is not None
    ]
    click.echo(click.style(f"[{number}] {inert(passage.title)}", bold=True))
    click.echo(click.style(f"    {inert(where)}  ({', '.join(found_by)})", dim=True))
    click.echo(f"    {inert(' '.join(passage.text.split()))}\n")
