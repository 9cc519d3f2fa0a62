"""What a graph may ask next: where little is known, what may be related, what lies far apart. Pure.

The missing links are ranked by Adamic and Adar 2003 (Social Networks 25): a shared neighbour counts the more, the fewer
neighbours it has.
"""

import math
from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, combinations, repeat, zip_longest
from typing import Literal

from preflexor_agents.graph.values import Entity, Graph
from preflexor_agents.packs import Pack

Kind = Literal["bridge", "missing_link", "frontier"]
FRONTIER_DEGREE = 2
"""An entity with at most so many neighbours is at the frontier."""
BRIDGE_HOPS = 4
"""Two entities at least so many hops apart are distant."""
_HUBS = 12
_MOST_NEIGHBOURS = 50
"""An entity with more neighbours says little about which of them belong together."""

Neighbours = Mapping[int, frozenset[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A question and why it is asked."""

    kind: Kind
    entities: tuple[Entity, ...]
    question: str


def proposals(graph: Graph, pack: Pack, *, asked: Collection[str] = ()) -> Iterator[Proposal]:
    """The questions that the graph has not asked yet, of each kind in turn, the best first; none twice."""
    named = {entity.id: entity for entity in graph.entities}
    near = neighbours(graph)
    said = set(asked)
    kinds: tuple[Iterator[tuple[Kind, tuple[int, ...]]], ...] = (
        zip(repeat("bridge"), bridges(near)),
        zip(repeat("missing_link"), missing_links(near)),
        zip(repeat("frontier"), frontier(near)),
    )
    for kind, ids in filter(None, chain.from_iterable(zip_longest(*kinds))):
        entities = tuple(named[id] for id in ids)
        question = _question(kind, entities, pack)
        if question not in said:
            said.add(question)
            yield Proposal(kind=kind, entities=entities, question=question)


def neighbours(graph: Graph) -> Neighbours:
    """Entity id -> ids of those related to it, in either direction."""
    near: dict[int, set[int]] = {entity.id: set() for entity in graph.entities}
    for relation in graph.relations:
        if relation.source != relation.target:
            near[relation.source].add(relation.target)
            near[relation.target].add(relation.source)
    return {id: frozenset(found) for id, found in near.items()}


def frontier(near: Neighbours) -> Iterator[tuple[int]]:
    """Entities of which little is known, those next to well-known ones first."""
    little = [id for id in near if len(near[id]) <= FRONTIER_DEGREE]
    for id in sorted(little, key=lambda id: (-max((len(near[n]) for n in near[id]), default=0), len(near[id]), id)):
        yield (id,)


def missing_links(near: Neighbours) -> Iterator[tuple[int, int]]:
    """Pairs without a relation that share at least two neighbours, the likeliest first."""
    scores: dict[tuple[int, int], float] = defaultdict(float)
    shared: dict[tuple[int, int], int] = defaultdict(int)
    for middle in near.values():
        if 2 <= len(middle) <= _MOST_NEIGHBOURS:
            for pair in combinations(sorted(middle), 2):
                if pair[1] not in near[pair[0]]:
                    scores[pair] += 1 / math.log(1 + len(middle))
                    shared[pair] += 1
    yield from sorted((pair for pair in scores if shared[pair] > 1), key=lambda pair: (-scores[pair], pair))


def bridges(near: Neighbours) -> Iterator[tuple[int, int]]:
    """Pairs of well-connected entities that are far apart or not connected at all, the farthest first."""
    hubs = sorted(near, key=lambda id: (-len(near[id]), id))[:_HUBS]
    apart = {hub: _hops(near, hub) for hub in hubs}
    pairs = [(apart[a].get(b, math.inf), a, b) for a, b in combinations(sorted(hubs), 2)]
    for hops, a, b in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:])):
        if hops >= BRIDGE_HOPS:
            yield a, b


def _hops(near: Neighbours, start: int) -> dict[int, int]:
    found, queue = {start: 0}, deque([start])
    while queue:
        here = queue.popleft()
        for there in near[here]:
            if there not in found:
                found[there] = found[here] + 1
                queue.append(there)
    return found


def _question(kind: Kind, entities: tuple[Entity, ...], pack: Pack) -> str:
    """The pack's question with the names put in; a brace in a name stays what it is."""
    form: str = getattr(pack.questions, kind)
    for mark, entity in zip(("{a}", "{b}"), entities, strict=False):
        head, _, tail = form.partition(mark)
        form = head + entity.name.replace("{", "(").replace("}", ")") + tail
    return form
