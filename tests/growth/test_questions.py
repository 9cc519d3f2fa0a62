"""What a graph asks next."""

from itertools import pairwise

from preflexor_agents.graph.values import Entity, Graph, Relation
from preflexor_agents.growth.questions import bridges, frontier, missing_links, neighbours, proposals
from preflexor_agents.packs import load

PACK = load("general")


def graph(*edges: str) -> Graph:
    """A graph of edges such as `a-b`."""
    pairs = [edge.split("-") for edge in edges]
    names = sorted({name for pair in pairs for name in pair})
    ids = {name: n for n, name in enumerate(names, 1)}
    relations = tuple(Relation(id=n, source=ids[a], kind="is", target=ids[b]) for n, (a, b) in enumerate(pairs, 1))
    return Graph(entities=tuple(Entity(id=ids[name], name=name) for name in names), relations=relations)


def named(found: Graph, ids: tuple[int, ...]) -> str:
    names = {entity.id: entity.name for entity in found.entities}
    return "-".join(names[id] for id in ids)


def test_entities_beside_well_known_ones_are_the_frontier():
    found = graph("hub-a", "hub-b", "hub-c", "hub-d", "x-y")
    assert [named(found, ids) for ids in frontier(neighbours(found))] == ["a", "b", "c", "d", "x", "y"]


def test_two_with_the_same_neighbours_may_be_related():
    found = graph("a-m", "b-m", "a-n", "b-n", "c-m", "d-n")
    assert [named(found, ids) for ids in missing_links(neighbours(found))] == ["m-n", "a-b"]
    related = graph("a-m", "b-m", "a-n", "b-n", "a-b", "m-n")
    assert list(missing_links(neighbours(related))) == []


def test_a_rare_shared_neighbour_counts_more():
    rare = ("a-r", "b-r", "a-s", "b-s")
    common = [f"{end}-{middle}" for middle in ("k", "l") for end in ("p", "q", "1", "2", "3", "4", "5")]
    found = graph(*rare, *common)
    ranked = [named(found, ids) for ids in missing_links(neighbours(found))]
    assert ranked.index("a-b") < ranked.index("p-q")


def test_parts_that_do_not_hang_together_are_bridged_before_far_ends():
    apart = graph("a-b", "b-c", "x-y", "y-z")
    assert {named(apart, ids) for ids in bridges(neighbours(apart))} >= {"b-y", "a-x"}
    line = graph(*(f"{a}-{b}" for a, b in pairwise("abcdef")))
    assert [named(line, ids) for ids in bridges(neighbours(line))] == ["a-f", "a-e", "b-f"]
    assert list(bridges(neighbours(graph("a-b", "b-c")))) == []


def test_questions_are_of_each_kind_in_turn_and_none_is_asked_twice():
    found = graph("a-m", "b-m", "a-n", "b-n", "x-y")
    asked = list(proposals(found, PACK))
    assert [proposal.kind for proposal in asked[:3]] == ["bridge", "missing_link", "frontier"]
    questions = [proposal.question for proposal in asked]
    assert len(set(questions)) == len(questions)
    assert all(entity.name in p.question for p in asked for entity in p.entities)
    rest = [proposal.question for proposal in proposals(found, PACK, asked=questions[:3])]
    assert set(rest) == set(questions[3:])


def test_a_name_with_braces_is_no_place_for_another_name():
    odd = Graph(
        entities=(Entity(id=1, name="{b} {0}"), Entity(id=2, name="{a}")),
        relations=(Relation(id=1, source=1, kind="is", target=2),),
    )
    assert [p.question for p in proposals(odd, PACK)] == [
        "What is known about (b) (0), and what is it related to?",
        "What is known about (a), and what is it related to?",
    ]


def test_an_empty_graph_asks_nothing():
    assert list(proposals(Graph(), PACK)) == []
