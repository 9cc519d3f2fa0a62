"""Merges change what is seen everywhere, never the facts, and can be taken back."""

import pytest

from preflexor_agents.errors import InputError
from preflexor_agents.graph.values import Run
from preflexor_agents.store import Store
from tests.store.graph_facts import id_of, lines, put, rows

SAID = ("nacre | is | tough", "mother of pearl | is | tough", "mother of pearl | lines | shells", "pearl | is | nacre")


@pytest.fixture
def pearls(library: Store) -> Store:
    put(library, *SAID)
    return library


def test_merged_entities_are_one_everywhere(pearls: Store) -> None:
    nacre = id_of(pearls, "nacre")
    merge = pearls.graph.merge(nacre, id_of(pearls, "mother of pearl"))
    entity = pearls.graph.entity("Mother of Pearl")
    assert (entity.id, entity.name, entity.aliases) == (nacre, "nacre", ("mother of pearl",))
    assert pearls.graph.find("mother")[0] == entity and pearls.graph.entity(merge.gone.id) == entity
    seen = {"nacre | is | tough", "nacre | lines | shells", "pearl | is | nacre"}
    assert lines(pearls.graph.whole()) == seen and pearls.graph.counts().relations == 3
    assert pearls.graph.counts().entities == len(pearls.graph.whole().entities) == 4
    (tough,) = (r for r in pearls.graph.neighbourhood(nacre).relations if r.kind == "is" and r.source == nacre)
    assert tough.weight == 2 == len(pearls.graph.evidence([tough.id])[tough.id])
    (path,) = pearls.graph.paths(id_of(pearls, "pearl"), id_of(pearls, "shells"))
    assert [e.name for e in path.entities] == ["pearl", "nacre", "shells"]


def test_a_merge_taken_back_leaves_the_graph_as_it_was(pearls: Store) -> None:
    before = pearls.graph.whole()
    gone = id_of(pearls, "mother of pearl")
    pearls.graph.merge(id_of(pearls, "nacre"), gone)
    assert pearls.graph.whole() != before
    pearls.graph.unmerge(gone)
    assert pearls.graph.whole() == before and pearls.graph.merges() == []


def test_a_merge_in_the_middle_of_a_chain_is_taken_back_with_what_was_merged_into_it(pearls: Store) -> None:
    nacre, mother, pearl = (id_of(pearls, name) for name in ("nacre", "mother of pearl", "pearl"))
    pearls.graph.merge(mother, pearl)
    pearls.graph.merge(nacre, mother)
    assert pearls.graph.entity(pearl).aliases == ("mother of pearl", "pearl")
    pearls.graph.unmerge(mother)
    assert pearls.graph.entity("pearl").name == "mother of pearl" and pearls.graph.entity("nacre").aliases == ()
    assert [(m.keep.name, m.gone.name) for m in pearls.graph.merges()] == [("mother of pearl", "pearl")]


def test_what_was_merged_stays_one_when_the_entity_that_stood_for_it_goes(pearls: Store) -> None:
    run = pearls.graph.begin(Run(kind="grow"))
    put(pearls, "perlmutter | is | tough", run=run)
    keep = id_of(pearls, "perlmutter")
    for name in ("nacre", "mother of pearl"):
        pearls.graph.merge(keep, id_of(pearls, name))
    pearls.graph.remove_run(run.id)
    entity = pearls.graph.entity("nacre")
    assert entity == pearls.graph.entity("mother of pearl") and entity.name == "mother of pearl"
    (merge,) = pearls.graph.merges()
    pearls.graph.unmerge(merge.gone.id)
    assert lines(pearls.graph.whole()) == set(SAID)


def test_merges_that_make_no_sense_are_refused(pearls: Store) -> None:
    nacre, mother = id_of(pearls, "nacre"), id_of(pearls, "mother of pearl")
    with pytest.raises(InputError, match="are one already"):
        pearls.graph.merge(nacre, nacre)
    with pytest.raises(InputError, match="is not merged into another"):
        pearls.graph.unmerge(nacre)
    pearls.graph.merge(nacre, mother)
    for pair in ((nacre, mother), (mother, nacre)):
        with pytest.raises(InputError, match="are one already"):
            pearls.graph.merge(*pair)
    with pytest.raises(InputError, match="is merged already"):
        pearls.graph.merge(id_of(pearls, "pearl"), mother)
    with pytest.raises(InputError, match="no entity with id 99"):
        pearls.graph.merge(nacre, 99)
    assert len(rows(pearls, "entity_merge")) == 1


def test_names_of_one_thing_are_suggested_and_those_of_different_things_are_not(library: Store) -> None:
    put(
        library,
        "collagen I | in | tendons",
        "collagen II | in | tendon",
        "TensileStrength | of | the silk of spiders",
        "tensile_strength | of | spider silk",
        "non-woven silk | is | silk",
        "G' | vs | G''",
        "20 nm | vs | 25 nm",
        "collagen I | x | TensileStrength",
    )
    pairs = {(s.keep.name, s.gone.name): s for s in library.graph.suggest_merges()}
    assert set(pairs) == {
        ("TensileStrength", "tensile_strength"),
        ("spider silk", "the silk of spiders"),
        ("tendon", "tendons"),
    }
    assert pairs["TensileStrength", "tensile_strength"].score == 1.0
    assert library.graph.merges() == [] and len(library.graph.suggest_merges(k=1)) == 1


def test_what_is_merged_is_not_suggested_again(library: Store) -> None:
    put(library, "tendon | is | strong", "tendons | are | strong")
    (suggestion,) = library.graph.suggest_merges()
    library.graph.merge(suggestion.keep.id, suggestion.gone.id)
    assert library.graph.suggest_merges() == []


def test_an_empty_graph_suggests_nothing(store: Store) -> None:
    assert store.graph.suggest_merges() == []
