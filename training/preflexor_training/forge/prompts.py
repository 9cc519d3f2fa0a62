"""Every word that the teacher is told. What becomes known first comes first, so that the calls of a row share a prefix.

The system turn is the same for all calls of a run; then come the passages that were drawn, the question, what was
found for it, what was written of it, and, last and different for each call, the task.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from preflexor_agents.events import Passage
from preflexor_agents.packs import Category, Pack
from preflexor_agents.prompts import NOT_IN_PASSAGES, Message, numbered

NOTHING = "None"
"""What a teacher is to write where there is nothing to write."""

ENRICH = (
    "Task: write down what the passages say that helps to answer the question, in detail: facts, numbers with their "
    "units, causes and conditions, and how they hang together. Add nothing that the passages do not bear out."
)
DRAFT = (
    "Task: answer the question by the thinking and the passages, accurately and completely, with the reasons. "
    "Speak to a reader who has neither: do not mention passages, texts or the thinking. Write only the answer."
)
DRAFT_UNTHOUGHT = (
    "Task: answer the question from the passages, accurately and completely, with the reasons. "
    "Speak to a reader who does not have them: do not mention passages or texts. Write only the answer."
)
SHORT = (
    "Task: answer the question in one or two sentences by what is above, with the number of the passage that says so "
    f"in brackets, as [1]. If the passages do not hold the answer, write: {NOT_IN_PASSAGES} Write only the answer."
)
REFLECT = (
    "Task: reflect on the thinking, and on the draft that it led to, before the answer is given. By the passages: what "
    "is wrong, unsupported, vague or left out, and what the answer must say instead, point by point. Speak of the "
    "thinking and the answer, never of a draft, and do not mention passages or texts. "
    "End with 'Verdict: sound' if nothing is to be changed, else with 'Verdict: revise'."
)
REVISE = (
    "Task: write the answer that heeds every point of the reflection and keeps what was right in the draft. Speak to a "
    "reader who has none of what is above: do not mention passages, thinking, reflection or draft. "
    "Write only the answer."
)
REVISE_SHORT = (
    "Task: write the answer that heeds every point of the reflection, in one or two sentences, with the number of the "
    "passage that says so in brackets, as [1]. Write only the answer."
)
_A, _B, _C = "αβγ"
PATTERN = (
    "Task: write the abstract pattern of the knowledge graph, in this form:\n"
    f"a chain of Greek letters with arrows, as {_A} → {_B} → {_C};\n"
    f"for each letter a line that names the concept it stands for, as {_A}: concept;\n"
    f"one proportionality, as {_A} ∝ {_B};\n"
    "one rule of transformation, in a sentence;\n"
    "one condition without which the pattern does not hold, in a sentence.\n"
    "Write only that."
)
PATTERN_CONTEXT = (
    "Task: say in one paragraph where else a pattern like that of the knowledge graph is at work, by all passages, and "
    f"what this tells about the question. Do not mention passages or texts. If nothing is like it, write: {NOTHING}"
)
BRAINSTORM = (
    "Task: brainstorm on the question by the passages: in short notes, {asks}. "
    "Do not answer yet, and do not mention passages or texts."
)
PATTERNS = (
    "Task: write one to three patterns of the graph, one a line: a chain of its nodes with arrows, the names as they "
    "are, and in brackets why it matters, as A → B → C (why). Write only these lines."
)
SYNTHESIS = (
    "Task: bring brainstorm, graph and patterns together into the line of reasoning that leads to the answer, in one "
    "or two paragraphs. Do not mention passages or texts. Write only that."
)
CHECK = (
    "Task: judge the question as JSON. stands_alone: whether a reader who has never seen the passages knows what is "
    "asked, and of what. answerable: whether the passages hold what is needed to answer it. gives_away: whether the "
    "question already says its own answer."
)


EDGES = (
    "Task: write how these nodes are related as JSON: edges with source, relation and target, each end one of the "
    "nodes and no node related to itself. Only what the passages bear out."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the calls of a row stand on."""

    pack: Pack
    passages: tuple[Passage, ...]
    """Drawn for the row."""
    question: str = ""
    found: tuple[Passage, ...] = ()
    """By the question, without those drawn."""
    additional: str = ""
    """Written of all these passages."""

    @property
    def context(self) -> tuple[Passage, ...]:
        """The passages, in the order of their numbers."""
        return (*self.passages, *self.found)


def turns(given: Given, *parts: str) -> tuple[Message, ...]:
    """System turn and user turn: what is given in the order in which it became known, then the parts."""
    said = ["Passages:\n" + numbered(given.passages)] if given.passages else []
    if given.question:
        said.append(f"Question: {given.question}")
    if given.found:
        said.append("Further passages:\n" + numbered(given.found, first=len(given.passages) + 1))
    if given.additional:
        said.append(section("Additional information", given.additional))
    return (Message("system", given.pack.roles.teacher), Message("user", "\n\n".join((*said, *parts))))


def section(name: str, text: str) -> str:
    """A named part of a prompt."""
    return f"{name}:\n{text.strip()}"


def more(given: Given, passages: tuple[Passage, ...]) -> Iterable[str]:
    """The part of a prompt with passages for one task alone, numbered on; nothing where there are none."""
    return (
        (section("Passages for this task alone", numbered(passages, first=len(given.context) + 1)),) if passages else ()
    )


def question(pack: Pack) -> str:
    """The task of the question."""
    return (
        f"Task: be an examiner in {pack.about} and write one question that is hard for experts and asks for reasoning: "
        "how, why, under which conditions, with what consequence. The passages must hold its answer, and it must not. "
        "Whoever answers sees nothing but the question: name in full what it is about, and mention no passage, text, "
        "figure, table, study, paper, author or name of a person. Write only the question."
    )


def category(wanted: Category) -> str:
    """The task of one part of the thinking."""
    return (
        f"Task: write down {wanted.asks}, as far as it bears on the question, and nothing else. Be brief and exact. "
        "Do not answer the question, write no heading, and do not mention passages or texts. "
        f"If there is nothing of the kind, write: {NOTHING}"
    )


def background(wanted: Category) -> str:
    """The task of the part that is written from passages of its own."""
    return (
        f"Task: from all passages, write down {wanted.asks}, without answering the question. Be brief and exact, write "
        f"no heading, and do not mention passages or texts. If there is nothing of the kind, write: {NOTHING}"
    )


def graph(pack: Pack, *, typed: bool) -> str:
    """The task of the knowledge graph; its form is held by a JSON schema too."""
    types = f" type: one of {', '.join(pack.entity_types)}. level: micro, meso or macro, where it has one."
    return (
        "Task: write the knowledge graph of what bears on the question as JSON.\n"
        "nodes: the core concepts, each with an id: its name, as short as possible, no two the same."
        f"{types if typed else ''}\n"
        "edges: how they are related; source and target are ids of nodes, exactly as written there; "
        f"relation is one of {', '.join(pack.relations)}.\n"
        "Only what the passages bear out."
    )
