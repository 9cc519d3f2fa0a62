"""Questions about the shipped library that measure a model; the held-out ones have shapes that training never sees."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from preflexor_training.nano.attributes import BY_NAME
from preflexor_training.nano.claims import Comparison
from preflexor_training.nano.facts import Material, materials
from preflexor_training.nano.frames import Split, ask_comparison, ask_single
from preflexor_training.nano.worlds import Fact, held_out_fact, held_out_pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about the library and its right answer."""

    text: str
    kind: str
    """`single` or `comparison`."""
    material: str
    """The material asked about; of a comparison the first one."""
    other: str = ""
    """The second material of a comparison."""
    attribute: str
    value: str
    """What a right answer states: the value, or the name of the material that wins."""
    numbers: tuple[str, ...] = ()
    """The values of both materials of a comparison, in the order of the question."""
    note: str
    """File that holds the answer, of a comparison the one about the first material."""
    shape: str
    held_out: bool
    """The fact or pair itself was kept out of training too, not only the shape."""


def library_questions(split: Split) -> list[Question]:
    """One question for each fact of the library, and comparisons; the same list every time.

    Args:
        split: `heldout` asks in shapes that training never sees, and compares only pairs that training never compares.
    """
    singles = [_single(m, k.fact, split) for m in materials() for k in m.known]
    return [*singles, *_comparisons(split)]


def _single(material: Material, fact: Fact, split: Split) -> Question:
    attribute = BY_NAME[fact.attribute]
    asked = ask_single(random.Random(f"{fact.entity}|{fact.attribute}"), attribute, fact.entity, split=split)
    return Question(
        text=asked.text,
        kind="single",
        material=fact.entity,
        attribute=fact.attribute,
        value=fact.value,
        note=material.note,
        shape=asked.shape.id,
        held_out=held_out_fact(fact.entity, fact.attribute),
    )


def _comparisons(split: Split) -> Iterator[Question]:
    facts = [(m, k.fact) for m in materials() for k in m.known if BY_NAME[k.fact.attribute].numeric]
    for (m, first), (_, second) in combinations(facts, 2):
        if first.attribute != second.attribute or held_out_pair(first.entity, second.entity) != (split == "heldout"):
            continue
        rng = random.Random(f"{first.entity}|{second.entity}|{first.attribute}")
        if split == "train" and rng.random() > 0.15:
            continue
        comparison = Comparison(first, second, rng.random() < 0.6)
        if comparison.winner is None:
            continue
        attribute = BY_NAME[first.attribute]
        asked = ask_comparison(rng, attribute, first.entity, second.entity, higher=comparison.higher, split=split)
        yield Question(
            text=asked.text,
            kind="comparison",
            material=first.entity,
            other=second.entity,
            attribute=first.attribute,
            value=comparison.winner.entity,
            numbers=(first.value, second.value),
            note=m.note,
            shape=asked.shape.id,
            held_out=held_out_pair(first.entity, second.entity),
        )
