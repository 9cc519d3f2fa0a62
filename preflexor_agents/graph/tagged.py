"""Reads the graphs that models write into their thinking: the tagged text forms of two published families. Pure.

* graph-preflexor (github.com/lamm-mit/graph-preflexor-grpo): `<graph_json>` holds `{"nodes": [...], "edges": [...]}`,
  `<patterns>` holds chains of nodes, `A → B → C (why)`.
* Graph-PRefLexOR (arXiv 2501.08120): lines `[A] -[IS-A]-> [B]`, then an abstract pattern, a chain of Greek letters,
  with lines that say what the letters stand for.

Every edge and pattern comes with its place in the text, so that it can be quoted. Edges whose ends are not among the
nodes are told apart: between a third and a half of published graphs have some.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from preflexor_agents.graph import chains
from preflexor_agents.graph.chains import TaggedPattern

_BLOCK = r"<{0}>(?P<body>.*?)(?:</{0}>|(?=<(?:think|brainstorm|graph|graph_json|patterns|synthesis)>)|(?=</think>)|\Z)"
_GRAPH_JSON = re.compile(_BLOCK.format("graph_json"), re.DOTALL)
_PATTERNS = re.compile(_BLOCK.format("patterns"), re.DOTALL)
_GRAPH = re.compile(_BLOCK.format("graph"), re.DOTALL)
_FENCE = re.compile(r"\s*```[a-z]*\s*(?P<body>.*?)(?:```\s*|\Z)", re.DOTALL)
_EDGE_LINE = re.compile(r"^[^\S\n]*(?:[-*\u2022]|\d{1,6}[.)])?[^\S\n]*(?P<edges>[^\s-][^\n]*)$", re.MULTILINE)
_ARROW = re.compile(r"-{1,4}\[([^\[\]\n]{1,200})\]-{0,4}>")
_LONGEST_LINE = 2000
_PATTERN_HEADING = re.compile(r"^[#* \t]*Abstract Patterns?\b[^\n]*$", re.MULTILINE | re.IGNORECASE)
_HEADING = re.compile(r"^(?:#{1,6}\s|\*\*[^*\n]+\*\*:?\s*$)", re.MULTILINE)
_SOURCE_KEYS, _TARGET_KEYS = ("source", "from", "subject", "src", "head"), ("target", "to", "object", "dst", "tail")
_RELATION_KEYS = ("relation", "label", "type", "predicate", "relationship")
_NAME_KEYS = ("label", "name", "id")
_MOST_CHARACTERS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedNode:
    """A node as the text lists it."""

    id: str
    name: str
    """What a person reads; the id where there is nothing else."""
    type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedEdge:
    """An edge between two listed nodes, and where in the text it is written."""

    source: TaggedNode
    relation: str
    target: TaggedNode
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedGraph:
    """What a text holds of a graph."""

    nodes: tuple[TaggedNode, ...] = ()
    edges: tuple[TaggedEdge, ...] = ()
    dangling: tuple[str, ...] = ()
    """One line for each edge with an end that is not among the nodes, or that lacks a part."""
    patterns: tuple[TaggedPattern, ...] = ()
    problem: str = ""
    """Why there is no graph in the text; empty if there is one."""


def parse(text: str) -> TaggedGraph:
    """The graph and the patterns of a text in any of the tagged forms; nothing is raised for what cannot be read."""
    if len(text) > _MOST_CHARACTERS:
        return TaggedGraph(problem=f"it has {len(text)} characters, more than {_MOST_CHARACTERS}")
    block = _best(_GRAPH_JSON, text)
    if block is not None:
        graph = _from_json(text, *block.span("body"))
    elif text.lstrip().startswith("{"):
        graph = _from_json(text, 0, len(text))
    else:
        graph = _from_lines(text)
    if graph.problem:
        return graph
    found = chains.patterns(text, *_pattern_span(text), relations=_relations(graph), symbols=_symbol_span(text))
    return TaggedGraph(nodes=graph.nodes, edges=graph.edges, dangling=graph.dangling, patterns=tuple(found))


def excerpt(text: str) -> str:
    """The parts of a text that hold its graph, verbatim; the whole text where they are not tagged."""
    blocks = [_best(block, text) for block in (_GRAPH, _GRAPH_JSON, _PATTERNS)]
    return "\n\n".join(block[0].strip() for block in blocks if block) or text


def _best(block: re.Pattern[str], text: str) -> re.Match[str] | None:
    """Of the blocks with that tag the last one that can be used, else the last one: models repeat and abbreviate."""
    matches = list(block.finditer(text))
    is_json = block is _GRAPH_JSON
    usable = (
        m
        for m in reversed(matches)
        if m["body"].strip() and not (is_json and _from_json(text, *m.span("body")).problem)
    )
    return next(usable, matches[-1] if matches else None)


def _from_json(text: str, start: int, end: int) -> TaggedGraph:
    fence = _FENCE.match(text, start, end)
    if fence:
        start, end = fence.span("body")
    body = text[start:end].strip()
    if not body:
        return TaggedGraph(problem="its graph block is empty")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        return TaggedGraph(problem=f"its graph block is no JSON: {reason}")
    if not isinstance(value, dict) or not isinstance(value.get("nodes"), list):
        return TaggedGraph(problem='its graph block has no list of "nodes"')
    listed = value.get("edges", value.get("links", []))
    if not isinstance(listed, list):
        return TaggedGraph(problem='its "edges" are no list')
    nodes: dict[str, TaggedNode] = {}
    for node in map(_node, value["nodes"]):
        if node is not None:
            nodes.setdefault(node.id, node)
    return _with_edges(nodes, zip(listed, _places(text, start, end, listed), strict=True))


def _node(value: Any) -> TaggedNode | None:
    if not isinstance(value, dict):
        id = _text(value)
        return TaggedNode(id=id, name=id) if id else None
    names = [_text(value.get(key)) for key in _NAME_KEYS]
    id = names[-1] or next(filter(None, names), "")
    name = next(filter(None, names), "")
    return TaggedNode(id=id, name=name, type=_text(value.get("type"))) if id else None


def _text(value: Any) -> str:
    """A name as text; empty for what is no name."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value).strip()


