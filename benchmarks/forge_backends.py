"""The models in benchmarks/forge.py: one that only makes wait, and nano at work on the real prompts.

Both say what a script says, so that rows pass their gates and are the same in every order of calls. Nano reads each
prompt as it is, and draws as many tokens as the script's reply has; what it draws is thrown away, for it was never
taught to fill categories.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.backends.llamacpp import LlamaCppBackend
from preflexor_agents.backends.local_model import LocalModel
from preflexor_agents.backends.sampling import sampler
from preflexor_agents.backends.scheduler import Job, Prefill
from preflexor_agents.backends.scripted import Reply, ScriptedBackend
from preflexor_agents.events import Usage
from preflexor_agents.markup import parse
from preflexor_agents.prompts import Message

Script = Callable[[Request], Reply]
WORDS = {"enrichment": 120, "answer": 120, "revision": 120, "sample": 90}
"""Words that replies are filled up to, a third of what an 8B teacher writes, as nano's context is smaller too."""
FEWEST_WORDS = 60
"""Of all others: categories, blocks, patterns."""


def filled(script: Script, task_of: Callable[[Request], str], *, share: float = 1.0) -> Script:
    """The script with replies of some length, out of the words of their prompts; JSON stays as it is.

    Args:
        script: what is said.
        task_of: what a prompt of the teacher asks for.
        share: of WORDS and FEWEST_WORDS.
    """

    def reply(request: Request) -> Reply:
        text = script(request)
        if not isinstance(text, str) or text.startswith("{"):
            return text
        is_sample = "Task: " not in request.messages[-1].content or "straight away" in request.messages[-1].content
        task = "sample" if is_sample else task_of(request)
        passages = [line.partition(": ") for line in request.messages[-1].content.splitlines() if line.startswith("[")]
        if task == "question":
            return asked_of([(title.partition("] ")[2], words) for title, _, words in passages])
        if task in ("pattern", "patterns"):
            return text
        lacking = int(share * WORDS.get(task, FEWEST_WORDS)) - len(text.split())
        words = " ".join(words for *_, words in passages).split() or ["Such", "things", "hold", "it."]
        return f"{text} {' '.join((words * (1 + lacking // len(words)))[: max(0, lacking)])}"

    return reply


def asked_of(passages: Sequence[tuple[str, str]]) -> str:
    """A question in the words of the passages, so that no two rows ask the same."""
    parts = []
    for title, text in passages:
        words = list(dict.fromkeys(word for word in re.findall(r"[a-z]{5,}", text) if word not in title.lower()))
        parts.append(f"{title} with {', '.join(words[:4])}")
    return f"Why is {parts[0]} as it is, and how does it differ from {' and from '.join(parts[1:]) or 'others'}?"


class Waiting(ScriptedBackend):
    """A server with so many places, each reply of which takes as long and comes in one piece."""

    def __init__(self, script: Script, *, seconds: float, places: int) -> None:
        super().__init__(script)
        self._script = script
        self._seconds = seconds
        self._places = asyncio.Semaphore(places)

    async def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        async with self._places:
            await asyncio.sleep(self._seconds)
        yield said(self._script, request)


def said(script: Script, request: Request) -> Completion:
    """A reply of the script as a model would hand it over."""
    text = script(request)
    if not isinstance(text, str):
        raise TypeError(f"the script says {text!r}; here it has to be a text")
    sections = parse(text)
    return Completion(thinking=sections.thinking, reflection=sections.reflection, answer=sections.answer)


class Asked(NamedTuple):
    """A call as another engine can be asked for it."""

    prompt: list[int]
    most: int
    seed: int


@dataclass
class Working:
    """Nano with all the work of a reply, and the script's words.

    With `forgets` each prompt is evaluated from its beginning, as by a server without a prompt cache.
    """

    engine: LlamaCppBackend
    script: Script
    forgets: bool = False
    asked: list[Asked] = field(default_factory=list)
    """In order of the calls' ends."""
    spec: str = "nano, measured"

    @property
    def context_tok(self) -> int:
        return self.engine.context_tok

    @property
    def native_tags(self) -> bool:
        return self.engine.native_tags

    async def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        began = time.perf_counter()
        reply = said(self.script, request)
        text = f"{reply.thinking}{reply.reflection}{reply.answer}"

        def job(model: LocalModel, emit: Callable[[Delta], None]) -> Job[Usage]:
            prompt, most = model.prompt(request).tokens, len(model.text.vocabulary.tokenize(text))
            if self.forgets:
                forget(model)
            with sampler(model._file.vocabulary, request.sampling, request.seed, None) as chain:
                cached = yield Prefill(prompt, most, chain)
                for _ in range(most):
                    token = yield None
                    emit(Delta("answer", model.text.vocabulary.piece(token).decode("utf-8", "replace")))
            self.asked.append(Asked(prompt, most, request.seed))
            return Usage(prompt=len(prompt), cached=cached, generated=most)

        async with aclosing(self.engine.run(job)) as items:
            async for item in items:
                if isinstance(item, Usage):
                    yield replace(reply, usage=item, seconds=time.perf_counter() - began)
                else:
                    yield item

    async def count_tok(self, messages: tuple[Message, ...]) -> int:
        return await self.engine.count_tok(messages)

    async def aclose(self) -> None:
        await self.engine.aclose()


def forget(model: LocalModel) -> None:
    """Empty what is kept of earlier prompts; in the model's own thread."""
    prefixes = model.scheduler._prefixes
    prefixes._saved.clear()
    for slot in prefixes._slots.values():
        if slot.tokens and not slot.live:
            prefixes.cut(slot, 0)
