"""A teacher that knows how to read: it answers the agents' prompt from the facts that the shown passages state.

What it says is exact and has the form that nano learns. It knows what a question is after; whether that is there it
sees from the passages alone.
"""

import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from functools import cache

from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.errors import BackendError
from preflexor_agents.events import Usage
from preflexor_agents.prompts import DRAFT, Message, one_line
from preflexor_training.nano import claims
from preflexor_training.nano.claims import Claim, Comparison
from preflexor_training.nano.facts import Known, Material, materials, states
from preflexor_training.nano.questions import Question
from preflexor_training.nano.worlds import Fact, Section, World

SPEC = "library"
_PROMPT = re.compile(
    rf"(?:Passages:\n(?P<passages>.*?)\n\n)?Question: (?P<question>[^\n]+)\n\n{re.escape(DRAFT)}", re.DOTALL
)
_PASSAGE = re.compile(r"^\[\d+\] (.*)$", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class LibraryTeacher:
    """A backend for the questions that it was given; it answers at once, and the same every time."""

    def __init__(self, questions: Iterable[Question]) -> None:
        """Take the questions that it is to know."""
        self._questions = {question.text: question for question in questions}

    @property
    def spec(self) -> str:
        """The name it goes by."""
        return SPEC

    @property
    def context_tok(self) -> int:
        """Words of prompt and reply that fit: any number."""
        return 1 << 30

    @property
    def native_tags(self) -> bool:
        """It thinks without being told how."""
        return True

    async def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Thinking and answer to a question that it knows.

        Raises:
            BackendError: it is asked for anything else.
        """
        claim = self._claim(request)
        yield Delta("thinking", claim.thinking)
        yield Delta("answer", claim.answer)
        usage = Usage(
            prompt=await self.count_tok(request.messages), generated=len(f"{claim.thinking} {claim.answer}".split())
        )
        yield Completion(thinking=claim.thinking, answer=claim.answer, usage=usage)

    async def count_tok(self, messages: tuple[Message, ...]) -> int:
        """Words of the messages."""
        return sum(len(message.content.split()) for message in messages)

    async def aclose(self) -> None:
        """Nothing is held."""

    def _claim(self, request: Request) -> Claim:
        asked = _PROMPT.fullmatch(request.messages[-1].content) if request.messages else None
        if asked is None or request.thinking is not None or request.json_schema is not None:
            raise BackendError(f"model {SPEC} only thinks and answers by the passages; give other tasks to another one")
        question = self._questions.get(asked["question"])
        if question is None:
            raise BackendError(f"model {SPEC} was not taught the question {asked['question'][:80]!r}")
        return claim_of(question, read(asked["passages"] or ""))


def read(passages: str) -> World:
    """The facts that numbered passages, one a line, state."""
    return World(tuple(Section("", line, _stated(line)) for line in _PASSAGE.findall(passages)))


def claim_of(question: Question, world: World) -> Claim:
    """What the passages of the world tell about the question, be it all, a part, or nothing."""
    told = {(fact.entity, fact.attribute): fact for fact in world.facts()}
    name, wanted = question.attribute, told.get((question.material, question.attribute))
    missing = Fact(question.material, name, claims.NONE)
    if question.other:
        return _compared(question, told, world)
    if question.key is not None:
        if told.get((question.material, question.key.attribute)) is None:
            return claims.no_two_hop(question.key, missing)
        if wanted is None:
            return claims.half_two_hop(question.key, missing)
        return claims.two_hop(question.key, wanted, world)
    return claims.nothing(f"{name} of {question.material}") if wanted is None else claims.single(wanted, world)


def _compared(question: Question, told: Mapping[tuple[str, str], Fact], world: World) -> Claim:
    """Both sides, one, or none; before them the material that a value tells."""
    name, key = question.attribute, question.key
    first, second = (told.get((entity, name)) for entity in (question.material, question.other))
    both = f"{name} of {question.material} and {question.other}"
    if key is not None and (key.entity, key.attribute) not in told:
        return claims.told_by_none(key, claims.nothing(both))
    compared = Comparison(
        first or Fact(question.material, name, claims.NONE),
        second or Fact(question.other, name, claims.NONE),
        question.higher,
    )
    if first is not None and second is not None:
        claim = claims.compare(compared, world)
    elif first is None and second is None:
        claim = claims.nothing(both)
    else:
        claim = claims.half(compared, first_known=first is not None)
    return claim if key is None else claims.told_by(key, claim)


def _stated(line: str) -> tuple[Fact, ...]:
    return tuple(fact for sentence, fact in _sentences() if sentence in line)


@cache
def _sentences() -> tuple[tuple[str, Fact], ...]:
    """Each fact of the library with the sentence that states it."""
    return tuple((_sentence(m, known), known.fact) for m in materials() for known in m.known)


def _sentence(material: Material, known: Known) -> str:
    text = next(part.text for part in material.parts if part.heading == known.section)
    body = text.split("\n\n", 1)[-1] if text.startswith("#") else text
    return one_line(next(s for s in _SENTENCE_END.split(body) if states(s, known.fact.value)))