def _with_edges(nodes: dict[str, TaggedNode], listed: Iterator[tuple[Any, tuple[int, int]]]) -> TaggedGraph:
    edges, dangling = [], []
    for value, (start, end) in listed:
        source, relation, target = _parts(value)
        missing = [id for id in (source, target) if id not in nodes]
        if relation and not missing:
            ends = {"source": nodes[source], "target": nodes[target]}
            edges.append(TaggedEdge(**ends, relation=relation, start=start, end=end))
            continue
        said = " | ".join(part or "(empty)" for part in (source, relation, target))
        lacking = " and ".join(dict.fromkeys(repr(id) for id in missing if id))
        why = f"{lacking} not among the nodes" if lacking else "a part is missing"
        dangling.append(f"{said}: {why}")
    return TaggedGraph(nodes=tuple(nodes.values()), edges=tuple(edges), dangling=tuple(dangling))


def _parts(value: Any) -> tuple[str, str, str]:
    """Source, relation and target of an edge; empty where it has none."""
    if isinstance(value, list) and len(value) == 3:
        source, relation, target = map(_text, value)
        return source, relation, target
    if not isinstance(value, dict):
        return "", "", ""
    source, relation, target = (
        next(filter(None, (_text(value.get(key)) for key in keys)), "")
        for keys in (_SOURCE_KEYS, _RELATION_KEYS, _TARGET_KEYS)
    )
    return source, relation, target


def _places(text: str, start: int, end: int, listed: list[Any]) -> Iterator[tuple[int, int]]:
    """Where each edge of the list is written; the whole block where that cannot be told."""
    keys = (text.find(f'"{key}"', start, end) for key in ("edges", "links"))
    at = min((place for place in keys if place >= 0), default=end)
    for edge in listed:
        place = _place(text, at, end, edge)
        at = place[1] if place else end
        yield place or (start, end)


def _place(text: str, start: int, end: int, edge: Any) -> tuple[int, int] | None:
    decoder = json.JSONDecoder()
    opener = "[" if isinstance(edge, list) else "{"
    at = text.find(opener, start, end)
    while at >= 0:
        try:
            value, stop = decoder.raw_decode(text, at)
        except ValueError:
            value, stop = None, at
        if value == edge and value is not None:
            return at, stop
        at = text.find(opener, at + 1, end)
    return None


def _from_lines(text: str) -> TaggedGraph:
    """Lines of the form `[A] -[REL]-> [B]`, chains of them too; every end is a node, so none dangles."""
    nodes: dict[str, TaggedNode] = {}
    edges = []
    for line in _EDGE_LINE.finditer(text):
        parts = _ARROW.split(line["edges"]) if len(line["edges"]) <= _LONGEST_LINE else []
        ends = [_bare(part) for part in parts[::2]]
        for source, relation, target in zip(ends, parts[1::2], ends[1:], strict=False):
            if source and target:
                pair = [nodes.setdefault(name, TaggedNode(id=name, name=name)) for name in (source, target)]
                place = {"start": line.start("edges"), "end": line.start("edges") + len(line["edges"].rstrip())}
                edges.append(TaggedEdge(source=pair[0], relation=_bare(relation), target=pair[1], **place))
    if not edges:
        return TaggedGraph(problem="it has no graph block and no lines of the form [A] -[REL]-> [B]")
    return TaggedGraph(nodes=tuple(nodes.values()), edges=tuple(edges))


def _bare(name: str) -> str:
    """The name without brackets, emphasis and final punctuation."""
    return re.sub(r"[*`]+", "", name).strip().rstrip(".,;").strip("[]() ").strip()


def _pattern_span(text: str) -> tuple[int, int]:
    """Where the patterns are: the tagged block, else the section under the heading `Abstract Pattern`."""
    block = _best(_PATTERNS, text)
    return block.span("body") if block else _symbol_span(text)


def _symbol_span(text: str) -> tuple[int, int]:
    """Where Greek letters stand for concepts: under the heading `Abstract Pattern`."""
    heading = _PATTERN_HEADING.search(text)
    if heading is None:
        return (0, 0)
    following = _HEADING.search(text, heading.end())
    return heading.end(), following.start() if following else len(text)


def _relations(graph: TaggedGraph) -> chains.Relations:
    """What stands between two names, and the name behind each way of writing it."""
    names = {chains.key(written): node.name for node in graph.nodes for written in (node.id, node.name)}
    kinds = {(chains.key(e.source.name), chains.key(e.target.name)): e.relation for e in reversed(graph.edges)}
    return chains.Relations(names=names, kinds=kinds)
