"""Questions about the shipped library to teach by: drawn from what training may see, and kept as a file for forge."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from preflexor_agents.errors import ConfigError, TrainingError
from preflexor_agents.evaluation.tasks import Task, row_of
from preflexor_training.nano import questions
from preflexor_training.nano.attributes import BY_NAME, UNSUPPORTED
from preflexor_training.nano.facts import Material, materials
from preflexor_training.nano.frames import ask_comparison, ask_noun, ask_two_hop
from preflexor_training.nano.questions import Question, comparable, lacking, linked, tells
from preflexor_training.nano.suite import task_of
from preflexor_training.nano.worlds import Fact, held_out_fact, held_out_hop, held_out_pair

MIX: Mapping[str, float] = {
    "single": 5,
    "numeric": 5,
    "comparison": 45,
    "two-hop": 20,
    "multi-hop": 8,
    "unanswerable": 17,
}
"""Shares of the columns; most of what the base gets right anyway, so that there is nothing to prefer, is left out."""
_TRIES = 50
Draw = Callable[[random.Random], Question]


def draw_questions(count: int, *, seed: int, mix: Mapping[str, float] = MIX) -> list[Question]:
    """Different questions of the train split: shapes, facts, pairs and gaps that no held-out question has.

    Args:
        count: how many.
        seed: decides all of them; the first ones are the same for any count.
        mix: shares of the columns, as `MIX`.

    Raises:
        ConfigError: a column is unknown, or there are not so many questions of the mix.
    """
    if unknown := [column for column in mix if column not in _DRAWS]:
        raise ConfigError(f"column {unknown[0]!r} is unknown; use {', '.join(_DRAWS)}")
    rng = random.Random(f"questions {seed}")
    found: dict[str, Question] = {}
    while len(found) < count:
        column = rng.choices(list(mix), list(mix.values()))[0]
        tries = (_DRAWS[column](rng) for _ in range(_TRIES))
        question = next((q for q in tries if q.text not in found), None)
        if question is None:
            raise ConfigError(f"there are not {count} different questions of {dict(mix)}; ask for fewer")
        found[question.text] = question
    return list(found.values())


def tasks(drawn: list[Question]) -> list[Task]:
    """Questions as rows of a suite."""
    return [task_of(question, f"train-{n}") for n, question in enumerate(drawn)]


def write_questions(path: Path, drawn: list[Question]) -> None:
    """Write questions as rows that evaluation and forge read.

    Raises:
        TrainingError: the file cannot be written.
    """
    lines = [json.dumps(row_of(task), ensure_ascii=False) + "\n" for task in tasks(drawn)]
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text("".join(lines), encoding="utf-8")
        partial.replace(path)
    except OSError as e:
        raise TrainingError(f"{path} cannot be written: {e.strerror}; make room or name another folder") from None


@cache
def _facts(*, numeric: bool) -> tuple[tuple[Material, Fact], ...]:
    """What training may ask for."""
    return tuple(
        (m, k.fact)
        for m in materials()
        for k in m.known
        if BY_NAME[k.fact.attribute].numeric == numeric and not held_out_fact(m.name, k.fact.attribute)
    )


@cache
def _pairs() -> tuple[tuple[Fact, Fact], ...]:
    return tuple(comparable("train"))


@cache
def _hops() -> tuple[tuple[Material, Fact, Fact], ...]:
    return tuple(linked("train"))


@cache
def _unspoken() -> tuple[str, ...]:
    """What no note mentions."""
    told = " ".join(m.text for m in materials()).lower()
    return tuple(noun for noun in UNSUPPORTED if noun.lower() not in told)


def _single(rng: random.Random, *, numeric: bool) -> Question:
    return questions.single(*rng.choice(_facts(numeric=numeric)), rng=rng, split="train")


def _comparison(rng: random.Random) -> Question:
    first, second = rng.choice(_pairs())
    if rng.random() < 0.5:
        first, second = second, first
    return questions.comparison(first, second, rng=rng, split="train")


def _two_hop(rng: random.Random) -> Question:
    return questions.two_hop(*rng.choice(_hops()), rng=rng, split="train")


def _multi_hop(rng: random.Random) -> Question:
    first, second = rng.choice(_pairs())
    if rng.random() < 0.5:
        first, second = second, first
    ways = questions.keys(first, "train")
    if not ways:
        return _multi_hop(rng)
    return questions.multi_hop(rng.choice(ways), first, second, rng=rng, split="train")


def _unanswerable(rng: random.Random) -> Question:
    """What a note does not say: a fact, one side of a comparison, the second step; or what no note speaks of."""
    roll = rng.random()
    if roll < 0.5:
        material = rng.choice(materials())
        return questions.unanswered(material, rng.choice(lacking(material, "train")), rng=rng, split="train")
    if roll < 0.65:
        return _unsupported(rng)
    made = (_half_comparison if roll < 0.85 else _half_two_hop)(rng)
    return made or _unanswerable(rng)


def _unsupported(rng: random.Random) -> Question:
    material = rng.choice(materials())
    noun = rng.choice([noun for noun in _unspoken() if not held_out_fact(material.name, noun)])
    asked = ask_noun(rng, noun, material.name, split="train")
    return _no_answer(material, noun, asked.text, asked.shape.id)


def _half_comparison(rng: random.Random) -> Question | None:
    """Of which one material's note gives no number."""
    material, known = rng.choice(_facts(numeric=True))
    attribute = BY_NAME[known.attribute]
    others = [m for m in materials() if attribute in lacking(m, "train") and not held_out_pair(m.name, material.name)]
    if not others:
        return None
    names = [material.name, rng.choice(others).name]
    rng.shuffle(names)
    higher = rng.random() < 0.6
    asked = ask_comparison(rng, attribute, *names, higher=higher, split="train")
    made = _no_answer(material, attribute.name, asked.text, asked.shape.id)
    return replace(made, material=names[0], other=names[1], higher=higher)


def _half_two_hop(rng: random.Random) -> Question | None:
    """Of which a note tells the material, and not what is asked of it."""
    material, key = rng.choice(_facts(numeric=rng.random() < 0.5))
    gaps = [a for a in lacking(material, "train") if not held_out_hop(material.name, key.attribute, a.name)]
    if not tells(key) or not gaps:
        return None
    wanted = rng.choice(gaps)
    asked = ask_two_hop(rng, wanted, BY_NAME[key.attribute], key.value, split="train")
    return replace(_no_answer(material, wanted.name, asked.text, asked.shape.id), key=key)


def _no_answer(material: Material, attribute: str, text: str, shape: str) -> Question:
    return Question(
        text=text,
        kind="unanswerable",
        material=material.name,
        attribute=attribute,
        note=material.note,
        shape=shape,
        held_out=False,
    )


_DRAWS: Mapping[str, Draw] = {
    "single": lambda rng: _single(rng, numeric=False),
    "numeric": lambda rng: _single(rng, numeric=True),
    "comparison": _comparison,
    "two-hop": _two_hop,
    "multi-hop": _multi_hop,
    "unanswerable": _unanswerable,
}
