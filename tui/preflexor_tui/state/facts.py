"""The part of the knowledge graph that a run is about: its entities, what is known of them, how they are connected."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from preflexor_agents.graph.values import Entity, Evidence, GraphPath
from preflexor_agents.store.words import fold

if TYPE_CHECKING:
    from preflexor_agents.store.knowledge_graph import KnowledgeGraph

MOST_ENTITIES = 6
FAN_OUT = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A relation as seen from one of its ends."""

    text: str
    """`consists of → aragonite`, or `← nacre contains`."""
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InPlay:
    """An entity that the question or the answer names."""

    entity: Entity
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the graph has to say about a run."""

    has_graph: bool = False
    """Whether there is any fact in the store."""
    entities: tuple[InPlay, ...] = ()
    paths: tuple[str, ...] = ()
    """How entities in play are connected, in words."""


def facts_about(graph: "KnowledgeGraph", texts: Sequence[str]) -> Facts:
    """What the graph knows of the entities that these texts name; blocks.

    Raises:
        StoreError: the store cannot be read.
    """
    if not graph.counts().relations:
        return Facts()
    named = _named(graph, texts)
    found = []
    for entity in named:
        near = graph.neighbourhood(entity.id, hops=1, fan_out=FAN_OUT)
        names = {e.id: e.name for e in near.entities}
        statements = []
        for relation in near.relations:
            evidence = near.evidence.get(relation.id, ())
            if relation.source == entity.id:
                statements.append(Statement(text=f"{relation.kind} → {names[relation.target]}", evidence=evidence))
            elif relation.target == entity.id:
                statements.append(Statement(text=f"← {names[relation.source]} {relation.kind}", evidence=evidence))
        found.append(InPlay(entity=entity, statements=tuple(statements)))
    paths = []
    for other in named[1:3]:
        paths += [in_words(path) for path in graph.paths(named[0].id, other.id, most=1, max_hops=4)]
    return Facts(has_graph=True, entities=tuple(found), paths=tuple(paths))


def in_words(path: GraphPath) -> str:
    """A walk on one line, each relation with its direction."""
    parts = [path.entities[0].name]
    for here, relation, there in zip(path.entities, path.relations, path.entities[1:], strict=False):
        arrow = f"-{relation.kind}→" if relation.source == here.id else f"←{relation.kind}-"
        parts.append(f"{arrow} {there.name}")
    return " ".join(parts)


def _named(graph: "KnowledgeGraph", texts: Sequence[str]) -> list[Entity]:
    """Entities whose name, or another name of theirs, stands in one of the texts; those of the first text first."""
    folded = [" ".join(fold(text).split()) for text in texts]
    found: dict[int, tuple[int, Entity]] = {}
    for text in texts:
        for entity in graph.find(text[:2000], k=4 * MOST_ENTITIES) if text.strip() else ():
            names = [f" {' '.join(fold(name).split())}" for name in (entity.name, *entity.aliases)]
            where = [n for n, whole in enumerate(folded) if any(name in f" {whole}" for name in names)]
            if where:
                found.setdefault(entity.id, (where[0], entity))
    return [entity for _, entity in sorted(found.values(), key=lambda pair: pair[0])][:MOST_ENTITIES]
