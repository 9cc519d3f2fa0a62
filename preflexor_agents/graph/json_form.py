"""The graph as JSON: our own form, which loses nothing, and the forms in which other programs write nodes and edges.

Ours is one object: `format` is `preflexor-graph`, `version` is 1, then `entities` (id, name, type, aliases),
`relations` (id, source, kind, target, weight), `evidence` (relation, source, title, page, start, end, quote,
chunk_id, run) and `runs` (kind, model, prompt_sha256, seed, note, started_at, id), where `run` counts from 0 in `runs`.
"""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import TypeAdapter

from preflexor_agents.errors import InputError
from preflexor_agents.graph import evidence_rows, node_link
from preflexor_agents.graph.evidence_rows import EvidenceRow
from preflexor_agents.graph.imported import Imported
from preflexor_agents.graph.values import Entity, Evidence, Graph, Relation, Run

FORMAT = "preflexor-graph"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    format: Literal["preflexor-graph"]
    version: Literal[1]
    entities: tuple[Entity, ...]
    relations: tuple[Relation, ...]
    evidence: tuple[EvidenceRow, ...]
    runs: tuple[Run, ...]


def write(graph: Graph) -> str:
    """The graph as JSON, nothing left out."""
    rows = evidence_rows.rows(quote for r in graph.relations for quote in graph.evidence.get(r.id, ()))
    file = _File(
        format="preflexor-graph",
        version=1,
        entities=graph.entities,
        relations=graph.relations,
        evidence=tuple(rows.evidence),
        runs=tuple(rows.runs),
    )
    return json.dumps(asdict(file), ensure_ascii=False, indent=1) + "\n"


def read(data: bytes) -> Imported:
    """The graph in a JSON file: ours, node-link (networkx, d3), Cytoscape.js, graphology or JSON Graph Format.

    Raises:
        InputError: the file is no JSON, or JSON that holds no graph, or of a newer version.
    """
    found = evidence_rows.value(data)
    if not isinstance(found, dict):
        raise InputError("the JSON holds no graph; an object with entities and relations, or nodes and edges, is one")
    if found.get("format") != FORMAT:
        return node_link.read(found)
    if found.get("version") != VERSION:
        version = found.get("version")
        raise InputError(f"the graph has version {version!r}, this program knows {VERSION}; update preflexor-agents")
    file = evidence_rows.checked(TypeAdapter(_File), found)
    ids = {entity.id for entity in file.entities}
    if len(ids) < len(file.entities) or len({r.id for r in file.relations}) < len(file.relations):
        raise InputError("the graph has two entities or two relations of one id; export it again")
    whole = tuple(r for r in file.relations if {r.source, r.target} <= ids)
    kept = {r.id for r in whole}
    evidence = defaultdict[int, list[Evidence]](list)
    for row in file.evidence:
        if row.relation in kept:
            evidence[row.relation].append(evidence_rows.evidence(row, file.runs, relation=row.relation))
    return Imported(
        graph=Graph(
            entities=file.entities,
            relations=whole,
            evidence={relation: tuple(quotes) for relation, quotes in evidence.items()},
        ),
        left_out=tuple(_dangling(r, ids) for r in file.relations if r.id not in kept),
    )


def _dangling(relation: Relation, ids: set[int]) -> str:
    missing = " and ".join(str(end) for end in sorted({relation.source, relation.target} - ids))
    return f"relation {relation.id} from {relation.source} to {relation.target}: no entity {missing}"
