"""The recursion itself, for benchmarks/engine.py: rounds with a judge, and guessed tokens."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from engine_opponents import HighLevel, Ours, Raw, opened

from preflexor_agents import prompts
from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.backends.llamacpp import LlamaCppBackend, nano_path
from preflexor_agents.backends.local_model import LocalModel
from preflexor_agents.backends.lookup import Lookup
from preflexor_agents.backends.scheduler import Job
from preflexor_agents.config import ReflectConfig
from preflexor_agents.events import Retrieved, RunFinished, StepFinished
from preflexor_agents.prompts import Grounds
from preflexor_agents.session import MODEL_ROLES, ask
from preflexor_agents.store import Store

LIBRARY = nano_path().parents[1] / "library"
QUESTIONS = ("How tough is nacre?", "What makes spider silk strong?", "Why does bone resist fracture?")


class Call(NamedTuple):
    """One call of a run."""

    group: int
    """Calls of one group were asked at once."""
    request: Request
    prompt: list[int]
    said: list[int]
    """Tokens that were written."""


@dataclass(slots=True)
class Recording:
    """nano, and what it was asked."""

    inner: LlamaCppBackend
    calls: list[Call] = field(default_factory=list)
    group: int = 0
    open: int = 0

    @property
    def spec(self) -> str:
        return self.inner.spec

    @property
    def context_tok(self) -> int:
        return self.inner.context_tok

    @property
    def native_tags(self) -> bool:
        return self.inner.native_tags

    async def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        self.group += not self.open
        self.open += 1
        group = self.group
        try:
            said: list[int] = []
            async with aclosing(self.inner.run(lambda model, emit: _noted(model, request, emit, said))) as items:
                async for item in items:
                    if isinstance(item, Completion):
                        prompt = self.inner._model.prompt(request).tokens
                        self.calls.append(Call(group, request, prompt, said))
                    yield item
        finally:
            self.open -= 1

    async def count_tok(self, messages: tuple[prompts.Message, ...]) -> int:
        return await self.inner.count_tok(messages)

    async def aclose(self) -> None:
        await self.inner.aclose()


def _noted(model: LocalModel, request: Request, emit: Callable[[Delta], None], said: list[int]) -> Job[Completion]:
    """The job of a reply, which notes what tokens it is sent."""
    job = model.answer(request, emit=emit)
    try:
        job.send((yield next(job)))
        while True:
            said.append((yield None))
            job.send(said[-1])
    except StopIteration as end:
        reply: Completion = end.value
        return reply
    finally:
        job.close()


class Run(NamedTuple):
    """A question answered."""

    calls: list[Call]
    seconds: float
    merge: Request
    """What the integrator is asked about its answers; the run asks it only if they differ."""


@contextmanager
def library() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "library.db")
        try:
            store.ingest([LIBRARY])
            yield store
        finally:
            store.close()


def traffic(*, threads: int, questions: Sequence[str], config: ReflectConfig) -> list[Run]:
    """What nano is asked, and how long it takes, when it answers questions about its library in a fresh context."""

    async def answered(question: str, store: Store) -> Run:
        backend = Recording(await LlamaCppBackend.open(nano_path(), spec="nano", threads=threads))
        try:
            began = time.perf_counter()
            cast = dict.fromkeys(MODEL_ROLES, backend)
            async with aclosing(ask(question, cast=cast, config=config, library=store)) as events:
                happened = [event async for event in events]
            seconds = time.perf_counter() - began
        finally:
            await backend.aclose()
        if not isinstance(happened[-1], RunFinished) or happened[-1].stop_reason == "failed":
            raise RuntimeError(f"the run failed: {happened[-1]}")
        passages = next((event.passages for event in happened if isinstance(event, Retrieved)), ())
        said = [e.answer for e in happened if isinstance(e, StepFinished) and e.stage in ("draft", "answer")]
        answers = [*dict.fromkeys(said), *said][: config.rounds]
        messages = prompts.integrate(Grounds(question=question, passages=passages), answers=answers)
        return Run(backend.calls, seconds, Request(messages=messages, sampling=config.improver))

    with library() as store:
        return [asyncio.run(answered(question, store)) for question in questions]


class Replay(NamedTuple):
    """Seconds for the same prompts and as many tokens."""

    ours: float
    high_level: float
    raw: float
    prompt: int
    """Tokens of all prompts."""
    cached: int
    """Those of them that ours found in its cache."""


def replayed(path: Path, calls: Sequence[Call], *, threads: int) -> Replay:
    """The calls of a run in fresh contexts: by ours, those of a group at once, by the others one after the other.

    Ours writes what was written then, so that it guesses as it does where a trained model writes. Raw guesses nothing,
    and has in its cache the prompts of a group and of the one before.
    """
    groups = [[call for call in calls if call.group == group] for group in sorted({call.group for call in calls})]
    ours, llm = Ours(path, threads=threads, context_tok=8192), HighLevel(path, threads=threads, context_tok=8192)
    raw = Raw(path, threads=threads, context_tok=8192)
    totals, cached = [0.0, 0.0, 0.0], 0
    with opened([ours, llm, raw]):
        for side in groups:
            prompts, said = [call.prompt for call in side], [call.said for call in side]
            lengths = [len(tokens) for tokens in said]
            began = time.perf_counter()
            replies = ours.replies(prompts, lengths, said=said)
            totals[0] += time.perf_counter() - began
            cached += sum(reply.cached for reply in replies)
            began = time.perf_counter()
            for prompt, length in zip(prompts, lengths, strict=True):
                llm.reply(prompt, length, 0)
            totals[1] += time.perf_counter() - began
            began = time.perf_counter()
            asked = {prompt: raw.prefill(list(prompt)) for prompt in dict.fromkeys(map(tuple, prompts))}
            raw.keep(asked.values())
            raw.steps([asked[tuple(prompt)] for prompt in prompts], lengths)
            totals[2] += time.perf_counter() - began
    return Replay(*totals, prompt=sum(len(call.prompt) for call in calls), cached=cached)


class Guessing(NamedTuple):
    """Replies with and without guessed tokens."""

    role: str
    replies: int
    ratio: float
    """Median of the time without by the time with."""
    same: int
    """Greedy replies that are equal either way."""
    guessed: int
    right: int


def guessing(traffic: Sequence[Run], *, threads: int, runs: int) -> list[Guessing]:
    """Prompt-lookup on what the integrator and the reviser are asked."""
    called = [call.request for run in traffic for call in run.calls]
    revisions = [request for request in called if prompts.REVISE in request.messages[-1].content]
    asked = {"integrate": [run.merge for run in traffic], "revise": revisions}
    return [
        asyncio.run(_guessing(role, requests, threads=threads, runs=runs))
        for role, requests in asked.items()
        if requests
    ]


@contextmanager
def no_guesses() -> Iterator[None]:
    """Every step writes one token of a reply."""
    draft_of = Lookup.draft
    Lookup.draft = lambda *_: []  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Lookup.draft = draft_of  # type: ignore[method-assign]


async def _guessing(role: str, asked: Sequence[Request], *, threads: int, runs: int) -> Guessing:
    learn = Lookup.learn
    counts = [0, 0]

    def counted(self: Lookup, guessed: int, right: int) -> None:
        counts[0] += guessed
        counts[1] += right
        learn(self, guessed, right)

    backend = await LlamaCppBackend.open(nano_path(), threads=threads)
    ratios, same = [], 0
    try:
        Lookup.learn = counted  # type: ignore[method-assign]
        for request in asked:
            greedy = replace(request, sampling=replace(request.sampling, temperature=0.0))
            await timed(backend, greedy)  # both find the prompt in the cache
            for _ in range(runs):
                with no_guesses():
                    plain_s, plain = await timed(backend, greedy)
                guessed_s, guessed = await timed(backend, greedy)
                ratios.append(plain_s / guessed_s)
            same += (plain.thinking, plain.answer) == (guessed.thinking, guessed.answer)
    finally:
        Lookup.learn = learn  # type: ignore[method-assign]
        await backend.aclose()
    return Guessing(role, len(asked), statistics.median(ratios), same, counts[0], counts[1])


async def timed(backend: LlamaCppBackend, request: Request) -> tuple[float, Completion]:
    began = time.perf_counter()
    async with aclosing(backend.generate(request)) as items:
        reply = [item async for item in items][-1]
    assert isinstance(reply, Completion)
    return time.perf_counter() - began, reply
