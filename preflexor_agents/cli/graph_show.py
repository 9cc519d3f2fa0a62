"""`preflexor graph show` and `graph path`: the graph on a terminal, with the quotes it stands on."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import click

from preflexor_agents.cli.options import json_option, store_option
from preflexor_agents.cli.store import file_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from preflexor_agents.graph.values import Entity, Evidence, Graph, GraphPath, Relation
    from preflexor_agents.store import Store

MOST_QUOTES = 3
MOST_ROWS = 20
MOST_NAMES = 8
"""Of a community."""
FAN_OUT = 1000
"""Neighbours of the entity that is shown."""
FAR_FAN_OUT = 25
"""Neighbours of each, where theirs are shown too."""


@dataclass(slots=True)
class Branch:
    """A line, and the lines below it."""

    text: str
    style: str = ""
    below: "list[Branch]" = field(default_factory=list)


@click.command(name="show", short_help="Show an entity with its relations and quotes, or the whole in numbers.")
@click.argument("entity", required=False)
@click.option("--hops", type=click.IntRange(1, 4), default=1, show_default=True, help="How far from the entity to go.")
@click.option("--all", "whole", is_flag=True, help="Show every quote, not only the first three of a relation.")
@store_option
@json_option
def show_command(*, entity: str | None, hops: int, whole: bool, store: str | None, as_json: bool) -> None:
    """Show what the graph knows of ENTITY: its relations by kind, and the quotes that say so, with source and page.

    Without ENTITY: how much there is, the best connected entities and the kinds of relations.
    """
    from preflexor_agents.store import Store

    with Store.open(file_of(store), create=False) as opened:
        if entity is None:
            _overview(opened, as_json=as_json)
            return
        found = opened.graph.entity(entity)
        graph = opened.graph.neighbourhood(found.id, hops=hops, fan_out=FAN_OUT if hops == 1 else FAR_FAN_OUT)
    if as_json:
        _print_json({"entity": asdict(found), "hops": hops, **_graph_json(graph)})
    else:
        draw(entity_tree(found, graph, hops=hops, most_quotes=None if whole else MOST_QUOTES))


@click.command(name="path", short_help="Show how two entities are connected, with quotes.")
@click.argument("start")
@click.argument("end")
@click.option(
    "-k", "most", type=click.IntRange(1, 100), default=3, show_default=True, metavar="N", help="Paths to show."
)
@click.option(
    "--max-hops", type=click.IntRange(1, 12), default=6, show_default=True, help="The longest path to look for."
)
@store_option
@json_option
def path_command(*, start: str, end: str, most: int, max_hops: int, store: str | None, as_json: bool) -> None:
    """Show the shortest paths from START to END; a relation may be walked in either direction."""
    from preflexor_agents.store import Store

    with Store.open(file_of(store), create=False) as opened:
        ends = opened.graph.entity(start), opened.graph.entity(end)
        paths = opened.graph.paths(ends[0].id, ends[1].id, most=most, max_hops=max_hops)
        evidence = opened.graph.evidence(sorted({r.id for path in paths for r in path.relations}))
    if as_json:
        _print_json({"from": asdict(ends[0]), "to": asdict(ends[1]), "paths": [_path_json(p, evidence) for p in paths]})
        return
    if not paths:
        click.echo(f"no path of at most {max_hops} steps", err=True)
    for path in paths:
        draw(path_tree(path, evidence))


@click.command(name="communities", short_help="List groups of entities that hang together.")
@click.option(
    "-k", "most", type=click.IntRange(1, 1000), default=10, show_default=True, metavar="N", help="Groups to show."
)
@store_option
@json_option
def communities_command(*, most: int, store: str | None, as_json: bool) -> None:
    """List groups of entities that hang together more than with others, largest first, by their best connected."""
    from preflexor_agents.cli.show import inert
    from preflexor_agents.graph.parts import connections
    from preflexor_agents.store import Store

    with Store.open(file_of(store), create=False) as opened:
        found = opened.graph.communities()[:most]
        graph = opened.graph.whole()
    names = {e.id: e.name for e in graph.entities}
    degrees = connections(graph)
    groups = [sorted(ids, key=lambda id: (-degrees[id], names[id])) for ids in found]
    if as_json:
        _print_json({"communities": [{"size": len(ids), "entities": [names[id] for id in ids]} for ids in groups]})
        return
    if not groups:
        click.echo("the graph is empty", err=True)
    for ids in groups:
        shown = ", ".join(names[id] for id in ids[:MOST_NAMES]) + (", …" if len(ids) > MOST_NAMES else "")
        click.echo(f"{len(ids):7}  {inert(shown)}")


def entity_tree(entity: "Entity", graph: "Graph", *, hops: int, most_quotes: int | None) -> Branch:
    """What the graph says of an entity; what it says of its neighbours stands below them, each relation once."""
    names = {e.id: e for e in graph.entities}
    at: dict[int, list[Relation]] = {e.id: [] for e in graph.entities}
    for relation in graph.relations:
        for end in {relation.source, relation.target}:
            at[end].append(relation)
    root = Branch(_named(entity) + (f", also {', '.join(entity.aliases)}" if entity.aliases else ""), "bold")
    told: set[int] = set()
    front = [(entity.id, root)]
    for _ in range(hops):
        reached: list[tuple[int, Branch]] = []
        for id, branch in front:
            new = [r for r in at[id] if r.id not in told]
            told.update(r.id for r in new)
            reached += _relation_rows(branch, id, new, names, graph.evidence, most_quotes)
        front = reached
    return root


def _relation_rows(
    branch: Branch,
    id: int,
    relations: "Iterable[Relation]",
    names: "Mapping[int, Entity]",
    evidence: "Mapping[int, tuple[Evidence, ...]]",
    most_quotes: int | None,
) -> list[tuple[int, Branch]]:
    """Put relations of an entity below it, by kind; returns the neighbours with their rows."""
    kinds: dict[str, list[Relation]] = {}
    for r in relations:
        kinds.setdefault(f"{r.kind} →" if r.source == id else f"← {r.kind}", []).append(r)
    rows = []
    for kind, same in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0])):
        group = Branch(f"{kind} ({len(same)})", "cyan")
        branch.below.append(group)
        for r in sorted(same, key=lambda r: (-r.weight, r.id)):
            other = r.target if r.source == id else r.source
            count = f"{r.weight} quote{'s' if r.weight > 1 else ''}"
            row = Branch(f"{_named(names[other])} · {count}", "", list(_quotes(evidence.get(r.id, ()), most_quotes)))
            group.below.append(row)
            rows.append((other, row))
    return rows


def path_tree(path: "GraphPath", evidence: "Mapping[int, tuple[Evidence, ...]]") -> Branch:
    """A path, a line for each step."""
    ends = path.entities[0].name, path.entities[-1].name
    steps = len(path.relations)
    root = Branch(f"{ends[0]} to {ends[1]}: {steps} step{'s' if steps != 1 else ''}", "bold")
    for here, there, r in zip(path.entities, path.entities[1:], path.relations, strict=False):
        way = f"{r.kind} →" if r.source == here.id else f"← {r.kind}"
        step = Branch(f"{here.name} {way} {there.name}", "cyan", list(_quotes(evidence.get(r.id, ()), MOST_QUOTES)))
        root.below.append(step)
    return root


def _named(entity: "Entity") -> str:
    return f"{entity.name} ({entity.type})" if entity.type else entity.name


def _quotes(found: "tuple[Evidence, ...]", most: int | None) -> "Iterator[Branch]":
    unique = list({(e.source, e.start, e.end): e for e in found}.values())
    for e in unique[:most]:
        page = f", page {e.page}" if e.page is not None else ""
        words = " ".join(e.quote.split())
        yield Branch(f"“{words}” {e.title} ({e.source}{page}, characters {e.start}-{e.end})", "dim")
    if most is not None and len(unique) > most:
        yield Branch(f"and {len(unique) - most} more (--all shows them)", "dim")


def _overview(store: "Store", *, as_json: bool) -> None:
    """The graph in numbers."""
    from preflexor_agents.cli.show import inert
    from preflexor_agents.graph.parts import connections

    counts = store.graph.counts()
    graph = store.graph.whole()
    degrees = connections(graph)
    best = sorted(graph.entities, key=lambda e: (-degrees[e.id], e.name))[:MOST_ROWS]
    kinds = Counter(r.kind for r in graph.relations)
    types = Counter(e.type for e in graph.entities)
    if as_json:
        shown = [{"id": e.id, "name": e.name, "type": e.type, "relations": degrees[e.id]} for e in best]
        _print_json({"counts": asdict(counts), "best_connected": shown, "kinds": dict(kinds), "types": dict(types)})
        return
    if not counts.relations:
        click.echo("the graph is empty", err=True)
        return
    click.echo(
        f"{counts.entities} entities, {counts.relations} relations, {counts.evidence} quotes, from {counts.runs} runs"
    )
    tables = (
        ("best connected", [(_named(e), degrees[e.id]) for e in best]),
        ("relations", kinds.most_common(MOST_ROWS)),
        ("types", [(name or "(none)", count) for name, count in types.most_common(MOST_ROWS)]),
    )
    for title, rows in tables:
        click.echo(click.style(f"\n{title}", bold=True))
        for name, count in rows:
            click.echo(f"{count:7}  {inert(' '.join(name.split()))}")


def draw(branch: Branch) -> None:
    """Print a tree: with guides and colours on a terminal, as indented lines elsewhere."""
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    from preflexor_agents.cli.show import inert

    def line(b: Branch) -> str:
        return inert(" ".join(b.text.split()))

    def plain(b: Branch, depth: int) -> None:
        click.echo("  " * depth + line(b))
        for below in b.below:
            plain(below, depth + 1)

    def grow(b: Branch, tree: Tree) -> Tree:
        for below in b.below:
            grow(below, tree.add(Text(line(below), style=below.style)))
        return tree

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(grow(branch, Tree(Text(line(branch), style=branch.style), guide_style="dim")))
    else:
        plain(branch, 0)


def _graph_json(graph: "Graph") -> dict[str, Any]:
    return {
        "entities": [asdict(e) for e in graph.entities],
        "relations": [_relation_json(r, graph.evidence) for r in graph.relations],
    }


def _path_json(path: "GraphPath", evidence: "Mapping[int, tuple[Evidence, ...]]") -> dict[str, Any]:
    return {
        "entities": [asdict(e) for e in path.entities],
        "relations": [_relation_json(r, evidence) for r in path.relations],
    }


def _relation_json(relation: "Relation", evidence: "Mapping[int, tuple[Evidence, ...]]") -> dict[str, Any]:
    return {**asdict(relation), "evidence": [asdict(e) for e in evidence.get(relation.id, ())]}


def _print_json(found: dict[str, Any]) -> None:
    click.echo(json.dumps(found, ensure_ascii=False, indent=2))
