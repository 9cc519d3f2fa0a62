"""The recursion itself, for benchmarks/engine.py: rounds with a judge, guessed tokens, a crowd in a small cache."""

import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from engine_opponents import HighLevel, Ours, opened

from preflexor_agents import prompts
from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.backends.llamacpp import LlamaCppBackend, nano_path
from preflexor_agents.backends.lookup import Lookup
from preflexor_agents.config import GREEDY, ReflectConfig, Sampling
from preflexor_agents.events import Retrieved, RunFinished, StepFinished, Usage
from preflexor_agents.prompts import Grounds, draft
from preflexor_agents.session import MODEL_ROLES, ask
from preflexor_agents.store import Store

LIBRARY = nano_path().parents[1] / "library"
QUESTIONS = ("How tough is nacre?", "What makes spider silk strong?", "Why does bone resist fracture?")
SCHEMA = {"type": "object", "properties": {"better": {"enum": ["A", "B"]}}, "required": ["better"]}


class Call(NamedTuple):
    """One call of a run."""

    group: int
    """Calls of one group were asked at once."""
    request: Request
    prompt: list[int]
    usage: Usage


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
            async with aclosing(self.inner.generate(request)) as items:
                async for item in items:
                    if isinstance(item, Completion):
                        prompt = self.inner._model.prompt(request).tokens
                        self.calls.append(Call(group, request, prompt, item.usage))
                    yield item
        finally:
            self.open -= 1

    async def count_tok(self, messages: tuple[prompts.Message, ...]) -> int:
        return await self.inner.count_tok(messages)

    async def aclose(self) -> None:
        await self.inner.aclose()


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


def replayed_by_ours(path: Path, calls: Sequence[Call], *, threads: int) -> float:
    """Seconds for the same prompts and lengths of replies, those of a group at once."""
    ours = Ours(path, threads=threads, context_tok=8192)
    with opened([ours]):
        began = time.perf_counter()
        for group in sorted({call.group for call in calls}):
            side = [call for call in calls if call.group == group]
            ours.replies([call.prompt for call in side], [call.usage.generated for call in side])
        return time.perf_counter() - began


def replayed_by_high_level(path: Path, calls: Sequence[Call], *, threads: int) -> float:
    """The same one after the other."""
    llm = HighLevel(path, threads=threads, context_tok=8192)
    with opened([llm]):
        began = time.perf_counter()
        for call in sorted(calls, key=lambda call: call.group):
            llm.reply(call.prompt, call.usage.generated, 0)
        return time.perf_counter() - began


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


async def _guessing(role: str, asked: Sequence[Request], *, threads: int, runs: int) -> Guessing:
    draft_of, learn = Lookup.draft, Lookup.learn
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
            await _timed(backend, greedy)  # both find the prompt in the cache
            for _ in range(runs):
                Lookup.draft = lambda *_: []  # type: ignore[assignment, method-assign]
                plain_s, plain = await _timed(backend, greedy)
                Lookup.draft = draft_of  # type: ignore[method-assign]
                guessed_s, guessed = await _timed(backend, greedy)
                ratios.append(plain_s / guessed_s)
            same += (plain.thinking, plain.answer) == (guessed.thinking, guessed.answer)
    finally:
        Lookup.draft, Lookup.learn = draft_of, learn  # type: ignore[method-assign]
        await backend.aclose()
    return Guessing(role, len(asked), statistics.median(ratios), same, counts[0], counts[1])


async def _timed(backend: LlamaCppBackend, request: Request) -> tuple[float, Completion]:
    began = time.perf_counter()
    async with aclosing(backend.generate(request)) as items:
        reply = [item async for item in items][-1]
    assert isinstance(reply, Completion)
    return time.perf_counter() - began, reply


class Crowd(NamedTuple):
    """How mixed requests fared."""

    requests: int
    cancelled: int
    longest_prompt: int
    cells: int
    most_cells: int
    seconds: float
    longest_wait_s: float
    """From asking to the first text."""
    bad_json: int
    greedy: int
    greedy_as_alone: int
    sampled: int
    sampled_twice_alike: int
    """Alone, asked twice."""
    left_live: int


async def crowd(path: Path, *, threads: int, requests: int, cells: int) -> Crowd:
    """Requests of up to 3,000 tokens with grammars, seeds and readers who leave, eight at a time in a small cache.

    For a model whose tokens are letters and whose context is longer than nano's 2,048.
    """
    rng = random.Random(7)
    asked = [_mixed(rng, n) for n in range(requests)]
    backend = await LlamaCppBackend.open(path, threads=threads, context_tok=4096)
    backend._model._context.cells = cells
    prefixes = backend._model.scheduler._prefixes
    gate, waits, most_cells, longest = asyncio.Semaphore(8), [0.0], 0, 0

    async def one(request: Request, leaves: bool) -> Completion | None:
        nonlocal most_cells, longest
        async with gate:
            began = time.perf_counter()
            first = True
            async with aclosing(backend.generate(request)) as items:
                async for item in items:
                    if first:
                        waits.append(time.perf_counter() - began)
                    first = False
                    most_cells = max(most_cells, prefixes.used)
                    if isinstance(item, Completion):
                        longest = max(longest, item.usage.prompt)
                        return item
                    if leaves:
                        return None
        raise AssertionError

    try:
        began = time.perf_counter()
        replies = await asyncio.gather(*(one(*request) for request in asked))
        seconds = time.perf_counter() - began
        left = prefixes.live_cells()
        counts = dict.fromkeys(("bad_json", "greedy", "greedy_as_alone", "sampled", "sampled_twice_alike"), 0)
        for (request, _), reply in zip(asked, replies, strict=True):
            if reply is None:
                continue
            if request.json_schema is not None:
                counts["bad_json"] += json.loads(reply.answer or "null") not in ({"better": "A"}, {"better": "B"})
                continue
            alone = (await _timed(backend, request))[1]
            if request.sampling.temperature == 0:
                counts["greedy"] += 1
                counts["greedy_as_alone"] += _text(alone) == _text(reply)
            else:
                counts["sampled"] += 1
                counts["sampled_twice_alike"] += _text(alone) == _text((await _timed(backend, request))[1])
    finally:
        await backend.aclose()
    return Crowd(
        requests=requests,
        cancelled=sum(reply is None for reply in replies),
        longest_prompt=longest,
        cells=cells,
        most_cells=most_cells,
        seconds=seconds,
        longest_wait_s=max(waits),
        left_live=left,
        **counts,
    )


def _mixed(rng: random.Random, n: int) -> tuple[Request, bool]:
    notes = " ".join(path.read_text(encoding="utf-8") for path in sorted(LIBRARY.glob("*.md"))[:6])
    sampling = Sampling(temperature=0.8) if rng.random() < 0.5 else GREEDY
    text = notes[rng.randrange(2000) :][: rng.choice((10, 100, 400, 1000, 2700))]
    request = Request(
        messages=draft(Grounds(question=f"{n} {text}")),
        sampling=replace(sampling, max_tok=rng.choice((5, 30, 80))),
        seed=rng.randrange(1 << 20),
    )
    if rng.random() < 0.2:
        return replace(request, json_schema=SCHEMA, sampling=replace(GREEDY, max_tok=250)), False
    return request, rng.random() < 0.2


def _text(reply: Completion) -> tuple[str, str, str]:
    return reply.thinking, reply.reflection, reply.answer
