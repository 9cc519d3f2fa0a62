"""Made-up materials with random values, and passages that tell of them."""

import math
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from preflexor_training.nano import sentences as words
from preflexor_training.nano.attributes import BY_NAME, NUMERIC, TEXTUAL, Attribute, article
from preflexor_training.nano.frames import Split, capital


@dataclass(frozen=True, slots=True)
class Fact:
    """A value of a material, as it stands in a passage."""

    entity: str
    attribute: str
    value: str

    @property
    def number(self) -> str:
        """The value without its unit."""
        return self.value.rstrip("%").split(" ", 1)[0]


@dataclass(frozen=True, slots=True)
class Section:
    """A piece of a note, and the facts that it states."""

    title: str
    text: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class World:
    """What an episode talks about."""

    sections: tuple[Section, ...]
    kind: str = "made-up"
    unclear: frozenset[tuple[str, str]] = frozenset()
    """Materials and attributes that a passage touches without telling them: nothing to ask about."""

    def facts(self) -> tuple[Fact, ...]:
        """Every fact that a passage states, once."""
        return tuple(dict.fromkeys(fact for section in self.sections for fact in section.facts))

    def where(self, fact: Fact) -> int:
        """The number of the first passage that states the fact, from 1."""
        return next(n for n, section in enumerate(self.sections, 1) if fact in section.facts)


SAME_UNIT = tuple(
    group
    for unit in dict.fromkeys(a.unit for a in NUMERIC)
    if len(group := tuple(a for a in NUMERIC if a.unit == unit)) > 1
)


def stable_hash(text: str) -> int:
    """A number that is the same on every machine and in every run."""
    return zlib.crc32(text.encode())


def held_out_fact(entity: str, attribute: str) -> bool:
    """Whether training never asks for this attribute of this material: one in ten."""
    return stable_hash(f"{entity}|{attribute}") % 10 == 0


def held_out_pair(first: str, second: str) -> bool:
    """Whether training never compares these two materials, in either order: one pair in eight."""
    return stable_hash("|".join(sorted((first, second)))) % 8 == 0


def held_out_hop(entity: str, key: str, wanted: str) -> bool:
    """Whether training never asks for `wanted` of the material that is told by its `key`: one in eight."""
    return stable_hash(f"{entity}|{key}|{wanted}") % 8 == 0


def made_up_name(rng: random.Random, *, split: Split) -> str:
    """A name that no material has; a tenth of all names is kept for the held-out split."""
    while True:
        name = "".join(
            rng.choice(words.ONSETS) + rng.choice(words.VOWELS) + rng.choice(words.CODAS)
            for _ in range(rng.choice((2, 2, 2, 3)))
        )
        if 4 <= len(name) <= 11 and (stable_hash(name) % 10 == 0) == (split == "heldout"):
            break
    roll = rng.random()
    if roll < 0.35:
        return name
    if roll < 0.75:
        return f"{name} {rng.choice(words.CLASSES)}"
    if roll < 0.9:
        return f"{rng.choice(words.QUALIFIERS)} {name}"
    return f"{rng.choice(words.QUALIFIERS)} {name} {rng.choice(words.CLASSES)}"


def made_up_names(rng: random.Random, count: int, *, split: Split, known: Sequence[str] = ()) -> list[str]:
    """Different names; some share a word, some are real materials (`known`), which then have random values."""
    names: list[str] = []
    while len(names) < count:
        roll = rng.random()
        if known and roll < 0.3:
            name = rng.choice(known)
        elif names and roll < 0.45:
            head, _, tail = rng.choice(names).rpartition(" ")
            name = f"{head} {rng.choice(words.CLASSES)}" if head else f"{rng.choice(words.QUALIFIERS)} {tail}"
        else:
            name = made_up_name(rng, split=split)
        if name not in names:
            names.append(name)
    return names


