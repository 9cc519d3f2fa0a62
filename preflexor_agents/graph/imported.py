"""Graphs that other programs wrote, as ours: which attribute names a node, which one says what an edge means. Pure."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from preflexor_agents.errors import InputError
from preflexor_agents.graph import evidence_rows
from preflexor_agents.graph.values import Entity, Evidence, Graph, Relation

NAME_KEYS = ("name", "label", "nodelabel", "title", "entityname", "sharedname")
"""Attributes that name a node, best first, folded as `_folded` does."""
TYPE_KEYS = ("type", "entitytype", "nodetype", "category", "kind", "labels", "class")
KIND_KEYS = (
    *("kind", "label", "edgelabel", "relation", "relationship", "relationtype", "predicate", "interaction"),
    *("title", "type", "name", "keywords"),
)
SEEN_LABEL = "preflexor seen label"
"""The attribute under which a reader hands over the label that a drawing shows; it wins over all others."""
NO_KIND = "related to"
"""What an edge without a label says."""
_OUR_ID = re.compile(r"[a-z]?([1-9]\d{0,17})")
_DIRECTIONS = frozenset(("directed", "undirected"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignNode:
    """A node as a file has it."""

    id: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignEdge:
    """An edge as a file has it; its ends may be missing."""

    id: str = ""
    source: str
    target: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What a file holds, and one line for each thing in it that is in no graph."""

    graph: Graph
    left_out: tuple[str, ...] = ()


def as_graph(nodes: Iterable[ForeignNode], edges: Iterable[ForeignEdge]) -> Imported:
    """The graph that nodes and edges make; an edge without both ends, or a second node of one id, is left out.

    Ids of ours (`n7`, `e7`, `7`) are kept, others are numbered in order; edges that say the same become one.
    """
    left_out: list[str] = []
    known: dict[str, ForeignNode] = {}
    for node in nodes:
        if node.id in known:
            left_out.append(f"node {node.id!r} is there twice; the first one counts")
        known.setdefault(node.id, node)
    ids = dict(zip(known, _numbers(list(known)), strict=True))
    found: dict[tuple[int, str, int], list[ForeignEdge]] = {}
    for number, edge in enumerate(edges, 1):
        missing = [end for end in dict.fromkeys((edge.source, edge.target)) if end not in ids]
        if missing:
            names = " and ".join(map(repr, missing))
            left_out.append(f"edge {number} from {edge.source!r} to {edge.target!r}: no node {names}")
            continue
        found.setdefault((ids[edge.source], _kind(edge), ids[edge.target]), []).append(edge)
    numbers = _numbers([same[0].id for same in found.values()])
    relations = []
    evidence = {}
    for id, ((source, kind, target), same) in zip(numbers, found.items(), strict=True):
        weight = sum(_weight(edge.attributes) for edge in same)
        relations.append(Relation(id=id, source=source, kind=kind, target=target, weight=weight))
        quotes = tuple(quote for edge in same for quote in _evidence(edge.attributes, id))
        if quotes:
            evidence[id] = quotes
    entities = tuple(_entity(ids[node.id], node) for node in known.values())
    graph = Graph(entities=entities, relations=tuple(relations), evidence=evidence)
    return Imported(graph=graph, left_out=tuple(left_out))


def _numbers(ids: list[str]) -> Iterable[int]:
    """The numbers in ids of ours if all are of that form, else 1, 2, 3…"""
    ours = [int(match[1]) for match in map(_OUR_ID.fullmatch, ids) if match]
    return ours if len(set(ours)) == len(ids) else range(1, len(ids) + 1)


def _entity(id: int, node: ForeignNode) -> Entity:
    name = _first(node.attributes, NAME_KEYS) or node.id
    type = _first(node.attributes, TYPE_KEYS)
    if "labels" in node.attributes:
        type = type.removeprefix(":")
    return Entity(id=id, name=name, type=type, aliases=tuple(_aliases(node.attributes)))


def _kind(edge: ForeignEdge) -> str:
    said = {k: v for k, v in edge.attributes.items() if _folded(k) != "type" or v.lower() not in _DIRECTIONS}
    return _first(said, KIND_KEYS) or NO_KIND


def _first(attributes: Mapping[str, str], keys: Iterable[str]) -> str:
    """The first of these attributes that says something; a label that is seen wins for names and kinds."""
    folded = {_folded(key): value for key, value in reversed(list(attributes.items())) if value.strip()}
    seen = folded.get(_folded(SEEN_LABEL), "") if keys is not TYPE_KEYS else ""
    return seen or next((folded[key] for key in keys if key in folded), "")


def _folded(key: str) -> str:
    return re.sub(r"[\s_-]+", "", key.lower())


def _aliases(attributes: Mapping[str, str]) -> Iterator[str]:
    try:
        found = json.loads(attributes.get("aliases", "[]"))
    except (ValueError, RecursionError):
        return
    yield from (alias for alias in (found if isinstance(found, list) else []) if isinstance(alias, str))


def _weight(attributes: Mapping[str, str]) -> int:
    """Pieces of evidence; what others call the weight of an edge says nothing about evidence."""
    return int(attributes["weight"]) if re.fullmatch(r"[1-9]\d{0,8}", attributes.get("weight", "")) else 1


def _evidence(attributes: Mapping[str, str], relation: int) -> tuple[Evidence, ...]:
    """The evidence that a file of ours holds; what another program made of it is no evidence."""
    try:
        return evidence_rows.from_text(attributes.get("evidence", ""), relation=relation)
    except InputError:
        return ()
