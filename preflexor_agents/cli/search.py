"""`preflexor search`: the passages of the knowledge store that fit a query."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from preflexor_agents.cli.options import json_option

if TYPE_CHECKING:
    from preflexor_agents.events import Passage


EXAMPLE = """
\b
Examples:
  preflexor search "toughness of nacre" -k 3
  preflexor search "toughness of nacre" --source 'papers/*.pdf' --since 2015 --diversity 0.3
"""


@click.command(short_help="Find passages in the knowledge store.", epilog=EXAMPLE)
@click.argument("query")
@click.option(
    "-k", "count", type=click.IntRange(1, 1000), default=5, show_default=True, metavar="N", help="Passages to show."
)
@click.option("--store", metavar="PATH", help="Knowledge store to search. Default: your own.")
@click.option("--collection", metavar="NAME", help="Search this collection only.")
@click.option("--source", metavar="PATH", help="Search this document, this folder or what fits this glob only.")
@click.option("--since", metavar="DATE", help="Search documents of this date (2024, 2024-03 or 2024-03-15) or later.")
@click.option("--until", metavar="DATE", help="Search documents of this date or earlier.")
@click.option(
    "--diversity",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    metavar="X",
    help="How much a passage loses by being like a better one, 0 to 1.",
)
@click.option("--rerank", "judge", metavar="SPEC", help="Let this model judge the best passages again.")
@click.option("--explain", is_flag=True, help="Show how each passage got its rank.")
@json_option
def command(
    *,
    query: str,
    count: int,
    store: str | None,
    collection: str | None,
    source: str | None,
    since: str | None,
    until: str | None,
    diversity: float,
    judge: str | None,
    explain: bool,
    as_json: bool,
) -> None:
    """Search by words and by meaning at once, best passage first.

    Each passage comes with its source and the character offsets of its text in the document. A source that does not
    begin with a slash counts from any folder on; a document's date is that of its publication, else of its ingest.
    """
    from preflexor_agents.errors import InputError
    from preflexor_agents.settings import load
    from preflexor_agents.store import Filter, Store, browsing

    if not query.strip():
        raise InputError("the query is empty; say what to look for, as: preflexor search 'toughness of nacre'")
    path = load({"store": store}).store
    if source is not None and source.startswith("."):
        source = str(Path(source).resolve())
    where = Filter(collection=collection, source=source, since=since, until=until)
    with Store.open(path, create=False) as opened:
        if judge is None:
            passages = opened.search(query, k=count, where=where, diversity=diversity)
        else:
            from preflexor_agents.growth.rerank import open_judge

            with open_judge(judge) as reranker:
                passages = opened.search(query, k=count, where=where, diversity=diversity, reranker=reranker)
    if as_json:
        found = {"query": query, "store": str(path), "passages": [asdict(p) for p in passages]}
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    if not passages:
        is_empty = not browsing.documents(path, most=1)
        why = "; the store holds no documents yet: preflexor ingest PATH… puts some in" if is_empty else ""
        click.echo(f"nothing found{why}", err=True)
    for number, passage in enumerate(passages, 1):
        show(number, passage)
        if explain:
            click.echo(click.style(f"    {explanation(passage)}\n", dim=True))


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


def explanation(passage: "Passage") -> str:
    """How the fused score came about, from both ranks and both raw scores."""
    from preflexor_agents.store.search import RRF_K

    parts, terms = [], []
    for kind, measure, rank, score in (
        ("words", "bm25", passage.text_rank, passage.text_score),
        ("meaning", "cosine", passage.vector_rank, passage.vector_score),
    ):
        if rank is None or score is None:
            parts.append(f"{kind}: not among the best")
            continue
        parts.append(f"{kind}: {measure} {score:.3f}, rank {rank}")
        terms.append(f"1/({RRF_K}+{rank})")
    return f"{'; '.join(parts)}; score {' + '.join(terms)} = {passage.score:.5f}"