def number(rng: random.Random, low: float, high: float) -> str:
    """A number from a range, evenly over its orders of magnitude, with two or three digits that matter."""
    x = math.exp(rng.uniform(math.log(low), math.log(high)))
    if x < 0.1:
        return f"{x:.3f}".rstrip("0") if x >= 0.001 else "0.001"
    if x < 1:
        return f"{x:.2f}".rstrip("0").rstrip(".")
    if x < 20:
        return f"{x:.1f}" if rng.random() < 0.7 else f"{x:.0f}"
    if x < 100 and rng.random() < 0.2:
        return f"{x:.1f}"
    if x < 200 or rng.random() < 0.3:
        return f"{x:.0f}"
    return f"{round(x, -1 if x < 2000 else -2):.0f}"


def with_unit(amount: str, unit: str) -> str:
    """A number and its unit as the notes write them."""
    return f"{amount}%" if unit == "%" else f"{amount} {unit}"


def made_up_value(rng: random.Random, attribute: Attribute) -> str:
    """A value that the attribute could have."""
    if attribute.numeric:
        return with_unit(number(rng, attribute.low, attribute.high), attribute.unit)
    match attribute.name:
        case "main component":
            return rng.choice(words.COMPONENTS)
        case "mineral":
            return rng.choice(words.MINERALS)
        case "mechanism":
            way = rng.choice(words.WAYS)
            return f"{rng.choice(words.ACTIONS)} of {rng.choice(words.PARTS)} {way}".strip()
        case "structure":
            return f"{rng.choice(words.STRUCTURES)} of {rng.choice(words.PARTS)}"
        case "source":
            return f"{rng.choice(words.PLACES)} {rng.choice(words.ANIMALS)}"
        case _:
            return f"{rng.choice(words.PURPOSES)} {rng.choice(words.AIMS)}"


def _attributes(rng: random.Random, count: int) -> list[Attribute]:
    """Different attributes; every other time two of them share a unit."""
    chosen: list[Attribute] = []
    if count >= 2 and rng.random() < 0.6:
        chosen += rng.sample(rng.choice(SAME_UNIT), 2)
    while len(chosen) < count:
        attribute = rng.choice(NUMERIC if rng.random() < 0.6 else TEXTUAL)
        if attribute not in chosen:
            chosen.append(attribute)
    return chosen


def _table(rng: random.Random, names: Sequence[str]) -> dict[str, list[Fact]]:
    """Facts for each material: most attributes are shared, so that the wrong material's value is at hand."""
    shared = _attributes(rng, rng.randint(2, 4))
    table: dict[str, list[Fact]] = {}
    used: set[tuple[str, str]] = set()
    for name in names:
        own = [a for a in shared if rng.random() < 0.8] or shared[:1]
        own += [a for a in _attributes(rng, rng.randint(0, 3)) if a not in own]
        facts = []
        for attribute in own:
            value = made_up_value(rng, attribute)
            while (attribute.unit or attribute.name, value) in used:
                value = made_up_value(rng, attribute)
            used.add((attribute.unit or attribute.name, value))
            facts.append(Fact(name, attribute.name, value))
        rng.shuffle(facts)
        table[name] = facts
    return table


def _noun(rng: random.Random, attribute: Attribute) -> str:
    return attribute.name if rng.random() < 0.6 else rng.choice(attribute.nouns)


def say(rng: random.Random, fact: Fact) -> str:
    """A sentence that states the fact and names the material."""
    attribute = BY_NAME[fact.attribute]
    special = rng.random() < (0.35 if attribute.numeric else 0.75)
    if special or not attribute.numeric:
        template = rng.choice(attribute.says if special else ("The {a} of {e} is {v}.", "As for {e}, its {a} is {v}."))
    else:
        template = rng.choice(words.NUMERIC_SAYS)
    noun = _noun(rng, attribute)
    return _fill(template, fact.entity, v=fact.value, a=noun, an_a=article(noun), A=capital(noun))


