"""Dialogues that nano learns from: questions about a few passages, in every role of the reflection loop.

Everything is drawn from the random source that is handed in, so the same seed gives the same dialogues.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from preflexor_agents import prompts
from preflexor_agents.events import Passage
from preflexor_agents.prompts import Grounds, Message
from preflexor_training.nano import claims, frames
from preflexor_training.nano.attributes import ATTRIBUTES, BY_NAME, UNSUPPORTED
from preflexor_training.nano.claims import Claim, Comparison
from preflexor_training.nano.frames import Split
from preflexor_training.nano.library import library, names
from preflexor_training.nano.sentences import OFF_TOPIC
from preflexor_training.nano.worlds import (
    Fact,
    World,
    held_out_fact,
    held_out_pair,
    made_up,
    made_up_name,
    made_up_value,
)

OPEN, CLOSE, OPEN_REFLECT, CLOSE_REFLECT = "<|thinking|>\n", "\n<|/thinking|>", "<|reflect|>", "<|/reflect|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """One prompt and what is to be said to it."""

    task: str
    messages: tuple[Message, ...]
    given: str = ""
    """Start of the reply that stands in the prompt already."""
    completion: str
    """What is learnt; tags are spelled out."""
    gold: dict[str, str] = field(default_factory=dict)
    """For scoring: value, entity, attribute, verdict, shape."""


@dataclass(frozen=True, slots=True)
class Episode:
    """Dialogues over the same passages, so that a trainer can run their common beginning once."""

    dialogues: tuple[Dialogue, ...]


@dataclass(frozen=True, slots=True)
class _Query:
    """A question with its right answer and a source of wrong ones."""

    kind: str
    text: str
    right: Claim
    wrong: Callable[[], Claim]
    gold: dict[str, str]


MIX: tuple[dict[str, float], ...] = (
    {"copy": 20, "lookup": 30, "reverse lookup": 5, "draft": 40, "answer": 5},
    {"copy": 10, "lookup": 14, "reverse lookup": 8, "draft": 42, "answer": 6, "critique": 12, "judge": 4, "revise": 4},
    {
        "copy": 5,
        "lookup": 4,
        "reverse lookup": 3,
        "draft": 42,
        "steered": 2,
        "answer": 6,
        "reflect": 7,
        "critique": 13,
        "revise": 8,
        "judge": 8,
        "integrate": 5,
    },
)
"""Shares of the tasks per stage."""
KINDS: tuple[dict[str, float], ...] = (
    {"single": 95, "unanswerable": 5},
    {"single": 58, "comparison": 22, "unanswerable": 15, "reverse": 5},
    {"single": 47, "comparison": 28, "unanswerable": 20, "reverse": 5},
)
"""Shares of the kinds of question per stage."""


LIBRARY_SHARE = (0.15, 0.35, 0.5)
"""Share of episodes about the library's notes per stage; the others are about made-up materials."""


def episode(rng: random.Random, *, split: Split, stage: int) -> Episode:
    """Four to eight dialogues over the same passages.

    Args:
        rng: every choice comes from here.
        split: `train`, or `heldout` with question shapes, names and pairs that training never sees.
        stage: 0 finding, 1 with distractors and comparisons, 2 everything.
    """
    if rng.random() < LIBRARY_SHARE[stage]:
        world = library(rng, split=split)
    else:
        world = made_up(rng, split=split, stage=stage, known=names())
    tasks = rng.choices(list(MIX[stage]), list(MIX[stage].values()), k=rng.randint(4, 8))
    return Episode(tuple(_dialogue(rng, task, world, split=split, stage=stage) for task in tasks))


def passages(world: World) -> tuple[Passage, ...]:
    """The world's sections as the store returns them."""
    return tuple(
        Passage(chunk_id=n, source="", title=s.title, start=0, end=len(s.text), text=s.text)
        for n, s in enumerate(world.sections, 1)
    )


