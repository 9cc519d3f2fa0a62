"""How people ask: of one fact, of two materials, of the material that has a value, and what else is known of that one.

Some shapes are held out: training never sees them, so that they measure whether a question is understood.
"""

import random
from dataclasses import dataclass
from typing import Literal

from preflexor_training.nano.attributes import Attribute, article

Split = Literal["train", "heldout"]


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to ask. {a}: the attribute, {e} {f}: materials, {q} {Q}: a direct question, {p}: a predicate."""

    id: str
    text: str
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A question in words, and the shape it has."""

    text: str
    shape: Shape


def _shapes(prefix: str, texts: tuple[str, ...], held: tuple[str, ...]) -> tuple[Shape, ...]:
    trained = [Shape(f"{prefix}-{n}", text) for n, text in enumerate(texts, 1)]
    return (*trained, *(Shape(f"{prefix}-h{n}", text, held_out=True) for n, text in enumerate(held, 1)))


NOUN = _shapes(
    "noun",
    (
        "What is the {a} of {e}?",
        "What's the {a} of {e}?",
        "what is the {a} of {e}",
        "{A} of {e}?",
        "{A} of {e}",
        "{E}: {a}?",
        "{E}, {a}?",
        "{e} {a}",
        "What {a} does {e} have?",
        "Which {a} does {e} have?",
        "Tell me the {a} of {e}.",
        "Please tell me the {a} of {e}.",
        "Give the {a} of {e}.",
        "Give me the {a} for {e}.",
        "State the {a} of {e}.",
        "Name the {a} of {e}.",
        "Report the {a} of {e}, please.",
        "Find the {a} of {e}.",
        "Look up the {a} of {e}.",
        "Can you look up the {a} of {e}?",
        "Could you tell me the {a} of {e}?",
        "Can you tell me what the {a} of {e} is?",
        "Do you know the {a} of {e}?",
        "Do the passages give the {a} of {e}?",
        "What do the passages say about the {a} of {e}?",
        "According to the passages, what is the {a} of {e}?",
        "By the notes, what is the {a} of {e}?",
        "From the text, what is the {a} of {e}?",
        "For {e}, what is the {a}?",
        "For {e}, give the {a}.",
        "In the case of {e}, what is the {a}?",
        "Regarding {e}: what is its {a}?",
        "About {e}: what is the {a}?",
        "Take {e}. What is its {a}?",
        "Consider {e}. What {a} is reported?",
        "Think of {e}. Which {a} does it have?",
        "I need the {a} of {e}.",
        "I need to know the {a} of {e} for a report.",
        "I want to know the {a} of {e}.",
        "I would like to know the {a} of {e}.",
        "I am looking for the {a} of {e}.",
        "I am designing a part with {e}. What is its {a}?",
        "My student asked for the {a} of {e}. What is it?",
        "What value does the {a} of {e} have?",
        "What is reported for the {a} of {e}?",
        "What is known about the {a} of {e}?",
        "What did tests find for the {a} of {e}?",
        "What is {e}'s {a}?",
        "What would you say is the {a} of {e}?",
        "What is a typical {a} of {e}?",
        "What is the typical {a} for {e}?",
        "Remind me, what is the {a} of {e}?",
        "Quick question: what is the {a} of {e}?",
        "One question about {e}: what is its {a}?",
        "What is the {a} of {e}? Please be brief.",
        "What is the {a} of {e}, and where does it say so?",
        "What is the {a} of {e} according to the library?",
        "Let us talk about {e}. What is its {a}?",
    ),
    (
        "Please find out the {a} that {e} has.",
        "How would you put the {a} of {e}?",
        "Of {e} I would like to have the {a}.",
        "Is there anything in the notes on the {a} of {e}?",
        "We are comparing materials. First, what is the {a} of {e}?",
        "If I had to quote the {a} of {e}, what should I write?",
        "Which {a} is given for {e}?",
        "{A} for {e}, please.",
    ),
)
DIRECT = _shapes(
    "direct",
    (
        "{Q}",
        "{q}",
        "Please tell me: {q}",
        "Tell me, {q}",
        "{Q} Please be brief.",
        "{Q} I need it for a report.",
        "{Q} Answer from the passages.",
        "According to the passages, {q}",
        "By the notes, {q}",
        "A question: {q}",
        "Quick question: {q}",
        "One more thing: {q}",
        "I wonder: {q}",
        "My student asks: {q}",
        "So, {q}",
        "I am new to this. {Q}",
    ),
    ("Can you help me with this: {q}", "For a talk I need to know: {q}", "{Q} What do you find?"),
)
COMPARE_NOUN = _shapes(
    "compare-noun",
    (
        "Which has the {more} {a}, {e} or {f}?",
        "Which of {e} and {f} has the {more} {a}?",
        "Of {e} and {f}, which has the {more} {a}?",
        "Between {e} and {f}, which one has the {more} {a}?",
        "Does {e} have a {more} {a} than {f}?",
        "Is the {a} of {e} {more} than that of {f}?",
        "Compare the {a} of {e} and {f}: which is {more}?",
        "Compare {e} and {f}: which has the {more} {a}?",
        "{E} or {f}: which has the {more} {a}?",
        "Tell me which has the {more} {a}: {e} or {f}.",
        "I need the {more} {a}. Should I take {e} or {f}?",
        "Who wins on {a}, the {more} the better: {e} or {f}?",
        "What has the {more} {a}: {e} or {f}?",
        "According to the passages, which has the {more} {a}, {e} or {f}?",
        "Looking at {a}, which is {more}, {e} or {f}?",
    ),
    (
        "If you put {e} beside {f}, which shows the {more} {a}?",
        "Pick the one with the {more} {a}: {e}, {f}.",
        "{E} against {f}: whose {a} is {more}?",
    ),
)
COMPARE_DIRECT = _shapes(
    "compare-direct",
    (
        "Which {p}, {e} or {f}?",
        "Which of {e} and {f} {p}?",
        "Of {e} and {f}, which {p}?",
        "Between {e} and {f}, which one {p}?",
        "Is it true that {e} {p} than {f}?",
        "Tell me which {p}: {e} or {f}.",
        "{E} or {f}: which {p}?",
        "{E} or {f}, which one {p}?",
        "What {p}, {e} or {f}?",
        "By the notes, which {p}, {e} or {f}?",
        "Compare {e} with {f}. Which {p}?",
        "I have {e} and {f}. Which {p}?",
    ),
    ("Out of {e} and {f}, the one that {p} is which?", "Would you say that {e} {p} than {f}?"),
)
REVERSE = _shapes(
    "reverse",
    (
        "Which material has a {a} of {v}?",
        "What has a {a} of {v}?",
        "Which one has the {a} {v}?",
        "Name the material with a {a} of {v}.",
        "Find the material whose {a} is {v}.",
        "For which material is the {a} {v}?",
        "Whose {a} is {v}?",
        "A {a} of {v}: which material is that?",
    ),
    ("The {a} is {v}. Which material do I mean?",),
)

