"""Worlds made of the library's real notes: as they stand, with other values, or under made-up names."""

import random
import re
from dataclasses import replace
from functools import cache

from preflexor_training.nano.attributes import BY_NAME
from preflexor_training.nano.facts import Material, Part, materials, states, value_pattern
from preflexor_training.nano.frames import Split, capital
from preflexor_training.nano.worlds import Fact, Section, World, made_up_name, made_up_value, number, with_unit


@cache
def names() -> tuple[str, ...]:
    """The names of all materials."""
    return tuple(m.name for m in materials())


@cache
def _pairs() -> tuple[tuple[Material, Material, str], ...]:
    """Materials that share a numeric attribute."""
    table: dict[str, list[Material]] = {}
    for material in materials():
        for known in material.known:
            if BY_NAME[known.fact.attribute].numeric:
                table.setdefault(known.fact.attribute, []).append(material)
    return tuple((a, b, attribute) for attribute, its in table.items() for a in its for b in its if a is not b)


@cache
def _indexed(material: Material) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    telling = {k.section for k in material.known}
    return tuple(p for p in material.parts if p.heading in telling), material.parts


MOST = 6
"""Most passages of a world: as many as a wide search returns."""


def library(rng: random.Random, *, split: Split) -> World:
    """One to six sections of notes, most of them about one or two materials, as a search returns them."""
    chosen: list[tuple[Material, Part]] = []
    if rng.random() < 0.45:
        a, b, attribute = rng.choice(_pairs())
        chosen += [(m, _telling(m, attribute)) for m in (a, b)]
        extra = rng.choice((0, 0, 1, 1, 2, 3, 4))
    else:
        a = b = rng.choice(materials())
        chosen.append((a, rng.choice(_indexed(a)[0])))
        extra = rng.choice((0, 1, 2, 2, 3, 4, 5))
    others = (a, b, rng.choice(materials()), _namesake(rng, a))
    for _ in range(extra):
        m = rng.choice(others)
        piece = (m, rng.choice(_indexed(m)[1] if rng.random() < 0.4 else _indexed(m)[0]))
        if piece not in chosen and len(chosen) < MOST:
            chosen.append(piece)
    rng.shuffle(chosen)
    world = _world(rng, chosen)
    roll = rng.random()
    if roll < 0.8:
        return world
    if roll < 0.95:
        world = _permuted(rng, world)
    if roll < 0.9:
        return world
    return _renamed(rng, world, split=split)


@cache
def _namesakes(material: Material) -> tuple[Material, ...]:
    """Materials that share a word of their name: what a search confuses."""
    words = set(material.name.split())
    return tuple(m for m in materials() if m is not material and words & set(m.name.split()))


def _namesake(rng: random.Random, material: Material) -> Material:
    return rng.choice(_namesakes(material) or materials())


def _telling(material: Material, attribute: str) -> Part:
    section = next(k.section for k in material.known if k.fact.attribute == attribute)
    return next(p for p in material.parts if p.heading == section)


def _world(rng: random.Random, chosen: list[tuple[Material, Part]]) -> World:
    """The sections as the store cuts them: most alone, some with the section that follows."""
    sections: list[Section] = []
    taken: set[tuple[str, str]] = set()
    shown = {(m.name, p.heading) for m, p in chosen}
    for material, part in chosen:
        if (material.name, part.heading) in taken:
            continue
        end, headings = part.end, {part.heading}
        at = material.parts.index(part) + 1
        if rng.random() < 0.12 and at < len(material.parts):
            following = material.parts[at]
            if (material.name, following.heading) not in shown:
                end = following.end
                headings.add(following.heading)
        taken |= {(material.name, h) for h in headings}
        stated = tuple(k.fact for k in material.known if k.section in headings)
        sections.append(Section(material.title, material.text[part.start : end], stated))
    whole = {m.name: m for m, _ in chosen}
    told = {fact for section in sections for fact in section.facts}
    unclear = frozenset(
        (k.fact.entity, k.fact.attribute)
        for m in whole.values()
        for k in m.known
        if k.fact not in told and any(s.title == m.title and states(s.text, k.fact.value) for s in sections)
    )
    return World(tuple(sections), "library", unclear)


@cache
def _phrases() -> dict[str, tuple[str, ...]]:
    table: dict[str, list[str]] = {}
    for material in materials():
        for known in material.known:
            table.setdefault(known.fact.attribute, []).append(known.fact.value)
    return {attribute: tuple(values) for attribute, values in table.items()}


def _permuted(rng: random.Random, world: World) -> World:
    """Other values in the same sentences, so that only reading helps."""
    swaps: dict[Fact, str] = {}
    used = {f.value for f in world.facts()}
    for fact in world.facts():
        if rng.random() < 0.15:
            continue
        value = _other_value(rng, fact)
        while value in used:
            value = _other_value(rng, fact)
        used.add(value)
        swaps[fact] = value
    return replace(world, sections=tuple(_swapped(s, swaps) for s in world.sections), kind="permuted")


def _other_value(rng: random.Random, fact: Fact) -> str:
    attribute = BY_NAME[fact.attribute]
    if not attribute.numeric:
        return rng.choice(_phrases()[fact.attribute]) if rng.random() < 0.6 else made_up_value(rng, attribute)
    if rng.random() < 0.4:
        return made_up_value(rng, attribute)
    x = float(fact.number)
    high = min(x * 5, 99.0) if attribute.unit == "%" and x < 99 else x * 5
    return with_unit(number(rng, max(x / 5, 0.0005), high), attribute.unit)


def _swapped(section: Section, swaps: dict[Fact, str]) -> Section:
    text = section.text
    marked = [(fact, swaps[fact]) for fact in section.facts if fact in swaps]
    marked.sort(key=lambda m: -len(m[0].value))
    for n, (fact, _) in enumerate(marked):
        text = value_pattern(fact.value).sub(f"\x00{n}\x00", text)
    for n, (_, value) in enumerate(marked):
        text = text.replace(f"\x00{n}\x00", value)
    facts = tuple(replace(f, value=swaps[f]) if f in swaps else f for f in section.facts)
    return replace(section, text=text, facts=facts)


def _renamed(rng: random.Random, world: World, *, split: Split) -> World:
    """The same sentences about a material that does not exist."""
    sections = list(world.sections)
    unclear = world.unclear
    for title in dict.fromkeys(s.title for s in sections):
        old = title[0].lower() + title[1:]
        new = made_up_name(rng, split=split)
        pattern = re.compile(rf"\b{re.escape(old)}\b", re.IGNORECASE)

        def put(match: re.Match[str], new: str = new) -> str:
            return capital(new) if match.group(0)[0].isupper() else new

        sections = [
            Section(
                capital(new),
                pattern.sub(put, s.text),
                tuple(replace(f, entity=new, value=pattern.sub(put, f.value)) for f in s.facts),
            )
            if s.title == title
            else s
            for s in sections
        ]
        unclear = frozenset((new if e == old else e, a) for e, a in unclear)
    return World(tuple(sections), "renamed", unclear)