def _dialogue(rng: random.Random, task: str, world: World, *, split: Split, stage: int) -> Dialogue:
    shown = passages(world)
    facts = _askable(world, split=split)
    if task in ("copy", "lookup", "reverse lookup") and facts:
        return _drill(rng, task, world, shown, rng.choice(facts))
    if task == "steered" and facts:
        return _steered(rng, world, shown, split=split)
    query = _query(rng, world, split=split, stage=stage)
    grounds = Grounds(question=query.text, passages=shown)
    match task:
        case "answer":
            return _answer(rng, query, grounds)
        case "reflect":
            return _reflect(rng, query, grounds)
        case "critique":
            return _critique(rng, query, grounds)
        case "revise":
            return _revise(rng, query, grounds)
        case "judge":
            return _judge(rng, query, grounds)
        case "integrate":
            return _integrate(rng, query, grounds)
        case _:
            return _draft(query, grounds)


def _draft(query: _Query, grounds: Grounds) -> Dialogue:
    said = _tagged(query.right.thinking) + query.right.answer
    return Dialogue(task=query.kind, messages=prompts.draft(grounds), completion=said, gold=query.gold)


def _tagged(thinking: str) -> str:
    return f"{OPEN}{thinking}{CLOSE}"


def _askable(world: World, *, split: Split) -> tuple[Fact, ...]:
    return tuple(f for f in world.facts() if split == "heldout" or not held_out_fact(f.entity, f.attribute))


def _drill(rng: random.Random, task: str, world: World, shown: tuple[Passage, ...], fact: Fact) -> Dialogue:
    """The bare skills: repeat a span, find the value of a key, find the key of a value."""
    gold = {"value": fact.value, "entity": fact.entity, "attribute": fact.attribute}
    if task == "lookup":
        question, said = f"{fact.entity}: {fact.attribute}?", claims.fact_line(fact)
    elif task == "reverse lookup":
        question, said = f"{fact.attribute}: {fact.value}?", f"Fact: {fact.attribute}: {fact.value}: {fact.entity}."
    else:
        tokens = rng.choice(world.sections).text.split()
        at = rng.randrange(len(tokens))
        span = " ".join(tokens[at : at + rng.randint(3, 24)])
        question, said = f"Repeat: {span}", f"Repeat: {span}"
        gold = {"value": span}
    messages = prompts.draft(Grounds(question=question, passages=shown))
    return Dialogue(task=task, messages=messages, completion=said, gold=gold)


def _query(rng: random.Random, world: World, *, split: Split, stage: int) -> _Query:
    kind = rng.choices(list(KINDS[stage]), list(KINDS[stage].values()))[0]
    facts = world.facts()
    if kind == "comparison":
        comparison = _pick_comparison(rng, facts, split=split)
        if comparison is not None:
            return _comparison_query(rng, comparison, world, split=split)
    askable = _askable(world, split=split)
    if kind == "unanswerable" or not askable:
        return _unanswerable_query(rng, world, split=split)
    fact = rng.choice(askable)
    gold = {"value": fact.value, "entity": fact.entity, "attribute": fact.attribute}
    if kind == "reverse" and sum(f.attribute == fact.attribute and f.value == fact.value for f in facts) == 1:
        asked = frames.ask_reverse(rng, BY_NAME[fact.attribute], fact.value, split=split)
        right = claims.reverse(fact, world)
        others = [f.entity for f in facts if f.entity != fact.entity] or [made_up_name(rng, split=split)]
        return _Query(
            "reverse",
            asked.text,
            right,
            lambda: _renamed(right, fact, rng.choice(others), world),
            {**gold, "value": fact.entity, "shape": asked.shape.id},
        )
    asked = frames.ask_single(rng, BY_NAME[fact.attribute], fact.entity, split=split)
    right = claims.single(fact, world)
    wrong = lambda: claims.wrong_single(rng, fact, world)  # noqa: E731
    return _Query("single", asked.text, right, wrong, {**gold, "shape": asked.shape.id})


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