TWO_HOP = _shapes(
    "two-hop",
    (
        "What is the {a} of the material whose {b} is {v}?",
        "What is the {a} of the material with {an_b} of {v}?",
        "A material has {an_b} of {v}. What is its {a}?",
        "The {b} of a material is {v}. What is its {a}?",
        "Find the material whose {b} is {v}. What is its {a}?",
        "Take the material whose {b} is {v}. What is its {a}?",
        "Tell me the {a} of the material whose {b} is {v}.",
        "Which {a} does the material have whose {b} is {v}?",
        "For the material with {an_b} of {v}, what is the {a}?",
        "If the {b} is {v}, what is the {a} of that material?",
        "{A} of the material whose {b} is {v}?",
        "According to the passages, what is the {a} of the material whose {b} is {v}?",
        "I know that the {b} is {v}. What is the {a} of that material?",
    ),
    (
        "Some material has the {b} {v}; give me its {a}.",
        "What {a} goes with the material that has {an_b} of {v}?",
        "One material in the notes has {an_b} of {v}. I need its {a}.",
    ),
)
"""Asks for {a} of whatever has {v} as its {b}; {an_b} has its article."""

MULTI_HOP = _shapes(
    "multi-hop",
    (
        "Which has the {more} {a}: the material whose {b} is {v}, or {e}?",
        "Which has the {more} {a}, the material with {an_b} of {v} or {e}?",
        "What has the {more} {a}: {e} or the material whose {b} is {v}?",
        "Compare {e} with the material whose {b} is {v}: which has the {more} {a}?",
        "Of {e} and the material with {an_b} of {v}, which has the {more} {a}?",
        "A material has {an_b} of {v}. Has that one or {e} the {more} {a}?",
        "Is the {a} of {e} {more} than that of the material whose {b} is {v}?",
        "Tell me which has the {more} {a}: {e}, or the material whose {b} is {v}.",
    ),
    (
        "Put {e} beside the material whose {b} is {v}: whose {a} is {more}?",
        "There is a material with {an_b} of {v}. Does it or {e} show the {more} {a}?",
    ),
)
"""Compares {a} of {e} with that of whatever has {v} as its {b}."""

