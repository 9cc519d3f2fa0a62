"""Communities by modularity: the method of Blondel et al. 2008 (J. Stat. Mech. P10008). Pure and deterministic.

Nodes are visited in the order given, so that the same graph gives the same communities; rustworkx, which counts the
rest, has no method for communities.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

_LEAST_GAIN = 1e-9
_MOST_PASSES = 50

Weights = list[dict[int, float]]
"""For each node its neighbours and the weights between; a loop counts twice."""


def communities(count: int, edges: Iterable[tuple[int, int, float]]) -> list[list[int]]:
    """The communities of an undirected graph of nodes 0 to count - 1, largest first, ties by their first node.

    Args:
        count: Nodes.
        edges: Two nodes and a weight above 0; parallel edges add up.
    """
    weights: Weights = [{} for _ in range(count)]
    for a, b, weight in edges:
        weights[a][b] = weights[a].get(b, 0.0) + weight
        weights[b][a] = weights[b].get(a, 0.0) + weight
    members = [[node] for node in range(count)]
    while True:
        label = _moved(weights)
        if len(set(label)) == len(weights):
            break
        numbers = {old: new for new, old in enumerate(dict.fromkeys(label))}
        label = [numbers[old] for old in label]
        weights, members = _joined(weights, label, len(numbers)), _gathered(members, label, len(numbers))
    return sorted((sorted(found) for found in members), key=lambda found: (-len(found), found[0]))


def _moved(weights: Weights) -> list[int]:
    """Each node's community once no single move raises modularity."""
    label = list(range(len(weights)))
    strength = [sum(near.values()) for near in weights]
    total = sum(strength) or 1.0
    filled = list(strength)
    for _ in range(_MOST_PASSES):
        changed = False
        for node, near in enumerate(weights):
            home = label[node]
            filled[home] -= strength[node]
            toward: dict[int, float] = defaultdict(float)
            for other, weight in near.items():
                if other != node:
                    toward[label[other]] += weight
            best, gain = home, toward[home] - filled[home] * strength[node] / total
            for community, weight in toward.items():
                reached = weight - filled[community] * strength[node] / total
                if reached > gain + _LEAST_GAIN:
                    best, gain = community, reached
            filled[best] += strength[node]
            label[node] = best
            changed |= best != home
        if not changed:
            break
    return label


def _joined(weights: Weights, label: Sequence[int], count: int) -> Weights:
    """The graph whose nodes are the communities."""
    joined: Weights = [{} for _ in range(count)]
    for node, near in enumerate(weights):
        here = joined[label[node]]
        for other, weight in near.items():
            there = label[other]
            here[there] = here.get(there, 0.0) + weight
    return joined


def _gathered(members: Sequence[Sequence[int]], label: Sequence[int], count: int) -> list[list[int]]:
    gathered: list[list[int]] = [[] for _ in range(count)]
    for node, found in enumerate(members):
        gathered[label[node]] += found
    return gathered
