"""A backend that speaks scripted words, told apart by stage; and what the tests of this folder share."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace

import pytest
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import BaseGroupChat

from preflexor_agents import prompts
from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.backends.scripted import ScriptedBackend
from preflexor_agents.config import ReflectConfig
from preflexor_agents.errors import PreflexorError
from preflexor_agents.events import (
    Citation,
    Cited,
    Event,
    Passage,
    RunFinished,
    RunStarted,
    TextDelta,
)
from preflexor_agents.reflection.perform import Cast

TASKS = {
    prompts.CRITIQUE: "critique",
    prompts.REVISE: "revise",
    prompts.JUDGE: "judge",
    prompts.INTEGRATE: "integrate",
}
IMPROVES: dict[str, str] = {
    "draft": "<|thinking|>t1 one two<|/thinking|>It is 87.",
    "critique": "Wrong number. Verdict: revise",
    "revise": "t2 three",
    "answer": "It is 4.5.",
    "judge": "4.5",
    "integrate": "It is 4.5, in short.",
}
"""`judge` names what the better answer holds."""
CONFIG = ReflectConfig(rounds=2)
QUESTION = "How tough is nacre?"
ANSWER = "It is 4.5."
CITED_ANSWER = "It is 4.5 [1]."
"""The same with a library: the mark of the passage that was found to support it."""
"""What a run with these words comes to: the merged answer is as good, and only a better one is taken."""

with_ids = pytest.mark.skipif("id" not in TextMessage.model_fields, reason="messages have ids since AutoGen 0.6")

with_teams = pytest.mark.skipif(
    not hasattr(BaseGroupChat, "name"), reason="teams are made differently before AutoGen 0.7"
)


def stage_of(request: Request) -> str:
    """What a request asks for; the stages of the judge are one."""
    task = request.messages[-1].content.rsplit("\n\n", 1)[-1]
    return TASKS.get(task) or ("draft" if request.thinking is None else "answer")


def verdict(request: Request, better: str) -> str:
    """What an honest judge says who knows the better answer, wherever it stands."""
    a, b = request.messages[-1].content.split("\nA:\n")[1].split("\n\nB:\n")
    b = b.split("\n\n")[0]
    if (better in a) == (better in b):
        return "Better: tie"
    return "Better: A" if better in a else "Better: B"


class Voices(ScriptedBackend):
    """A scripted model whose reply to each stage is given; `hold` is asked before each piece of a reply."""

    def __init__(
        self,
        texts: dict[str, str | PreflexorError] | None = None,
        *,
        spec: str = "voices",
        context_tok: int = 4096,
        hold: Callable[[str], Awaitable[object] | None] = lambda stage: None,
    ) -> None:
        super().__init__(self._say, spec=spec, context_tok=context_tok)
        self.texts: dict[str, str | PreflexorError] = {**IMPROVES, **(texts or {})}
        self.hold = hold
        self.open_streams = 0
        self.closed = 0

    @property
    def stages(self) -> list[str]:
        return [stage_of(r) for r in self.requests]

    async def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        self.open_streams += 1
        try:
            async with aclosing(super().generate(request)) as items:
                async for item in items:
                    await (self.hold(stage_of(request)) or asyncio.sleep(0))
                    yield item
        finally:
            self.open_streams -= 1

    async def aclose(self) -> None:
        self.closed += 1

    def _say(self, request: Request) -> str | PreflexorError:
        text = self.texts[stage_of(request)]
        return verdict(request, str(text)) if stage_of(request) == "judge" else text


def cast_of(backend: Voices) -> Cast:
    return {role: backend for role in ("thinker", "critic", "reviser", "judge", "integrator")}  # type: ignore[misc]


class Gate:
    """Holds the first piece of a stage's first reply until it is opened."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    def __call__(self, stage: str) -> Awaitable[object] | None:
        if stage != self.stage or self.open.is_set():
            return None
        self.reached.set()
        return self.open.wait()


class Shelf:
    """A library of two passages that quotes the first one for every answer."""

    def __init__(self) -> None:
        text = "Nacre has a fracture toughness of 4.5 MPa m^0.5."
        self.passages = [
            Passage(chunk_id=n, source=f"note{n}.md", title=f"Note {n}", start=0, end=len(text), text=text, score=0.5)
            for n in (1, 2)
        ]
        self.queries: list[str] = []

    def search(self, query: str, *, k: int = 5) -> list[Passage]:
        self.queries.append(query)
        return self.passages[:k]

    def cite(self, answer: str, passages: Iterable[Passage]) -> Cited:
        p = next(iter(passages))
        quote = Citation(
            number=1, chunk_id=p.chunk_id, source=p.source, title=p.title, start=0, end=5, quote="Nacre", claim=answer
        )
        return Cited(citations=(quote,))


def told(events: Iterable[Event]) -> list[Event]:
    """Events without what differs from run to run: clock times, and how the text was cut into pieces."""
    found: list[Event] = []
    for event in events:
        if isinstance(event, TextDelta):
            continue
        if isinstance(event, RunStarted):
            event = replace(event, started_at=0.0)
        elif hasattr(event, "seconds"):
            event = replace(event, seconds=0.0)  # type: ignore[call-arg]
        found.append(event)
    return found


def written(events: Iterable[Event]) -> dict[tuple[object, ...], str]:
    """The streamed text of each call and channel."""
    texts: dict[tuple[object, ...], str] = {}
    for e in events:
        if isinstance(e, TextDelta):
            key = (e.round, e.stage, e.candidate, e.channel)
            texts[key] = texts.get(key, "") + e.text
    return texts


def end_of(events: list[Event]) -> RunFinished:
    end = events[-1]
    assert isinstance(end, RunFinished)
    return end
