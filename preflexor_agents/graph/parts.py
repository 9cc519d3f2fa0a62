"""Parts of a graph: how well each entity is connected, and the best connected of them."""

from collections import Counter

from preflexor_agents.graph.values import Graph


def connections(graph: Graph) -> Counter[int]:
    """Relations at each entity, by entity id; a relation of an entity with itself counts once."""
    counts = Counter({entity.id: 0 for entity in graph.entities})
    counts.update(end for relation in graph.relations for end in {relation.source, relation.target})
    return counts


def best_connected(graph: Graph, *, most: int) -> Graph:
    """The `most` entities with the most relations, ties by name and id, and what is between them; order is kept."""
    if len(graph.entities) <= most:
        return graph
    counts = connections(graph)
    ranked = sorted(graph.entities, key=lambda e: (-counts[e.id], e.name, e.id))
    kept = {entity.id for entity in ranked[:most]}
    relations = tuple(r for r in graph.relations if r.source in kept and r.target in kept)
    return Graph(
        entities=tuple(e for e in graph.entities if e.id in kept),
        relations=relations,
        evidence={r.id: graph.evidence[r.id] for r in relations if r.id in graph.evidence},
    )