def _comparison_query(rng: random.Random, comparison: Comparison, world: World, *, split: Split) -> _Query:
    attribute = BY_NAME[comparison.first.attribute]
    first, second = comparison.first.entity, comparison.second.entity
    asked = frames.ask_comparison(rng, attribute, first, second, higher=comparison.higher, split=split)
    winner = comparison.winner
    gold = {
        "value": winner.entity if winner else "equal",
        "entity": f"{first}|{second}",
        "attribute": attribute.name,
        "numbers": f"{comparison.first.number}|{comparison.second.number}",
        "shape": asked.shape.id,
    }
    right = claims.compare(comparison, world)
    return _Query("comparison", asked.text, right, lambda: claims.wrong_comparison(rng, comparison, world), gold)


def _unanswerable_query(rng: random.Random, world: World, *, split: Split) -> _Query:
    """A question that the passages do not answer; most are near misses."""
    facts = world.facts()
    stated = {(f.entity, f.attribute) for f in facts} | world.unclear
    entities = list(dict.fromkeys(f.entity for f in facts))
    gold = {"value": "none"}
    roll = rng.random()
    if roll < 0.05:
        question, find = rng.choice(OFF_TOPIC)
        return _nothing_query(rng, question, find, gold, split=split, world=world)
    if roll < 0.17 or not entities:
        noun = rng.choice(UNSUPPORTED)
        entity = rng.choice(entities) if entities else made_up_name(rng, split=split)
        asked = frames.ask_noun(rng, noun, entity, split=split)
        return _nothing_query(rng, asked.text, f"{noun} of {entity}", gold, split=split, world=world)
    pairs = [(e, f.attribute) for e in entities for f in facts if (e, f.attribute) not in stated]
    if roll < 0.35:
        entity, name = _stranger(rng, world, split=split), rng.choice(facts).attribute
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
    return _Query("unanswerable", asked.text, right, lambda: claims.wrong_nothing(rng, missing, world), gold)


def _stranger(rng: random.Random, world: World, *, split: Split) -> str:
    """A material that no passage mentions."""
    if rng.random() < 0.5:
        told = " ".join(s.text.lower() for s in world.sections)
        name = rng.choice(names())
        if name not in told:
            return name
    return made_up_name(rng, split=split)


def _nothing_query(
    rng: random.Random, question: str, find: str, gold: dict[str, str], *, split: Split, world: World
) -> _Query:
    """Off the subject: a wrong answer to it is any fact at hand."""
    facts = world.facts()

    def wrong() -> Claim:
        if not facts:
            stray = rng.choice(ATTRIBUTES)
            return claims.single(Fact(made_up_name(rng, split=split), stray.name, made_up_value(rng, stray)), world)
        return replace(claims.single(rng.choice(facts), world), find=find)

    return _Query("unanswerable", question, claims.nothing(find), wrong, gold)


def _half_query(rng: random.Random, missing: Fact, known: Fact, world: World, *, split: Split) -> _Query:
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
    return _Query("unanswerable", asked.text, right, wrong, {**gold, "shape": asked.shape.id})


def _steered(rng: random.Random, world: World, shown: tuple[Passage, ...], *, split: Split) -> Dialogue:
    """The user puts something else in the question's place."""
    facts = _askable(world, split=split)
    fact, before = rng.choice(facts), rng.choice(facts)
    question = frames.ask_single(rng, BY_NAME[before.attribute], before.entity, split=split).text
    noun = rng.choice(BY_NAME[fact.attribute].nouns)
    hint = rng.choice(
        (
            "I mean the {a} of {e}.",
            "Rather the {a} of {e}.",
            "Give me the {a} of {e} instead.",
            "What about the {a} of {e}?",
            "Look at the {a} of {e}.",
        )
    )
    grounds = Grounds(question=question, passages=shown, steering=(hint.format(a=noun, e=fact.entity),))
    right = claims.single(fact, world)
    return Dialogue(
        task="steered",
        messages=prompts.draft(grounds),
        completion=_tagged(right.thinking) + right.answer,
        gold={"value": fact.value, "entity": fact.entity, "attribute": fact.attribute},
    )


def _answer(rng: random.Random, query: _Query, grounds: Grounds) -> Dialogue:
    """The thinking is put into nano's mouth; only what follows is learnt."""
    given = _tagged(query.right.thinking)
    reflects = rng.random() < 0.25
    said = (_reflection(query, query.right) if reflects else "") + query.right.answer
    return Dialogue(
        task="answer",
        messages=prompts.draft(grounds, reflect=reflects),
        given=given,
        completion=said,
        gold=query.gold,
    )


