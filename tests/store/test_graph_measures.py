"""Communities and centrality."""

import random
import sys
from itertools import combinations

import pytest

from preflexor_agents.errors import ConfigError
from preflexor_agents.graph import louvain
from preflexor_agents.store import Store
from tests.store.graph_facts import id_of, put


def modularity(edges: list[tuple[int, int, float]], label: dict[int, int]) -> float:
    """Newman's modularity of a division of an undirected graph without loops."""
    total = sum(weight for _, _, weight in edges)
    strength = dict.fromkeys(label, 0.0)
    for a, b, weight in edges:
        strength[a] += weight
        strength[b] += weight
    inside = sum(weight for a, b, weight in edges if label[a] == label[b])
    groups = {group: sum(s for node, s in strength.items() if label[node] == group) for group in set(label.values())}
    return inside / total - sum((s / (2 * total)) ** 2 for s in groups.values())


def test_planted_communities_are_found() -> None:
    rng = random.Random(2)
    edges = [(a, b, 1.0) for a, b in combinations(range(60), 2) if rng.random() < (0.5 if a // 15 == b // 15 else 0.02)]
    assert louvain.communities(60, edges) == [list(range(n, n + 15)) for n in range(0, 60, 15)]


def test_no_two_communities_are_better_as_one() -> None:
    rng = random.Random(4)
    edges = [(a, b, float(rng.randint(1, 3))) for a, b in combinations(range(30), 2) if rng.random() < 0.12]
    label = {node: n for n, found in enumerate(louvain.communities(30, edges)) for node in found}
    best = modularity(edges, label)
    assert best > 0.2 and len(set(label.values())) > 3
    for kept, gone in combinations(set(label.values()), 2):
        joined = {node: kept if group == gone else group for node, group in label.items()}
        assert modularity(edges, joined) <= best + 1e-9


def test_nodes_without_edges_are_communities_of_their_own() -> None:
    assert louvain.communities(3, [(2, 1, 1.0)]) == [[1, 2], [0]]
    assert louvain.communities(0, []) == []


def test_merged_entities_share_a_community(library: Store) -> None:
    left = [f"a{x} | to | a{y}" for x, y in combinations(range(4), 2)]
    right = [f"b{x} | to | b{y}" for x, y in combinations(range(4), 2)]
    put(library, *left, *right)
    assert [len(found) for found in library.graph.communities()] == [4, 4]
    library.graph.merge(id_of(library, "a0"), id_of(library, "b0"))
    found = library.graph.communities()
    assert sum(map(len, found)) == 7 and id_of(library, "b0") in {id for each in found for id in each}


def test_what_most_relations_lead_to_is_most_central(library: Store) -> None:
    put(library, "a | to | hub", "b | to | hub", "c | to | hub", "hub | to | end")
    ranks = library.graph.centrality()
    names = [library.graph.entity(id).name for id in ranks]
    assert set(names[:2]) == {"hub", "end"} and names[2:] == ["a", "b", "c"]
    assert sum(ranks.values()) == pytest.approx(1)


def test_an_empty_graph_has_no_communities_and_no_centre(store: Store) -> None:
    assert store.graph.communities() == [] and store.graph.centrality() == {}


def test_without_rustworkx_one_line_says_what_to_install(library: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rustworkx", None)
    with pytest.raises(ConfigError, match=r"pip install 'preflexor-agents\[graph\]'"):
        library.graph.centrality()
