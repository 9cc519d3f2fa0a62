"""Knowledge graphs inside a row's thinking: the schema that holds the teacher, what is kept of its reply, how it reads.

Between a third and a half of the published graphs have an edge whose end is not among their nodes; here every edge has
both its ends and a relation of the domain pack, whatever the teacher wrote.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from preflexor_agents import markup
from preflexor_agents.graph import chains, tagged
from preflexor_agents.packs import Pack
from preflexor_agents.store import graph_names
from preflexor_training.forge.steps import Dropped

BLOCKS = ("brainstorm", "graph", "graph_json", "patterns", "synthesis")
"""Tagged blocks of typed thinking (graph-preflexor-grpo), in their order."""
TAGS = (*markup.TAGS, *(tag for name in BLOCKS for tag in (f"<{name}>", f"</{name}>")))
"""What no text inside a thinking may spell."""
LEVELS = ("micro", "meso", "macro")
LONGEST_NAME = 60
"""Characters; a longer one is a sentence, and no reader of patterns takes it for a concept."""
_MOST = {False: (8, 12), True: (20, 30)}
"""Nodes and edges; published: 3 to 5 concepts, and 5 to 20 nodes in the typed form."""
_UNTIED = str.maketrans({**dict.fromkeys("[]()"), "\u2192": "-"})


class Edge(NamedTuple):
    """A relation between two nodes, by their ids."""

    source: str
    relation: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptGraph:
    """A graph in which every edge has both its ends and every node an edge."""

    nodes: Mapping[str, Mapping[str, str]]
    """Id -> its type and level, where it has them."""
    edges: tuple[Edge, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    """What was left out of the teacher's reply, by kind."""

    def lines(self) -> str:
        """The published text form, an edge a line: `[A] -[relation]-> [B]`."""
        return "\n".join(f"[{edge.source}] -[{edge.relation}]-> [{edge.target}]" for edge in self.edges)

    def json(self) -> str:
        """The machine-readable form of the typed variant."""
        nodes = [{"id": id, **marks} for id, marks in self.nodes.items()]
        return json.dumps({"nodes": nodes, "edges": [edge._asdict() for edge in self.edges]}, ensure_ascii=False)


def schema(pack: Pack, *, typed: bool) -> dict[str, Any]:
    """The JSON schema of a teacher's graph: relations, and types of nodes, of the pack only."""
    name = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}
    node: dict[str, Any] = {"id": name}
    if typed:
        node |= {"type": {"enum": list(pack.entity_types)}, "level": {"enum": list(LEVELS)}}
    edge = {"source": name, "relation": {"enum": list(pack.relations)}, "target": name}
    nodes, edges = _MOST[typed]
    return _object(
        {
            "nodes": {"type": "array", "items": _object(node, optional=("level",)), "minItems": 2, "maxItems": nodes},
            "edges": {"type": "array", "items": _object(edge), "minItems": 1, "maxItems": edges},
        }
    )


