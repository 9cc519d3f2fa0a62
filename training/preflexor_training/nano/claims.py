"""What nano thinks and answers to a question, right or wrong on purpose.

A thinking names the key (attribute and material) before the value, so that finding the value is copying what
follows the key in a passage.
"""

import random
from dataclasses import dataclass, replace

from preflexor_agents.prompts import NOT_IN_PASSAGES
from preflexor_training.nano.attributes import BY_NAME, article
from preflexor_training.nano.worlds import Fact, World, made_up_value

NONE = "none"


@dataclass(frozen=True, slots=True)
class Claim:
    """A thinking with its answer, and what both come down to."""

    find: str
    lines: tuple[str, ...]
    """The thinking after its first line."""
    answer: str
    gist: str
    """What a critic compares: a value, a name, or both numbers with the winner."""

    @property
    def thinking(self) -> str:
        """The thinking without its tags."""
        return "\n".join((f"Find: {self.find}.", *self.lines))

    @property
    def found(self) -> str:
        """What the thinking's facts are about and say, in one line."""
        return " ".join(self.lines).removeprefix("Fact: ")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two facts about one attribute, and which of them is asked for."""

    first: Fact
    second: Fact
    higher: bool

    @property
    def winner(self) -> Fact | None:
        """The fact asked for; None when both are equal."""
        a, b = float(self.first.number), float(self.second.number)
        if a == b:
            return None
        return self.first if (a > b) == self.higher else self.second

    @property
    def loser(self) -> Fact:
        """The other one."""
        return self.second if self.winner is self.first else self.first


def fact_line(fact: Fact) -> str:
    """Key, then value."""
    return f"Fact: {fact.entity}: {fact.attribute}: {fact.value}."


def cite(world: World, *facts: Fact) -> str:
    """Citations of the passages that state the facts; nothing for a fact that no passage states."""
    known = [f for f in facts if any(f in s.facts for s in world.sections)]
    return "".join(f" [{n}]" for n in dict.fromkeys(world.where(f) for f in known))


def single(fact: Fact, world: World) -> Claim:
    """One fact, found and told."""
    sentence = BY_NAME[fact.attribute].answer.format(a=fact.attribute, e=fact.entity, v=fact.value)
    find = f"{fact.attribute} of {fact.entity}"
    return Claim(find, (fact_line(fact),), f"{sentence}{cite(world, fact)}.", fact.value)


def nothing(find: str) -> Claim:
    """The passages do not say what is looked for."""
    return Claim(find, (f"Fact: {NONE}.",), NOT_IN_PASSAGES, NONE)


def half(comparison: Comparison, *, first_known: bool) -> Claim:
    """A comparison of which the passages give only one side."""
    known = comparison.first if first_known else comparison.second
    lines = [
        fact_line(f) if f is known else f"Fact: {f.entity}: {f.attribute}: {NONE}."
        for f in (comparison.first, comparison.second)
    ]
    find = f"{known.attribute} of {comparison.first.entity} and {comparison.second.entity}"
    return Claim(find, tuple(lines), NOT_IN_PASSAGES, NONE)


def compare(comparison: Comparison, world: World) -> Claim:
    """Two facts read, set side by side with their names, and the winner told."""
    a, b, winner, loser = comparison.first, comparison.second, comparison.winner, comparison.loser
    word = "higher" if comparison.higher else "lower"
    find = f"{a.attribute} of {a.entity} and {b.entity}"
    sign = "=" if winner is None else ">" if float(a.number) > float(b.number) else "<"
    sides = f"{a.entity} {a.number} {sign} {b.entity} {b.number}"
    marks = cite(world, a, b)
    if winner is None:
        verdict = "Equal"
        answer = f"The {a.attribute} of {a.entity} and of {b.entity} is equal, {a.value}{marks}."
    else:
        verdict = f"{word.capitalize()}: {winner.entity}"
        answer = (
            f"The {a.attribute} of {winner.entity}, {winner.value}, is {word} "
            f"than that of {loser.entity}, {loser.value}{marks}."
        )
    lines = (fact_line(a), fact_line(b), f"Compare: {sides}. {verdict}.")
    return Claim(find, lines, answer, f"{sides}, {verdict[0].lower()}{verdict[1:].replace(':', '')}")


def reverse(fact: Fact, world: World) -> Claim:
    """The material that has a value; here the value is the key."""
    key = f"{fact.attribute}: {fact.value}"
    answer = f"The material with {article(fact.attribute)} of {fact.value} is {fact.entity}{cite(world, fact)}."
    find = f"material with {fact.attribute} {fact.value}"
    return Claim(find, (f"Fact: {key}: {fact.entity}.",), answer, fact.entity)


def two_hop(key: Fact, wanted: Fact, world: World) -> Claim:
    """The material by one value, then another value of it."""
    sentence = BY_NAME[wanted.attribute].answer.format(a=wanted.attribute, e=wanted.entity, v=wanted.value)
    lines = (f"Fact: {key.attribute}: {key.value}: {key.entity}.", fact_line(wanted))
    return Claim(_sought(key, wanted), lines, f"{sentence}{cite(world, key, wanted)}.", wanted.value)


def half_two_hop(key: Fact, wanted: Fact) -> Claim:
    """The passages tell the material, and not what is asked of it."""
    lines = (f"Fact: {key.attribute}: {key.value}: {key.entity}.", fact_line(replace(wanted, value=NONE)))
    return Claim(_sought(key, wanted), lines, NOT_IN_PASSAGES, NONE)


def no_two_hop(key: Fact, wanted: Fact) -> Claim:
    """The passages do not tell the material."""
    return nothing(_sought(key, wanted))


def _sought(key: Fact, wanted: Fact) -> str:
    return f"{wanted.attribute} of material with {key.attribute} {key.value}"


def told_by(key: Fact, claim: Claim) -> Claim:
    """A comparison whose first material is told by another value of it: that is found first."""
    return replace(told_by_none(key, claim), lines=(f"Fact: {key.attribute}: {key.value}: {key.entity}.", *claim.lines))


def told_by_none(key: Fact, claim: Claim) -> Claim:
    """Likewise, where the passages do not tell the first material."""
    named = f"material with {key.attribute} {key.value}"
    return replace(claim, find=claim.find.replace(f" of {key.entity} and ", f" of {named} and ", 1))


def wrong_fact(rng: random.Random, fact: Fact, world: World) -> Fact:
    """The same material and attribute with a wrong value, most often one that stands near by."""
    attribute = BY_NAME[fact.attribute]
    others = [f for f in world.facts() if f.value != fact.value]
    near = [f for f in others if f.attribute == fact.attribute]
    own = [f for f in others if f.entity == fact.entity and BY_NAME[f.attribute].numeric == attribute.numeric]
    roll = rng.random()
    if near and roll < 0.35:
        return replace(fact, value=rng.choice(near).value)
    if own and roll < 0.65:
        return replace(fact, value=rng.choice(own).value)
    if attribute.numeric and roll < 0.72:
        return replace(fact, value=fact.number)
    if attribute.numeric and roll < 0.82 and len(fact.number) > 1:
        return replace(fact, value=fact.value.replace(fact.number, _slip(rng, fact.number), 1))
    value = made_up_value(rng, attribute)
    while value == fact.value:
        value = made_up_value(rng, attribute)
    return replace(fact, value=value)


def _slip(rng: random.Random, amount: str) -> str:
    """The number with one digit changed."""
    at = rng.choice([n for n, c in enumerate(amount) if c.isdigit()])
    digit = rng.choice([d for d in "123456789" if d != amount[at]])
    return amount[:at] + digit + amount[at + 1 :]


def wrong_single(rng: random.Random, fact: Fact, world: World) -> Claim:
    """A wrong answer to a question that the passages answer."""
    right = single(fact, world)
    if rng.random() < 0.2:
        return nothing(right.find)
    wrong = single(wrong_fact(rng, fact, world), world)
    own = [f for f in world.facts() if f.entity == fact.entity and f.value != fact.value]
    if own and rng.random() < 0.2:
        wrong = single(rng.choice(own), world)
    near = [f for f in world.facts() if f.attribute == fact.attribute and f.value != fact.value]
    if near and rng.random() < 0.2:
        wrong = single(rng.choice(near), world)
    return replace(wrong, find=right.find if rng.random() < 0.8 else wrong.find)


def wrong_comparison(rng: random.Random, comparison: Comparison, world: World) -> Claim:
    """A wrong number, or the wrong winner of right numbers."""
    right = compare(comparison, world)
    roll = rng.random()
    if roll < 0.1:
        return nothing(right.find)
    if roll < 0.5:
        flipped = compare(replace(comparison, higher=not comparison.higher), world)
        if comparison.winner is not None:
            word, other = ("higher", "lower") if comparison.higher else ("lower", "higher")
            return replace(
                flipped,
                lines=(*flipped.lines[:2], flipped.lines[2].replace(f"{other.capitalize()}:", f"{word.capitalize()}:")),
                answer=flipped.answer.replace(f" is {other} than ", f" is {word} than ", 1),
                gist=flipped.gist.replace(f", {other} ", f", {word} "),
            )
    first, second = comparison.first, comparison.second
    if rng.random() < 0.5:
        first = _wrong_number(rng, first)
    else:
        second = _wrong_number(rng, second)
    return compare(Comparison(first, second, comparison.higher), world)


def _wrong_number(rng: random.Random, fact: Fact) -> Fact:
    value = made_up_value(rng, BY_NAME[fact.attribute])
    while value == fact.value:
        value = made_up_value(rng, BY_NAME[fact.attribute])
    return replace(fact, value=value)


def wrong_two_hop(rng: random.Random, key: Fact, wanted: Fact, world: World) -> Claim:
    """The value of another material, or a wrong one of the right material."""
    if rng.random() < 0.15:
        return no_two_hop(key, wanted)
    others = [f for f in world.facts() if f.attribute == wanted.attribute and f.value != wanted.value]
    if others and rng.random() < 0.5:
        other = rng.choice(others)
        return two_hop(replace(key, entity=other.entity), other, world)
    return two_hop(key, wrong_fact(rng, wanted, world), world)


def wrong_nothing(rng: random.Random, missing: Fact, world: World) -> Claim:
    """An answer although the passages do not say: a value from near by, or one out of thin air."""
    attribute = BY_NAME[missing.attribute]
    pool = [f.value for f in world.facts() if BY_NAME[f.attribute].unit == attribute.unit]
    value = rng.choice(pool) if pool and rng.random() < 0.7 else made_up_value(rng, attribute)
    return single(replace(missing, value=value), world)
