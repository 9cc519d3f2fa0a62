"""What each role is told. Stable text comes first, so that the roles share one prefilled prompt.

Every prompt is: system, then one user turn of passages, question, what the role works on, and its task in
the last line. The bundled model is trained on exactly these words, with reasoning tags of its own; a model
without such tags is told in the system turn to write them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from preflexor_agents.events import Passage

SYSTEM = "You reason in the open and answer from the passages."
TAG_HINT = (
    " Write your reasoning between <think> and </think> first, then the answer. "
    "If you are asked to reflect, write that between <|reflect|> and <|/reflect|> before the answer."
)
NOT_IN_PASSAGES = "The passages do not say."

DRAFT = "Task: think, then answer in one or two sentences."
REFLECT = "Task: think, reflect on your thinking, then answer in one or two sentences."
CRITIQUE = (
    "Task: check the draft against the passages and the question. Say what is wrong or missing. "
    "End with 'Verdict: sound' or 'Verdict: revise'."
)
REVISE = "Task: rewrite the thinking so that it heeds the feedback. Keep its form. Write only the thinking."
JUDGE = (
    "Task: say which answer is right by the passages and answers the question better. "
    "End with 'Better: A', 'Better: B' or 'Better: tie'."
)
INTEGRATE = "Task: merge the answers into one, keeping only what the passages support. Write only the answer."


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """What all roles of a run stand on; the shared beginning of their prompts."""

    question: str
    passages: tuple[Passage, ...] = ()
    steering: tuple[str, ...] = ()
    """What the user said between rounds."""
    earlier: tuple[str, ...] = ()
    """What was said before in the conversation, a line each."""

    def text(self) -> str:
        """The shared beginning of the user turn."""
        parts = []
        if self.passages:
            parts.append("Passages:\n" + numbered(self.passages))
        if self.earlier:
            parts.append("Earlier in this conversation:\n" + "\n".join(one_line(line) for line in self.earlier))
        parts.append(f"Question: {self.question.strip()}")
        parts += [f"The user adds: {one_line(words)}" for words in self.steering]
        return "\n\n".join(parts)


def draft(grounds: Grounds, *, reflect: bool = False) -> tuple[Message, ...]:
    """The thinker's prompt; also used, with finished thinking put in, for the answer of a later round."""
    return _turns(grounds, REFLECT if reflect else DRAFT)


def critique(grounds: Grounds, *, thinking: str, answer: str) -> tuple[Message, ...]:
    """The critic's prompt."""
    return _turns(grounds, _section("Thinking", thinking), _section("Draft", answer), CRITIQUE)


def revise(grounds: Grounds, *, thinking: str, feedback: str) -> tuple[Message, ...]:
    """The reviser's prompt; `feedback` is a critique or the model's own reflection."""
    return _turns(grounds, _section("Thinking", thinking), _section("Feedback", feedback), REVISE)


def judge(grounds: Grounds, *, a: str, b: str) -> tuple[Message, ...]:
    """The judge's prompt; it is not told which answer is the one so far."""
    return _turns(grounds, _section("A", a), _section("B", b), JUDGE)


def integrate(grounds: Grounds, *, answers: Sequence[str]) -> tuple[Message, ...]:
    """The integrator's prompt."""
    return _turns(grounds, *(_section(f"Answer {n}", text) for n, text in enumerate(answers, 1)), INTEGRATE)


def numbered(passages: Sequence[Passage], *, first: int = 1) -> str:
    """The passages, one a line, with the numbers that answers name them by."""
    return "\n".join(f"[{n}] {p.title}: {one_line(p.text)}" for n, p in enumerate(passages, first))


def hinted(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The prompt for a model that has no tags of its own: its system turn says, once, how to mark the thinking."""
    if not messages or messages[0].role != "system" or TAG_HINT in messages[0].content:
        return messages
    return (Message("system", messages[0].content + TAG_HINT), *messages[1:])


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


def _section(name: str, text: str) -> str:
    return f"{name}:\n{text.strip()}"


def _turns(grounds: Grounds, *parts: str) -> tuple[Message, ...]:
    return (Message("system", SYSTEM), Message("user", "\n\n".join((grounds.text(), *parts))))
