"""Dialogues that nano learns from: questions about a few passages, in every role of the reflection loop.

Everything is drawn from the random source that is handed in, so the same seed gives the same dialogues.
"""

import random
from dataclasses import dataclass, field

from preflexor_agents import prompts
from preflexor_agents.events import Passage
from preflexor_agents.prompts import Grounds, Message
from preflexor_training.nano import claims, frames
from preflexor_training.nano.attributes import BY_NAME
from preflexor_training.nano.claims import Claim
from preflexor_training.nano.frames import Split
from preflexor_training.nano.library import library, names
from preflexor_training.nano.queries import Query, ask, askable
from preflexor_training.nano.questions import Question, library_questions
from preflexor_training.nano.worlds import Fact, World, made_up

__all__ = ["Dialogue", "Episode", "Question", "episode", "library_questions", "passages"]

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


MIX: tuple[dict[str, float], ...] = (
    {"copy": 20, "lookup": 22, "several lookups": 10, "reverse lookup": 5, "draft": 38, "answer": 5},
    {
        "copy": 8,
        "lookup": 8,
        "several lookups": 10,
        "reverse lookup": 8,
        "draft": 42,
        "answer": 6,
        "critique": 11,
        "judge": 4,
        "revise": 3,
    },
    {
        "copy": 1,
        "lookup": 1,
        "several lookups": 6,
        "reverse lookup": 1,
        "draft": 52,
        "steered": 1,
        "answer": 5,
        "reflect": 7,
        "critique": 13,
        "revise": 7,
        "judge": 14,
        "integrate": 4,
    },
)
"""Shares of the tasks per stage."""
DRILLS = ("copy", "lookup", "several lookups", "reverse lookup")
"""Tasks that train a bare skill; nobody asks such questions."""
LIBRARY_SHARE = (0.15, 0.9, 0.9)
"""Share of episodes about the library's notes per stage; the others are about made-up materials."""
EMPTY_SHARE = 0.01
"""Share of episodes without any passage, in the last stage."""


def episode(rng: random.Random, *, split: Split, stage: int) -> Episode:
    """Eight to fourteen dialogues over the same passages.

    Args:
        rng: every choice comes from here.
        split: `train`, or `heldout` with question shapes, names and pairs that training never sees.
        stage: 0 finding, 1 with distractors and comparisons, 2 everything.
    """
    if stage == len(MIX) - 1 and rng.random() < EMPTY_SHARE:
        world = World(())
    elif rng.random() < LIBRARY_SHARE[stage]:
        world = library(rng, split=split)
    else:
        world = made_up(rng, split=split, stage=stage, known=names())
    tasks = rng.choices(list(MIX[stage]), list(MIX[stage].values()), k=rng.randint(8, 14))
    return Episode(tuple(_dialogue(rng, task, world, split=split, stage=stage) for task in tasks))


def passages(world: World) -> tuple[Passage, ...]:
    """The world's sections as the store returns them."""
    return tuple(
        Passage(chunk_id=n, source="", title=s.title, start=0, end=len(s.text), text=s.text)
        for n, s in enumerate(world.sections, 1)
    )


def _dialogue(rng: random.Random, task: str, world: World, *, split: Split, stage: int) -> Dialogue:
    shown = passages(world)
    facts = askable(world, split=split)
    if task == "several lookups" and facts:
        return _several(rng, shown, facts)
    if task in DRILLS and facts:
        return _drill(rng, task, world, shown, rng.choice(facts))
    if task == "steered" and facts:
        return _steered(rng, world, shown, split=split)
    query = ask(rng, world, split=split, stage=stage)
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


def _draft(query: Query, grounds: Grounds) -> Dialogue:
    said = _tagged(query.right.thinking) + query.right.answer
    return Dialogue(task=query.kind, messages=prompts.draft(grounds), completion=said, gold=query.gold)


def _tagged(thinking: str) -> str:
    return f"{OPEN}{thinking}{CLOSE}"


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


