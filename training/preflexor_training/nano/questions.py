"""Questions about the shipped library: those that measure a model, and those that it may be taught by.

The held-out ones have shapes that training never sees, and of comparisons and questions in two steps also pairs that it
never sees.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, permutations

from preflexor_training.nano.attributes import ATTRIBUTES, BY_NAME, Attribute
from preflexor_training.nano.claims import Comparison
from preflexor_training.nano.facts import Material, materials
from preflexor_training.nano.frames import Split, ask_comparison, ask_multi_hop, ask_single, ask_two_hop
from preflexor_training.nano.worlds import Fact, held_out_fact, held_out_hop, held_out_pair

MISSING = 3
"""Held-out questions for each material about what its note does not say."""
_TRAIN_SHARE = 0.15
"""Of all comparisons and questions in two steps that training may see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about the library and its right answer."""

    text: str
    kind: str
    """`single`, `comparison`, `two-hop` or `unanswerable`."""
    material: str
    """The material asked about; of a comparison the first one."""
    other: str = ""
    """The second material of a comparison."""
    attribute: str
    value: str = ""
    """What a right answer states: the value, or the name of the material that wins; empty if there is none."""
    numbers: tuple[str, ...] = ()
    """The values of both materials of a comparison, in the order of the question."""
    higher: bool = True
    """Of a comparison: whether the higher one is asked for."""
    key: Fact | None = None
    """What tells the material where the question does not name it: in two steps, or in a comparison in three."""
    note: str
    """File that holds the answer, of a comparison the one about the first material."""
    shape: str
    held_out: bool
    """The fact, the pair or the pair of facts itself was kept out of training too, not only the shape."""


def library_questions(split: Split) -> list[Question]:
    """One question for each fact of the library, and a share of all others; the same list every time.

    Args:
        split: `heldout` asks in shapes that training never sees, and compares only pairs and goes only from one fact to
            another as training never does. `train` asks for nothing that is held out.
    """
    held = split == "heldout"
    singles = [
        single(m, k.fact, rng=random.Random(f"{m.name}|{k.fact.attribute}"), split=split)
        for m in materials()
        for k in m.known
        if held or not held_out_fact(m.name, k.fact.attribute)
    ]
    return [*singles, *_comparisons(split), *_two_hops(split), *_missing(split), *_multi_hops(split)]


def comparable(split: Split) -> Iterator[tuple[Fact, Fact]]:
    """Pairs of different numbers of one attribute that the split may compare."""
    held = split == "heldout"
    facts = [k.fact for m in materials() for k in m.known if BY_NAME[k.fact.attribute].numeric]
    for first, second in combinations(facts, 2):
        if first.attribute != second.attribute or held_out_pair(first.entity, second.entity) != held:
            continue
        if float(first.number) != float(second.number) and (held or not (_is_held(first) or _is_held(second))):
            yield first, second


def linked(split: Split) -> Iterator[tuple[Material, Fact, Fact]]:
    """Pairs of facts of one material that the split may go along; the first one's value no other material has."""
    for m in materials():
        yield from linked_in(m, split)


def linked_in(material: Material, split: Split) -> Iterator[tuple[Material, Fact, Fact]]:
    """Those of one material."""
    held, facts = split == "heldout", [known.fact for known in material.known]
    for key, wanted in permutations(facts, 2):
        if not tells(key) or held_out_hop(material.name, key.attribute, wanted.attribute) != held:
            continue
        if held or not (_is_held(key) or _is_held(wanted)):
            yield material, key, wanted


def lacking(material: Material, split: Split) -> list[Attribute]:
    """What a material's note does not say and the split may ask for."""
    told = {known.fact.attribute for known in material.known}
    missing = [a for a in ATTRIBUTES if a.name not in told]
    held = random.Random(f"{material.name}|missing").sample([a for a in missing if a.numeric], MISSING)
    if split == "heldout":
        return held
    return [a for a in missing if a not in held and not held_out_fact(material.name, a.name)]


def tells(fact: Fact) -> bool:
    """Whether no other material of the library has this value."""
    return _told()[fact.attribute, fact.value] == 1


@cache
def _told() -> Counter[tuple[str, str]]:
    return Counter((k.fact.attribute, k.fact.value) for m in materials() for k in m.known)


@cache
def _notes() -> dict[str, str]:
    return {m.name: m.note for m in materials()}


def _is_held(fact: Fact) -> bool:
    return held_out_fact(fact.entity, fact.attribute)


