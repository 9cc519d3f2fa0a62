"""A teacher that says what it was told to by task, out of the passages it is shown; and a driver of a row's steps."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from preflexor_agents import packs
from preflexor_agents.backends.base import Completion, Request, complete
from preflexor_agents.backends.scripted import Reply, ScriptedBackend
from preflexor_agents.store import Store
from preflexor_training.forge import contexts, variants
from preflexor_training.forge.asking import row_seed
from preflexor_training.forge.rows import Ran, run_steps
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Ask, Call, Job

LIBRARY = Path(__file__).parents[2] / "preflexor_agents" / "data" / "library"
GRAPH = {
    "nodes": [{"id": "tablets"}, {"id": "cracks"}, {"id": "toughness"}],
    "edges": [
        {"source": "tablets", "relation": "prevents", "target": "cracks"},
        {"source": "cracks", "relation": "decreases", "target": "toughness"},
    ],
}
TASKS = {
    "be an examiner": "question",
    "write down what the passages say": "enrichment",
    "from all passages, write down": "background",
    "write the knowledge graph": "graph",
    "write how these nodes": "edges",
    "write the abstract pattern": "pattern",
    "say in one paragraph where else": "pattern_context",
    "write down": "category",
    "brainstorm": "brainstorm",
    "write one to three patterns": "patterns",
    "bring brainstorm": "synthesis",
    "answer the question by the thinking": "answer",
    "answer the question from the passages": "answer",
    "answer the question in one or two": "answer",
    "reflect on the thinking": "critique",
    "write the answer that heeds": "revision",
    "judge the question": "check",
    "think, then answer": "reply",
}


def task_of(request: Request) -> str:
    """What the last line of a prompt asks for; a question alone is to be replied to."""
    _, asks, task = request.messages[-1].content.rpartition("Task: ")
    return next(name for beginning, name in TASKS.items() if task.startswith(beginning)) if asks else "reply"


def facts(request: Request) -> list[str]:
    """What each passage that is shown says last, and so says in a sentence."""
    shown = re.findall(r"^\[\d+\] [^:\n]*: (.*)$", request.messages[-1].content, re.MULTILINE)
    return [re.split(r"(?<=[a-z\d]\.)\s", text)[-1] for text in shown]


def teach(request: Request) -> Reply:
    """A good teacher's reply."""
    task, said = task_of(request), facts(request)
    title = re.search(r"^\[1\] ([^:\n]*):", request.messages[-1].content, re.MULTILINE)
    name = title[1] if title else "it"
    match task:
        case "question":
            words = " ".join(re.findall(r"\b[a-z]{5,}", said[0])[:2])
            return f"Why is {name} known for its {words}, and what follows from it?"
        case "graph":
            return json.dumps(GRAPH)
        case "edges":
            return json.dumps({"edges": GRAPH["edges"]})
        case "pattern":
            return "α → β → γ\nα: tablets\nβ: cracks\nγ: toughness\nα ∝ γ\nWhat stops cracks makes tough."
        case "patterns":
            return "tablets → cracks → toughness (armour)"
        case "critique":
            return f"The thinking leaves out that {said[-1]} The answer must say so.\nVerdict: revise"
        case "check":
            return json.dumps({"stands_alone": True, "answerable": True, "gives_away": False})
        case "reply":
            about = said[-1] if said else "Tablets slide over each other."
            return f"<|thinking|>What bears on it: {about}<|/thinking|>Because of this, number {request.seed}: {about}"
        case "revision":
            return f"In the end, {said[0]} Moreover, {said[-1]}"
        case _:
            return f"{task.capitalize()}: {said[0]}"


@dataclass
class Teacher:
    """A scripted teacher; `but` has other replies by task."""

    but: Mapping[str, Callable[[Request], Reply] | Reply] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.backend = ScriptedBackend(self._reply, spec="scripted:teacher")

    def _reply(self, request: Request) -> Reply:
        said = self.but.get(task_of(request), teach)
        return said(request) if callable(said) else said

    async def ask(self, call: Call) -> Completion:
        self.calls.append(call)
        return await complete(self.backend, call.request)


def library(path: Path) -> Store:
    """A store with the notes that come with the package."""
    store = Store.open(path, embedder="hash")
    store.ingest([LIBRARY])
    return store


@dataclass(frozen=True)
class Made:
    job: Job
    ran: Ran

    @property
    def row(self) -> variants.Made:
        return variants.assemble(self.job, self.ran.values)

    @property
    def fell(self) -> str:
        return str(self.ran.fall or "")


def make(store: Store, settings: ForgeSettings, teacher: Teacher, *, number: int = 0) -> Made:
    """One row, without its rejected side."""
    return asyncio.run(made_with(store, settings, teacher.ask, number=number))


async def made_with(store: Store, settings: ForgeSettings, ask: Ask, *, number: int = 0) -> Made:
    """One row, without its rejected side, of whatever answers."""
    corpus = contexts.survey(store, settings)
    job = Job(
        number=number,
        seed=row_seed(settings, number),
        passages=contexts.draw(corpus, number=number),
        pack=packs.load(settings.pack),
        ask=ask,
        retrieve=contexts.retriever(store),
    )
    return Made(job, await run_steps(variants.steps(settings), lambda _: job))