SINGLE = NOUN + DIRECT
COMPARISON = COMPARE_NOUN + COMPARE_DIRECT
HIGHER = ("higher", "greater", "larger")
LOWER = ("lower", "smaller")


def of_split(shapes: tuple[Shape, ...], split: Split) -> tuple[Shape, ...]:
    """The shapes that training uses, or the held-out ones."""
    return tuple(s for s in shapes if s.held_out == (split == "heldout"))


_POOLS = {
    (split, kind): of_split(shapes, split)
    for split in ("train", "heldout")
    for kind, shapes in (
        ("noun", NOUN),
        ("direct", DIRECT),
        ("compare-noun", COMPARE_NOUN),
        ("compare-direct", COMPARE_DIRECT),
        ("reverse", REVERSE),
        ("two-hop", TWO_HOP),
        ("multi-hop", MULTI_HOP),
    )
}


def capital(text: str) -> str:
    """The text with its first letter capital."""
    return text[:1].upper() + text[1:]


def _spoken(rng: random.Random, entity: str) -> str:
    """The name as a person writes it: mostly bare, at times with an article."""
    roll = rng.random()
    if roll < 0.75:
        return entity
    if roll < 0.92:
        return f"the {entity}"
    return f"an {entity}" if entity[0] in "aeiou" else f"a {entity}"


def ask_single(rng: random.Random, attribute: Attribute, entity: str, *, split: Split) -> Asked:
    """A question for one attribute of one material."""
    if rng.random() < 0.4:
        shape = rng.choice(_POOLS[split, "direct"])
        question = rng.choice(attribute.asks).format(e=_spoken(rng, entity))
        return Asked(shape.text.format(q=question[0].lower() + question[1:], Q=question), shape)
    return ask_noun(rng, rng.choice(attribute.nouns), entity, split=split)


def ask_noun(rng: random.Random, noun: str, entity: str, *, split: Split) -> Asked:
    """A question for whatever the noun names."""
    shape = rng.choice(_POOLS[split, "noun"])
    entity = _spoken(rng, entity)
    return Asked(shape.text.format(a=noun, A=capital(noun), e=entity, E=capital(entity)), shape)


def ask_comparison(
    rng: random.Random, attribute: Attribute, first: str, second: str, *, higher: bool, split: Split
) -> Asked:
    """A question which of two materials has more, or less, of an attribute."""
    first, second = _spoken(rng, first), _spoken(rng, second)
    names = {"e": first, "f": second, "E": capital(first)}
    predicates = attribute.more if higher else attribute.less
    if rng.random() < 0.5:
        shape = rng.choice(_POOLS[split, "compare-direct"])
        return Asked(shape.text.format(p=rng.choice(predicates), **names), shape)
    shape = rng.choice(_POOLS[split, "compare-noun"])
    more = rng.choice(HIGHER if higher else LOWER)
    return Asked(shape.text.format(a=rng.choice(attribute.nouns), more=more, **names), shape)


def ask_reverse(rng: random.Random, attribute: Attribute, value: str, *, split: Split) -> Asked:
    """A question for the material that has a value."""
    shape = rng.choice(_POOLS[split, "reverse"])
    noun = rng.choice(attribute.nouns)
    text = shape.text.format(a=noun, v=value)
    if noun[0] in "aeiou":
        text = text.replace(f"a {noun}", f"an {noun}").replace(f"A {noun}", f"An {noun}")
    return Asked(text, shape)


def ask_two_hop(rng: random.Random, wanted: Attribute, key: Attribute, value: str, *, split: Split) -> Asked:
    """A question for one attribute of a material that is told by the value of another."""
    shape = rng.choice(_POOLS[split, "two-hop"])
    noun, known = rng.choice(wanted.nouns), rng.choice(key.nouns)
    return Asked(shape.text.format(a=noun, A=capital(noun), b=known, an_b=article(known), v=value), shape)


def ask_multi_hop(
    rng: random.Random, attribute: Attribute, key: Attribute, value: str, other: str, *, higher: bool, split: Split
) -> Asked:
    """A question which of two materials has more of an attribute; one of them is told by the value of another."""
    shape = rng.choice(_POOLS[split, "multi-hop"])
    known, more = rng.choice(key.nouns), rng.choice(HIGHER if higher else LOWER)
    noun = rng.choice(attribute.nouns)
    return Asked(
        shape.text.format(a=noun, more=more, b=known, an_b=article(known), v=value, e=_spoken(rng, other)), shape
    )