def edges_schema(pack: Pack, nodes: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of edges between these nodes only, so that none can dangle or end where it begins."""
    relation = {"enum": list(pack.relations)}
    edges = [
        _object({"source": {"enum": [node]}, "relation": relation, "target": {"enum": [n for n in nodes if n != node]}})
        for node in nodes
    ]
    return _object({"edges": {"type": "array", "items": {"anyOf": edges}, "minItems": 1, "maxItems": 2 * len(nodes)}})


def read(reply: str, pack: Pack, *, nodes_from: str = "") -> ConceptGraph:
    """The graph in a teacher's reply, without what does not belong into one.

    Args:
        reply: The teacher's JSON.
        pack: Says which relations and types there are.
        nodes_from: The reply that holds the nodes, where this one has only edges.

    Raises:
        Dropped: it is no JSON of that form (`bad_json`), or no edge of it can be kept (`no_graph`).
    """
    counts: Counter[str] = Counter()
    nodes = _nodes(_listed(nodes_from or reply, "nodes"), pack, counts)
    listed = _listed(reply, "edges")
    edges = tuple(dict.fromkeys(_edges(listed, nodes, pack, counts)))
    if not edges:
        raise Dropped("no_graph", f"none of {len(listed)} edges has both ends among the nodes and a known relation")
    tied = {id for edge in edges for id in (edge.source, edge.target)}
    kept = {id: marks for id, marks in nodes.values() if id in tied}
    counts["nodes_alone"] = len(nodes) - len(kept)
    return ConceptGraph(nodes=kept, edges=edges, counts=+counts)


def names(reply: str, pack: Pack) -> tuple[str, ...]:
    """The nodes of a reply whose edges are of no use; none, if edges between them could not be of use either."""
    try:
        found = tuple(id for id, _ in _nodes(_listed(reply, "nodes"), pack, Counter()).values())
    except Dropped:
        return ()
    return found if len(found) > 1 else ()


def longest_chain(graph: ConceptGraph) -> tuple[str, ...]:
    """Ids along the longest walk that meets no node twice; of equal ones the first."""
    after: dict[str, list[str]] = defaultdict(list)
    for edge in graph.edges:
        after[edge.source].append(edge.target)
    best: tuple[str, ...] = ()
    budget = 20_000
    walks: list[tuple[str, ...]] = [(id,) for id in reversed(list(graph.nodes))]
    while walks and budget:
        budget -= 1
        walk = walks.pop()
        best = max(best, walk, key=len)
        walks += [(*walk, id) for id in reversed(after[walk[-1]]) if id not in walk]
    return best


def abstract(graph: ConceptGraph) -> str:
    """The longest chain in Greek letters, with a line for what each stands for."""
    chain = longest_chain(graph)
    letters = [chains.letter(n) for n in range(len(chain))]
    names = [f"{letter}: {name}" for letter, name in zip(letters, chain, strict=True)]
    return "\n".join((" \u2192 ".join(letters), *names))


def has_pattern(text: str) -> bool:
    """Whether the thinking holds an abstract pattern that can be read back."""
    return bool(tagged.parse(text).patterns)


def _listed(reply: str, key: str) -> list[Any]:
    """A list in a JSON object; models that are held to a grammar put line breaks into strings."""
    try:
        said = json.loads(reply, strict=False)
    except (ValueError, RecursionError):
        raise Dropped("bad_json", f"the graph is no JSON: {reply[:60]!r}") from None
    listed = said.get(key) if isinstance(said, dict) else None
    if not isinstance(listed, list):
        raise Dropped("bad_json", f"the graph has no list of {key}: {reply[:60]!r}")
    return listed


def _object(properties: Mapping[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def _nodes(listed: list[Any], pack: Pack, counts: Counter[str]) -> dict[str, tuple[str, dict[str, str]]]:
    """Identity -> id and marks; the first of several that are the same stands."""
    nodes: dict[str, tuple[str, dict[str, str]]] = {}
    for node in listed:
        id = _name(node.get("id") if isinstance(node, dict) else node)
        if not id:
            counts["nodes_refused"] += 1
            continue
        marks = {}
        if isinstance(node, dict) and node.get("type") in pack.entity_types:
            marks["type"] = node["type"]
        if isinstance(node, dict) and node.get("level") in LEVELS:
            marks["level"] = node["level"]
        counts["nodes_repeated"] += graph_names.identity(id) in nodes
        nodes.setdefault(graph_names.identity(id), (id, marks))
    return nodes


def _edges(listed: list[Any], nodes: Mapping[str, tuple[str, Any]], pack: Pack, counts: Counter[str]) -> Iterator[Edge]:
    known = {graph_names.kind(relation): relation for relation in pack.relations}
    for edge in listed:
        said = edge if isinstance(edge, dict) else {}
        ends = [nodes.get(graph_names.identity(_name(said.get(key)))) for key in ("source", "target")]
        relation = known.get(graph_names.kind(str(said.get("relation", ""))))
        source, target = (end[0] if end else None for end in ends)
        if source is None or target is None:
            counts["edges_dangling"] += 1
        elif relation is None:
            counts["edges_of_unknown_relation"] += 1
        elif source == target:
            counts["edges_to_self"] += 1
        else:
            yield Edge(source, relation, target)


def _name(said: Any) -> str:
    """A concept's name on one line, without what the text forms are tied together with; empty for what is no name."""
    if not isinstance(said, str):
        return ""
    name = graph_names.clean(markup.neutralise(said.translate(_UNTIED), TAGS))
    return name.strip(" .,;-*`") if len(name) <= LONGEST_NAME else ""