def _several(rng: random.Random, shown: tuple[Passage, ...], facts: tuple[Fact, ...]) -> Dialogue:
    """Values of one attribute of several materials, or of several attributes: each key has to be read anew.

    A small model would else copy the value that it wrote last behind the same words.
    """
    by_attribute = [[f for f in facts if f.attribute == name] for name in dict.fromkeys(f.attribute for f in facts)]
    shared = [its for its in by_attribute if len({f.entity for f in its}) > 1]
    entity = rng.choice(facts).entity
    of_one = [f for f in facts if f.entity == entity]
    pool = rng.choice(shared) if shared and rng.random() < 0.8 else of_one
    wanted = rng.sample(pool, min(len(pool), rng.randint(2, 4)))
    question = "; ".join(f"{f.entity}: {f.attribute}" for f in wanted) + "?"
    return Dialogue(
        task="several lookups",
        messages=prompts.draft(Grounds(question=question, passages=shown)),
        completion="\n".join(claims.fact_line(f) for f in wanted),
        gold={"value": wanted[0].value, "entity": wanted[0].entity, "attribute": wanted[0].attribute},
    )


def _steered(rng: random.Random, world: World, shown: tuple[Passage, ...], *, split: Split) -> Dialogue:
    """The user puts something else in the question's place."""
    facts = askable(world, split=split)
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


def _answer(rng: random.Random, query: Query, grounds: Grounds) -> Dialogue:
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


def _reflect(rng: random.Random, query: Query, grounds: Grounds) -> Dialogue:
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


def _same(query: Query, claim: Claim) -> bool:
    return claim.gist == query.right.gist


def _reflection(query: Query, claim: Claim) -> str:
    return f"{OPEN_REFLECT}{_reflection_text(query, claim)}{CLOSE_REFLECT}"


def _reflection_text(query: Query, claim: Claim) -> str:
    head = f"Asked: {query.right.find}. Found: {claim.gist}. Passage: {query.right.gist}."
    if _same(query, claim):
        return f"{head} Same: yes."
    return f"{head} Same: no. Look again: {query.right.found}"


def _critique_text(query: Query, claim: Claim) -> str:
    head = f"Asked: {query.right.find}. Draft: {claim.gist}. Passage: {query.right.gist}."
    if _same(query, claim):
        return f"{head} Same: yes.\nVerdict: sound"
    told = "the passages do not say" if query.right.gist == claims.NONE else f"the passages give {query.right.gist}"
    return f"{head} Same: no.\nProblem: {told}.\nVerdict: revise"


def _critique(rng: random.Random, query: Query, grounds: Grounds) -> Dialogue:
    claim = query.right if rng.random() < 0.5 else query.wrong()
    messages = prompts.critique(grounds, thinking=claim.thinking, answer=claim.answer)
    verdict = "sound" if _same(query, claim) else "revise"
    return Dialogue(
        task="critique",
        messages=messages,
        completion=_critique_text(query, claim),
        gold={**query.gold, "verdict": verdict, "kind": query.kind},
    )


def _revise(rng: random.Random, query: Query, grounds: Grounds) -> Dialogue:
    claim = query.right if rng.random() < 0.25 else query.wrong()
    feedback = _critique_text(query, claim) if rng.random() < 0.7 else _reflection_text(query, claim)
    return Dialogue(
        task="revise",
        messages=prompts.revise(grounds, thinking=claim.thinking, feedback=feedback),
        completion=query.right.thinking,
        gold={**query.gold, "kind": query.kind},
    )


def _judge(rng: random.Random, query: Query, grounds: Grounds) -> Dialogue:
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


def _integrate(rng: random.Random, query: Query, grounds: Grounds) -> Dialogue:
    answers = [query.right if rng.random() < 0.6 else query.wrong() for _ in range(rng.randint(1, 2))]
    answers.append(query.right if rng.random() < 0.85 else query.wrong())
    rng.shuffle(answers)
    return Dialogue(
        task="integrate",
        messages=prompts.integrate(grounds, answers=[claim.answer for claim in answers]),
        completion=query.right.answer,
        gold={**query.gold, "kind": query.kind},
    )
