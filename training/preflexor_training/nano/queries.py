"""Questions about a world: what is asked, the right answer, and wrong ones for critics, judges and revisers."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from preflexor_training.nano import claims, frames
from preflexor_training.nano.attributes import ATTRIBUTES, BY_NAME, UNSUPPORTED
from preflexor_training.nano.claims import Claim, Comparison
from preflexor_training.nano.frames import Split
from preflexor_training.nano.library import names
from preflexor_training.nano.sentences import OFF_TOPIC
from preflexor_training.nano.worlds import (
    Fact,
    World,
    held_out_fact,
    held_out_hop,
    held_out_pair,
    made_up_name,
    made_up_value,
)


@dataclass(frozen=True, slots=True)
class Query:
    """A question with its right answer and a source of wrong ones."""

    kind: str
    text: str
    right: Claim
    wrong: Callable[[], Claim]
    gold: dict[str, str]


KINDS: tuple[dict[str, float], ...] = (
    {"single": 95, "unanswerable": 5},
    {"single": 58, "comparison": 20, "two-hop": 6, "unanswerable": 13, "reverse": 3},
    {"single": 39, "comparison": 23, "two-hop": 9, "multi-hop": 4, "unanswerable": 22, "reverse": 3},
)
"""Shares of the kinds of question per stage."""


def askable(world: World, *, split: Split) -> tuple[Fact, ...]:
    """The facts that the split may ask for."""
    return tuple(f for f in world.facts() if split == "heldout" or not held_out_fact(f.entity, f.attribute))


def ask(rng: random.Random, world: World, *, split: Split, stage: int) -> Query:
    """A question of a kind that the stage has; without passages nothing can be answered."""
    kind = rng.choices(list(KINDS[stage]), list(KINDS[stage].values()))[0]
    facts = world.facts()
    if kind in ("comparison", "multi-hop"):
        compared = _compared_query(rng, world, by_key=kind == "multi-hop", split=split)
        if compared is not None:
            return compared
    if kind == "two-hop":
        hop = _pick_two_hop(rng, world, split=split)
        if hop is not None:
            return _two_hop_query(rng, *hop, world, split=split)
    open_facts = askable(world, split=split)
    if kind == "unanswerable" or not open_facts:
        return _unanswerable_query(rng, world, split=split)
    fact = rng.choice(open_facts)
    gold = {"value": fact.value, "entity": fact.entity, "attribute": fact.attribute}
    if kind == "reverse" and sum(f.attribute == fact.attribute and f.value == fact.value for f in facts) == 1:
        asked = frames.ask_reverse(rng, BY_NAME[fact.attribute], fact.value, split=split)
        right = claims.reverse(fact, world)
        others = [f.entity for f in facts if f.entity != fact.entity] or [made_up_name(rng, split=split)]
        return Query(
            "reverse",
            asked.text,
            right,
            lambda: _renamed(right, fact, rng.choice(others), world),
            {**gold, "value": fact.entity, "shape": asked.shape.id},
        )
    asked = frames.ask_single(rng, BY_NAME[fact.attribute], _called(rng, fact.entity, world), split=split)
    right = claims.single(fact, world)
    wrong = lambda: claims.wrong_single(rng, fact, world)  # noqa: E731
    return Query("single", asked.text, right, wrong, {**gold, "shape": asked.shape.id})


def _called(rng: random.Random, entity: str, world: World) -> str:
    """The material's name; at times without one of its words, where that leaves no doubt."""
    parts = entity.split()
    if len(parts) == 1 or rng.random() > 0.12:
        return entity
    at = rng.randrange(len(parts) - 1)
    short = " ".join(parts[:at] + parts[at + 1 :])
    return entity if short in _told(world).replace(entity, "") else short


def _told(world: World) -> str:
    """Titles and texts of the passages, in lower case."""
    return " ".join(f"{s.title} {s.text}" for s in world.sections).lower()


def _renamed(right: Claim, fact: Fact, entity: str, world: World) -> Claim:
    wrong = claims.reverse(replace(fact, entity=entity), world)
    return replace(wrong, find=right.find)


def _pick_comparison(rng: random.Random, facts: tuple[Fact, ...], *, split: Split) -> Comparison | None:
    numeric = [f for f in facts if BY_NAME[f.attribute].numeric]
    pairs = [
        (a, b)
        for a in numeric
        for b in numeric
        if a.attribute == b.attribute
        and a.entity != b.entity
        and (split == "heldout" or not held_out_pair(a.entity, b.entity))
    ]
    if not pairs:
        return None
    first, second = rng.choice(pairs)
    return Comparison(first, second, rng.random() < 0.6)


