"""Neighbourhoods and paths, against plain searches over the same graph in memory."""

import random
from collections import defaultdict, deque
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from preflexor_agents.errors import ConfigError, InputError
from preflexor_agents.graph.values import Fact, Graph, Node, Quote, Run
from preflexor_agents.store import Store
from tests.store.graph_facts import id_of, lines, put

Adjacency = dict[int, set[int]]


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """2,000 entities, 8,000 relations; few entities have most of them."""
    rng = random.Random(3)
    weights = [1 / (n + 5) for n in range(2000)]
    sources = [*range(2000), *rng.choices(range(2000), weights, k=6000)]
    ends = zip(sources, rng.choices(range(2000), weights, k=8000), strict=True)
    with Store.open(tmp_path_factory.mktemp("graph") / "a.db") as store:
        store.add_finding("words", owner="x")
        place = (Quote(chunk_id=1, start=0, end=5),)
        facts = [
            Fact(subject=Node(name=f"e{a}"), kind=rng.choice("pqr"), object=Node(name=f"e{b}"), quotes=place)
            for a, b in ends
        ]
        store.graph.add(facts, run=store.graph.begin(Run(kind="import")))
        yield store


def adjacency(graph: Graph) -> Adjacency:
    near: Adjacency = defaultdict(set)
    for relation in graph.relations:
        if relation.source != relation.target:
            near[relation.source].add(relation.target)
            near[relation.target].add(relation.source)
    return near


def distances(near: Adjacency, start: int) -> dict[int, int]:
    found = {start: 0}
    waiting = deque([start])
    while waiting:
        here = waiting.popleft()
        for there in near[here] - found.keys():
            found[there] = found[here] + 1
            waiting.append(there)
    return found


def simple_paths(near: Adjacency, here: int, end: int, hops: int, before: tuple[int, ...] = ()) -> Iterator[int]:
    """Length of every path without repetition."""
    if here == end:
        yield len(before)
    elif hops:
        for there in near[here] - {*before, here}:
            yield from simple_paths(near, there, end, hops - 1, (*before, here))


def test_the_shortest_path_is_as_short_as_a_plain_search_finds_it(skewed: Store) -> None:
    near = adjacency(skewed.graph.whole())
    ids, rng = sorted(near), random.Random(5)
    reached = 0
    for start in rng.sample(ids, 12):
        exact = distances(near, start)
        for end in rng.sample(ids, 12):
            paths = skewed.graph.paths(start, end, most=1, max_hops=4, fan_out=5000)
            lengths = [len(path.relations) for path in paths]
            assert lengths == ([exact[end]] if exact.get(end, 9) <= 4 else [])
            reached += len(paths)
    assert reached > 80


def test_the_next_paths_are_as_short_as_all_paths_tell(skewed: Store) -> None:
    near = adjacency(skewed.graph.neighbourhood(id_of(skewed, "e900"), hops=2, fan_out=5000))
    rng = random.Random(7)
    full = adjacency(skewed.graph.whole())
    for start, end in [rng.sample(sorted(near), 2) for _ in range(12)]:
        shortest = sorted(simple_paths(full, start, end, 3))[:5]
        paths = skewed.graph.paths(start, end, most=5, max_hops=3, fan_out=5000)
        assert [len(path.relations) for path in paths] == shortest
        walks = [tuple(entity.id for entity in path.entities) for path in paths]
        assert len(set(walks)) == len(walks) and all(len(set(walk)) == len(walk) for walk in walks)


def test_each_step_of_a_path_is_a_relation_between_its_entities(skewed: Store) -> None:
    for path in skewed.graph.paths(id_of(skewed, "e1500"), id_of(skewed, "e1600"), most=3):
        assert len(path.relations) == len(path.entities) - 1
        for (here, there), relation in zip(pairwise(path.entities), path.relations, strict=True):
            assert {here.id, there.id} == {relation.source, relation.target}
            assert skewed.graph.evidence([relation.id])[relation.id]


def test_a_neighbourhood_is_what_a_plain_search_reaches_with_all_relations_among_it(skewed: Store) -> None:
    whole = skewed.graph.whole()
    start = id_of(skewed, "e700")
    exact = distances(adjacency(whole), start)
    for hops in (0, 1, 2):
        graph = skewed.graph.neighbourhood(start, hops=hops, fan_out=5000)
        inside = {id for id, far in exact.items() if far <= hops}
        assert {entity.id for entity in graph.entities} == inside and graph.entities[0].id == start
        assert set(graph.relations) == {r for r in whole.relations if {r.source, r.target} <= inside}
        assert {r.id: r.weight for r in graph.relations} == {id: len(found) for id, found in graph.evidence.items()}


def test_a_hub_gives_only_its_strongest_neighbours_ties_by_name(library: Store) -> None:
    put(library, "hub | to | c", "hub | to | a", "hub | to | d", "b | to | hub")
    put(library, "d | to | hub")
    graph = library.graph.neighbourhood(id_of(library, "hub"), fan_out=2)
    assert [entity.name for entity in graph.entities] == ["hub", "d", "a"]


def test_the_whole_graph_with_a_limit_is_that_of_the_best_connected(library: Store) -> None:
    put(library, "a | x | b", "a | x | c", "b | x | c", "c | x | d", "c | x | c")
    graph = library.graph.whole(limit=3)
    assert [entity.name for entity in graph.entities] == ["c", "a", "b"]
    assert lines(graph) == {"a | x | b", "a | x | c", "b | x | c", "c | x | c"}


def test_a_path_prefers_strong_relations_along_its_direction(library: Store) -> None:
    put(library, "a | weak | x", "x | weak | b", "a | strong | y", "y | strong | b", "b | back | y")
    put(library, "a | strong | y", "y | strong | b")
    first, second = library.graph.paths(id_of(library, "a"), id_of(library, "b"))
    assert [entity.name for entity in first.entities] == ["a", "y", "b"]
    assert [relation.kind for relation in first.relations] == ["strong", "strong"]
    assert [entity.name for entity in second.entities] == ["a", "x", "b"]


def test_paths_of_an_entity_to_itself_and_to_one_out_of_reach(library: Store) -> None:
    put(library, "a | x | b", "c | x | d", "a | x | a")
    a, c = id_of(library, "a"), id_of(library, "c")
    (itself,) = library.graph.paths(a, a)
    assert [entity.id for entity in itself.entities] == [a] and itself.relations == ()
    assert library.graph.paths(a, c) == []


def test_what_is_out_of_range_is_refused_by_name(library: Store) -> None:
    put(library, "a | x | b")
    a = id_of(library, "a")
    for call in (
        lambda: library.graph.neighbourhood(a, hops=-1),
        lambda: library.graph.neighbourhood(a, fan_out=0),
        lambda: library.graph.paths(a, a, max_hops=11),
        lambda: library.graph.whole(limit=0),
        lambda: library.graph.find("a", k=0),
    ):
        with pytest.raises(ConfigError, match="must be"):
            call()
    with pytest.raises(InputError, match="no entity with id 99"):
        library.graph.paths(a, 99)


def test_the_same_questions_have_the_same_answers_after_opening_again(skewed: Store) -> None:
    start, end = id_of(skewed, "e40"), id_of(skewed, "e1900")
    with Store.open(Path(skewed.path)) as again:
        assert again.graph.paths(start, end) == skewed.graph.paths(start, end)
        assert again.graph.whole(limit=50) == skewed.graph.whole(limit=50)
        assert again.graph.communities() == skewed.graph.communities()