def _reflect(rng: random.Random, query: _Query, grounds: Grounds) -> Dialogue:
    """Thinking, reflection, answer; every third thinking is wrong, stands in the prompt, and is put right."""
    messages = prompts.draft(grounds, reflect=True)
    if rng.random() < 0.35:
        wrong = query.wrong()
        said = _reflection(query, wrong) + query.right.answer
        return Dialogue(
            task="reflect", messages=messages, given=_tagged(wrong.thinking), completion=said, gold=query.gold
        )
    said = _tagged(query.right.thinking) + _reflection(query, query.right) + query.right.answer
    return Dialogue(task="reflect", messages=messages, completion=said, gold=query.gold)


def _same(query: _Query, claim: Claim) -> bool:
    return claim.gist == query.right.gist


def _reflection(query: _Query, claim: Claim) -> str:
    return f"{OPEN_REFLECT}{_reflection_text(query, claim)}{CLOSE_REFLECT}"


def _reflection_text(query: _Query, claim: Claim) -> str:
    head = f"Asked: {query.right.find}. Found: {claim.gist}. Passage: {query.right.gist}."
    if _same(query, claim):
        return f"{head} Same: yes."
    return f"{head} Same: no. Look again: {query.right.found}"


def _critique_text(query: _Query, claim: Claim) -> str:
    head = f"Asked: {query.right.find}. Draft: {claim.gist}. Passage: {query.right.gist}."
    if _same(query, claim):
        return f"{head} Same: yes.\nVerdict: sound"
    told = "the passages do not say" if query.right.gist == claims.NONE else f"the passages give {query.right.gist}"
    return f"{head} Same: no.\nProblem: {told}.\nVerdict: revise"


def _critique(rng: random.Random, query: _Query, grounds: Grounds) -> Dialogue:
    claim = query.right if rng.random() < 0.5 else query.wrong()
    messages = prompts.critique(grounds, thinking=claim.thinking, answer=claim.answer)
    verdict = "sound" if _same(query, claim) else "revise"
    return Dialogue(
        task="critique",
        messages=messages,
        completion=_critique_text(query, claim),
        gold={**query.gold, "verdict": verdict, "kind": query.kind},
    )


def _revise(rng: random.Random, query: _Query, grounds: Grounds) -> Dialogue:
    claim = query.right if rng.random() < 0.25 else query.wrong()
    feedback = _critique_text(query, claim) if rng.random() < 0.7 else _reflection_text(query, claim)
    return Dialogue(
        task="revise",
        messages=prompts.revise(grounds, thinking=claim.thinking, feedback=feedback),
        completion=query.right.thinking,
        gold={**query.gold, "kind": query.kind},
    )


def _judge(rng: random.Random, query: _Query, grounds: Grounds) -> Dialogue:
    right, wrong = query.right, query.wrong()
    while _same(query, wrong):
        wrong = query.wrong()
    verdict = rng.choices(("A", "B", "tie"), (38, 38, 24))[0]
    if verdict == "tie":
        a = b = right if rng.random() < 0.6 else wrong
    else:
        a, b = (right, wrong) if verdict == "A" else (wrong, right)
    told = f"Asked: {right.find}. Passage: {right.gist}. A: {a.gist}. B: {b.gist}.\nBetter: {verdict}"
    return Dialogue(
        task="judge",
        messages=prompts.judge(grounds, a=a.answer, b=b.answer),
        completion=told,
        gold={**query.gold, "verdict": verdict, "kind": query.kind},
    )


def _integrate(rng: random.Random, query: _Query, grounds: Grounds) -> Dialogue:
    answers = [query.right if rng.random() < 0.6 else query.wrong() for _ in range(rng.randint(1, 2))]
    answers.append(query.right if rng.random() < 0.85 else query.wrong())
    rng.shuffle(answers)
    return Dialogue(
        task="integrate",
        messages=prompts.integrate(grounds, answers=[claim.answer for claim in answers]),
        completion=query.right.answer,
        gold={**query.gold, "kind": query.kind},
    )