def _compared_query(rng: random.Random, world: World, *, by_key: bool, split: Split) -> Query | None:
    """A comparison, if there is something to compare; `by_key` has its first material told by a value, if one does."""
    comparison = _pick_comparison(rng, world.facts(), split=split)
    if comparison is None:
        return None
    key = _pick_key(rng, comparison, world, split=split) if by_key else None
    if key is None:
        return _comparison_query(rng, comparison, world, split=split)
    return _multi_hop_query(rng, key, comparison, world, split=split)


def _comparison_query(rng: random.Random, comparison: Comparison, world: World, *, split: Split) -> Query:
    attribute = BY_NAME[comparison.first.attribute]
    first, second = comparison.first.entity, comparison.second.entity
    named = (_called(rng, first, world), _called(rng, second, world))
    asked = frames.ask_comparison(rng, attribute, *named, higher=comparison.higher, split=split)
    winner = comparison.winner
    gold = {
        "value": winner.entity if winner else "equal",
        "entity": f"{first}|{second}",
        "attribute": attribute.name,
        "numbers": f"{comparison.first.number}|{comparison.second.number}",
        "shape": asked.shape.id,
    }
    right = claims.compare(comparison, world)
    return Query("comparison", asked.text, right, lambda: claims.wrong_comparison(rng, comparison, world), gold)


def _keys(world: World, *, split: Split) -> list[Fact]:
    """The facts whose value no other material has, so that it tells which one is meant."""
    told = Counter((f.attribute, f.value) for f in world.facts())
    return [f for f in askable(world, split=split) if told[f.attribute, f.value] == 1]


def _pick_two_hop(rng: random.Random, world: World, *, split: Split) -> tuple[Fact, Fact] | None:
    """What tells a material, and what is asked of it."""
    pairs = [
        (key, wanted)
        for key in _keys(world, split=split)
        for wanted in askable(world, split=split)
        if key.entity == wanted.entity
        and key.attribute != wanted.attribute
        and (split == "heldout" or not held_out_hop(key.entity, key.attribute, wanted.attribute))
    ]
    return rng.choice(pairs) if pairs else None


def _two_hop_query(rng: random.Random, key: Fact, wanted: Fact, world: World, *, split: Split) -> Query:
    asked = frames.ask_two_hop(rng, BY_NAME[wanted.attribute], BY_NAME[key.attribute], key.value, split=split)
    gold = {
        "value": wanted.value,
        "entity": wanted.entity,
        "attribute": wanted.attribute,
        "key": key.attribute,
        "shape": asked.shape.id,
    }
    right = claims.two_hop(key, wanted, world)
    return Query("two-hop", asked.text, right, lambda: claims.wrong_two_hop(rng, key, wanted, world), gold)


def _pick_key(rng: random.Random, comparison: Comparison, world: World, *, split: Split) -> Fact | None:
    """What tells the first material of a comparison."""
    first, held = comparison.first, split == "heldout"
    keys = [
        k
        for k in _keys(world, split=split)
        if k.entity == first.entity and k.attribute != first.attribute
        if held or not held_out_hop(k.entity, k.attribute, first.attribute)
    ]
    return rng.choice(keys) if keys else None


def _multi_hop_query(rng: random.Random, key: Fact, comparison: Comparison, world: World, *, split: Split) -> Query:
    plain = _comparison_query(rng, comparison, world, split=split)
    asked = frames.ask_multi_hop(
        rng,
        BY_NAME[comparison.first.attribute],
        BY_NAME[key.attribute],
        key.value,
        comparison.second.entity,
        higher=comparison.higher,
        split=split,
    )
    return Query(
        "multi-hop",
        asked.text,
        claims.told_by(key, plain.right),
        lambda: claims.told_by(key, plain.wrong()),
        {**plain.gold, "key": key.attribute, "shape": asked.shape.id},
    )