def single(material: Material, fact: Fact, *, rng: random.Random, split: Split) -> Question:
    """A question for a fact."""
    asked = ask_single(rng, BY_NAME[fact.attribute], fact.entity, split=split)
    return Question(
        text=asked.text,
        kind="single",
        material=fact.entity,
        attribute=fact.attribute,
        value=fact.value,
        note=material.note,
        shape=asked.shape.id,
        held_out=_is_held(fact),
    )


def comparison(first: Fact, second: Fact, *, rng: random.Random, split: Split) -> Question:
    """A question which of two facts, as `comparable` gives them, is the higher one, or the lower one."""
    compared = Comparison(first, second, rng.random() < 0.6)
    asked = ask_comparison(
        rng, BY_NAME[first.attribute], first.entity, second.entity, higher=compared.higher, split=split
    )
    winner = compared.winner
    assert winner is not None
    return Question(
        text=asked.text,
        kind="comparison",
        material=first.entity,
        other=second.entity,
        attribute=first.attribute,
        value=winner.entity,
        numbers=(first.value, second.value),
        higher=compared.higher,
        note=_notes()[first.entity],
        shape=asked.shape.id,
        held_out=held_out_pair(first.entity, second.entity),
    )


def two_hop(material: Material, key: Fact, wanted: Fact, *, rng: random.Random, split: Split) -> Question:
    """A question for a fact of a material that is told by another fact, as `linked` gives them."""
    asked = ask_two_hop(rng, BY_NAME[wanted.attribute], BY_NAME[key.attribute], key.value, split=split)
    return Question(
        text=asked.text,
        kind="two-hop",
        material=wanted.entity,
        attribute=wanted.attribute,
        value=wanted.value,
        key=key,
        note=material.note,
        shape=asked.shape.id,
        held_out=held_out_hop(wanted.entity, key.attribute, wanted.attribute),
    )


def keys(fact: Fact, split: Split) -> list[Fact]:
    """What else tells the material of a fact, in a question of the split for that fact."""
    material = next(m for m in materials() if m.name == fact.entity)
    return [key for _, key, wanted in linked_in(material, split) if wanted == fact]


def multi_hop(key: Fact, first: Fact, second: Fact, *, rng: random.Random, split: Split) -> Question:
    """The question of `comparison`, with the first material told by another fact, one of `keys`."""
    plain = comparison(first, second, rng=rng, split=split)
    asked = ask_multi_hop(
        rng,
        BY_NAME[first.attribute],
        BY_NAME[key.attribute],
        key.value,
        second.entity,
        higher=plain.higher,
        split=split,
    )
    return replace(plain, text=asked.text, shape=asked.shape.id, key=key)


def unanswered(material: Material, attribute: Attribute, *, rng: random.Random, split: Split) -> Question:
    """A question for what a note does not say, as `lacking` gives it."""
    asked = ask_single(rng, attribute, material.name, split=split)
    return Question(
        text=asked.text,
        kind="unanswerable",
        material=material.name,
        attribute=attribute.name,
        note=material.note,
        shape=asked.shape.id,
        held_out=split == "heldout",
    )


def _comparisons(split: Split) -> Iterator[Question]:
    for first, second in comparable(split):
        rng = random.Random(f"{first.entity}|{second.entity}|{first.attribute}")
        if split == "heldout" or rng.random() < _TRAIN_SHARE:
            yield comparison(first, second, rng=rng, split=split)


def _two_hops(split: Split) -> Iterator[Question]:
    for m, key, wanted in linked(split):
        rng = random.Random(f"{m.name}|{key.attribute}|{wanted.attribute}")
        if split == "heldout" or rng.random() < _TRAIN_SHARE:
            yield two_hop(m, key, wanted, rng=rng, split=split)


def _missing(split: Split) -> Iterator[Question]:
    for m in materials():
        rng = random.Random(f"{m.name}|missing {split}")
        for attribute in rng.sample(lacking(m, split), MISSING):
            yield unanswered(m, attribute, rng=rng, split=split)


def _multi_hops(split: Split) -> Iterator[Question]:
    for first, second in comparable(split):
        rng = random.Random(f"{first.entity}|{second.entity}|{first.attribute}|by key")
        ways = keys(first, split)
        if ways and (split == "heldout" or rng.random() < _TRAIN_SHARE):
            yield multi_hop(rng.choice(ways), first, second, rng=rng, split=split)