def _fill(template: str, entity: str, **slots: str) -> str:
    text = template.format(e=entity, E=capital(entity), **slots)
    return text.replace("An " + entity, "A " + entity) if entity[0] not in "aeiou" else text


def _say_two(rng: random.Random, first: Fact, second: Fact) -> str:
    a, b = _noun(rng, BY_NAME[first.attribute]), _noun(rng, BY_NAME[second.attribute])
    return _fill(
        rng.choice(words.JOINT_SAYS),
        first.entity,
        v=first.value,
        w=second.value,
        a=a,
        b=b,
        an_a=article(a),
        an_b=article(b),
    )


def _say_contrast(rng: random.Random, fact: Fact, other: Fact) -> str:
    a = _noun(rng, BY_NAME[fact.attribute])
    return _fill(
        rng.choice(words.CONTRAST_SAYS),
        fact.entity,
        f=other.entity,
        v=fact.value,
        w=other.value,
        a=a,
        an_a=article(a),
    )


def _section(rng: random.Random, name: str, facts: Sequence[Fact], others: Sequence[Fact], *, stage: int) -> Section:
    """A paragraph that states the facts, one or two to a sentence, among sentences that state none."""
    said: list[str] = []
    stated = list(facts)
    rest = list(facts)
    while rest:
        fact = rest.pop()
        numeric = BY_NAME[fact.attribute].numeric
        pair = next((other for other in rest if BY_NAME[other.attribute].numeric), None)
        rivals = [o for o in others if o.attribute == fact.attribute]
        if numeric and rivals and stage >= 1 and rng.random() < 0.15:
            rival = rng.choice(rivals)
            said.append(_say_contrast(rng, fact, rival))
            stated.append(rival)
        elif numeric and pair and stage >= 1 and rng.random() < 0.3:
            rest.remove(pair)
            said.append(_say_two(rng, fact, pair))
        else:
            said.append(say(rng, fact))
    said += [_fill(f, name) for f in rng.sample(words.FILLERS, rng.choice((0, 0, 1) if stage == 0 else (0, 1, 2, 3)))]
    rng.shuffle(said)
    if stage >= 1 and len(said) > 1 and rng.random() < 0.12:
        said = [said[0], *(_pronoun(s, name) if rng.random() < 0.5 else s for s in said[1:])]
    heading = rng.choice(words.HEADINGS) + "\n\n" if rng.random() < 0.7 else ""
    return Section(capital(name), heading + " ".join(said), tuple(stated))


def _pronoun(sentence: str, name: str) -> str:
    if sentence.startswith(f"{capital(name)} ") and sentence.count(name) + sentence.count(capital(name)) == 1:
        return "It" + sentence[len(name) :]
    return sentence


def _sheet(rng: random.Random, name: str, facts: Sequence[Fact]) -> Section:
    """The barest form: material, attribute, value."""
    lines = [f"{f.entity}: {f.attribute}: {f.value}." for f in facts]
    rng.shuffle(lines)
    return Section(capital(name), " " + " ".join(lines), tuple(facts))


def made_up(rng: random.Random, *, split: Split, stage: int, known: Sequence[str] = ()) -> World:
    """A world of one to four passages about materials that do not exist, or have other values than in truth."""
    names = made_up_names(rng, rng.choice(((1, 1, 2), (1, 2, 2, 3), (1, 2, 3, 3, 4))[stage]), split=split, known=known)
    table = _table(rng, names)
    if rng.random() < (0.4, 0.1, 0.03)[stage]:
        return World(tuple(_sheet(rng, name, facts) for name, facts in table.items()), "sheet")
    sections = []
    for name, facts in table.items():
        others = [fact for other, its in table.items() if other != name for fact in its]
        split_at = len(facts) // 2 if len(facts) >= 4 and len(names) <= 2 and stage and rng.random() < 0.5 else 0
        for part in (facts[:split_at], facts[split_at:]):
            if part:
                sections.append(_section(rng, name, part, others, stage=stage))
    rng.shuffle(sections)
    return World(tuple(sections[:4]))