def _unanswerable_query(rng: random.Random, world: World, *, split: Split) -> Query:
    """A question that the passages do not answer; most are near misses."""
    facts = world.facts()
    stated = {(f.entity, f.attribute) for f in facts} | world.unclear
    entities = list(dict.fromkeys(f.entity for f in facts))
    gold = {"value": "none"}
    roll = rng.random()
    if roll < 0.05:
        question, find = rng.choice(OFF_TOPIC)
        return _nothing_query(rng, question, find, gold, split=split, world=world)
    if roll < 0.17:
        told = _told(world)
        noun = rng.choice([noun for noun in UNSUPPORTED if noun.lower() not in told])
        entity = rng.choice(entities) if entities else _stranger(rng, world, split=split)
        asked = frames.ask_noun(rng, noun, entity, split=split)
        return _nothing_query(rng, asked.text, f"{noun} of {entity}", gold, split=split, world=world)
    if roll > 0.9 and facts:
        return _lost_query(rng, stated, world, split=split)
    pairs = [(e, f.attribute) for e in entities for f in facts if (e, f.attribute) not in stated]
    if roll < 0.35 or not entities:
        entity = _stranger(rng, world, split=split)
        name = rng.choice(facts).attribute if facts else rng.choice(ATTRIBUTES).name
    elif pairs and roll < 0.75:
        entity, name = rng.choice(pairs)
    else:
        entity = rng.choice(entities)
        name = rng.choice([a.name for a in ATTRIBUTES if (entity, a.name) not in stated])
    attribute = BY_NAME[name]
    gold |= {"entity": entity, "attribute": name}
    known = [f for f in facts if f.attribute == name and f.entity != entity]
    if attribute.numeric and known and rng.random() < 0.3:
        return _half_query(rng, Fact(entity, name, "none"), rng.choice(known), world, split=split)
    asked = frames.ask_single(rng, attribute, entity, split=split)
    missing = Fact(entity, name, "none")
    right = claims.nothing(f"{name} of {entity}")
    gold["shape"] = asked.shape.id
    return Query("unanswerable", asked.text, right, lambda: claims.wrong_nothing(rng, missing, world), gold)


def _stranger(rng: random.Random, world: World, *, split: Split) -> str:
    """A material that no passage mentions."""
    if rng.random() < 0.5:
        name = rng.choice(names())
        if name not in _told(world):
            return name
    return made_up_name(rng, split=split)


def _nothing_query(
    rng: random.Random, question: str, find: str, gold: dict[str, str], *, split: Split, world: World
) -> Query:
    """Off the subject: a wrong answer to it is any fact at hand."""
    facts = world.facts()

    def wrong() -> Claim:
        if not facts:
            stray = rng.choice(ATTRIBUTES)
            return claims.single(Fact(made_up_name(rng, split=split), stray.name, made_up_value(rng, stray)), world)
        return replace(claims.single(rng.choice(facts), world), find=find)

    return Query("unanswerable", question, claims.nothing(find), wrong, gold)


def _half_query(rng: random.Random, missing: Fact, known: Fact, world: World, *, split: Split) -> Query:
    """A comparison of which only one side is told."""
    first_known = rng.random() < 0.5
    first, second = (known, missing) if first_known else (missing, known)
    comparison = Comparison(first, second, rng.random() < 0.6)
    attribute = BY_NAME[known.attribute]
    asked = frames.ask_comparison(rng, attribute, first.entity, second.entity, higher=comparison.higher, split=split)

    def wrong() -> Claim:
        invented = replace(missing, value=made_up_value(rng, attribute))
        pair = (known, invented) if first_known else (invented, known)
        return claims.compare(Comparison(*pair, comparison.higher), world)

    gold = {"value": "none", "entity": f"{first.entity}|{second.entity}", "attribute": attribute.name}
    right = claims.half(comparison, first_known=first_known)
    return Query("unanswerable", asked.text, right, wrong, {**gold, "shape": asked.shape.id})


def _lost_query(rng: random.Random, stated: set[tuple[str, str]], world: World, *, split: Split) -> Query:
    """A question in two steps of which the passages do not tell one."""
    facts = world.facts()
    keys = _keys(world, split=split)
    gold = {"value": "none"}
    if keys and rng.random() < 0.5:
        key = rng.choice(keys)
        name = rng.choice([a.name for a in ATTRIBUTES if (key.entity, a.name) not in stated])
        wanted = Fact(key.entity, name, claims.NONE)
        right = claims.half_two_hop(key, wanted)
        gold |= {"entity": wanted.entity, "attribute": wanted.attribute}
    else:
        wanted = rng.choice(facts)
        attribute = rng.choice([a for a in ATTRIBUTES if a.name != wanted.attribute])
        value = made_up_value(rng, attribute)
        while value.lower() in _told(world):
            value = made_up_value(rng, attribute)
        key = Fact(wanted.entity, attribute.name, value)
        right = claims.no_two_hop(key, wanted)

    def wrong() -> Claim:
        value = made_up_value(rng, BY_NAME[wanted.attribute]) if wanted.value == claims.NONE else wanted.value
        return claims.two_hop(key, replace(wanted, value=value), world)

    asked = frames.ask_two_hop(rng, BY_NAME[wanted.attribute], BY_NAME[key.attribute], key.value, split=split)
    return Query("unanswerable", asked.text, right, wrong, {**gold, "shape": asked.shape.id})
