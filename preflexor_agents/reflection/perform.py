"""Does one step with real parts: asks the backends, searches the library, and tells what happened as events."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from preflexor_agents import prompts
from preflexor_agents.backends.base import Backend, Completion, Delta, Request
from preflexor_agents.budget import Budget
from preflexor_agents.errors import PreflexorError
from preflexor_agents.events import (
    Channel,
    Cited,
    Event,
    Passage,
    Retrieved,
    Role,
    RoundFinished,
    RoundsAdded,
    RoundStarted,
    Ruled,
    RunFinished,
    StepFailed,
    StepFinished,
    StepStarted,
    TextDelta,
    Usage,
)
from preflexor_agents.reflection.steps import Call, Cite, Generate, OpenRound, Retrieve, Step

Cast = Mapping[Role, Backend]
"""Who plays which role; several roles may share one backend."""


class Library(Protocol):
    """What the librarian needs of a knowledge store. Called from worker threads."""

    def search(self, query: str, *, k: int = 5) -> Sequence[Passage]:
        """The best `k` passages for a query."""

    def cite(self, answer: str, passages: Sequence[Passage]) -> Cited:
        """The quotes that each sentence of the answer stands on, re-checked against the documents."""


@dataclass(slots=True)
class Control:
    """The user's hand on a run: stop it or its round, or say something that counts from the next round on."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    stop_round: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends what is being written, keeps it, and goes on with the next round; cleared when that was done."""
    said: list[str] = field(default_factory=list)
    """Waits for the next round; until then it may be taken back."""
    orders: list[Ruled | RoundsAdded] = field(default_factory=list)
    """Decisions by hand; they are taken in at the next round's edge."""


async def perform(
    step: Step,
    *,
    cast: Cast,
    library: Library | None = None,
    control: Control | None = None,
    left: Budget | None = None,
) -> AsyncGenerator[Event, None]:
    """Do a step. Failures become `StepFailed`; a stop or a spent budget ends a call with what it has.

    Args:
        step: from `next_step`.
        cast: must hold the role of a Generate step.
        library: must be given for Retrieve and Cite steps.
        control: watched for a stop.
        left: what remains of the run's budget.
    """
    match step:
        case OpenRound(round=n, steering=words):
            yield RoundStarted(round=n, steering=words)
        case RoundFinished() | RunFinished():
            yield step
        case Retrieve():
            yield StepStarted(round=step.round, role="librarian", stage="retrieve")
            yield await _retrieve(step, library)
        case Cite():
            yield StepStarted(round=step.round, role="librarian", stage="cite")
            yield await _cite(step, library)
        case Generate():
            generation = _generate(step, cast[step.role], control or Control(), left or Budget(1 << 30, 1e9))
            async with aclosing(generation) as events:
                async for event in events:
                    yield event


async def _retrieve(step: Retrieve, library: Library | None) -> Event:
    began = time.monotonic()
    try:
        if library is None:
            raise PreflexorError("no knowledge store is open")
        passages = await asyncio.to_thread(library.search, step.query, k=step.k)
    except PreflexorError as e:
        seconds = time.monotonic() - began
        return StepFailed(round=step.round, role="librarian", stage="retrieve", error=str(e), seconds=seconds)
    seconds = time.monotonic() - began
    return Retrieved(round=step.round, query=step.query, passages=tuple(passages), seconds=seconds)


async def _cite(step: Cite, library: Library | None) -> Event:
    try:
        if library is None:
            raise PreflexorError("no knowledge store is open")
        return await asyncio.to_thread(library.cite, step.answer, step.passages)
    except PreflexorError as e:
        return StepFailed(round=step.round, role="librarian", stage="cite", error=str(e))


async def _generate(step: Generate, backend: Backend, control: Control, left: Budget) -> AsyncGenerator[Event, None]:
    """Run the calls side by side; their events interleave."""
    queue: asyncio.Queue[Event | None] = asyncio.Queue()
    room_tok = left.share(len(step.calls))
    deadline = asyncio.get_running_loop().time() + max(0.0, left.s)
    tasks = [asyncio.create_task(_call(step, c, backend, queue, control, room_tok, deadline)) for c in step.calls]
    open_calls = len(tasks)
    try:
        while open_calls:
            for event in await _batch(queue):
                if event is None:
                    open_calls -= 1
                else:
                    yield event
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _batch(queue: asyncio.Queue[Event | None]) -> list[Event | None]:
    """What is waiting, with neighbouring pieces of one text joined: a slow reader gets fewer, longer pieces."""
    batch = [await queue.get()]
    while not queue.empty():
        event, last = queue.get_nowait(), batch[-1]
        if isinstance(event, TextDelta) and isinstance(last, TextDelta) and replace(event, text=last.text) == last:
            batch[-1] = replace(last, text=last.text + event.text)
        else:
            batch.append(event)
    return batch


async def _call(
    step: Generate,
    call: Call,
    backend: Backend,
    queue: asyncio.Queue[Event | None],
    control: Control,
    room_tok: int,
    deadline: float,
) -> None:
    began = time.monotonic()
    started = StepStarted(round=step.round, role=step.role, stage=step.stage, candidate=call.candidate)
    queue.put_nowait(started)
    heard = _Heard()
    clipped = call.sampling.max_tok > room_tok
    hint = step.stage in ("draft", "answer") and not backend.native_tags
    request = Request(
        messages=prompts.hinted(call.messages) if hint else call.messages,
        sampling=replace(call.sampling, max_tok=min(call.sampling.max_tok, room_tok)),
        seed=call.seed,
        thinking=call.thinking,
    )
    try:
        reading = asyncio.create_task(_read(backend, request, started, queue, heard))
        stopping = [asyncio.create_task(event.wait()) for event in (control.stop, control.stop_round)]
        try:
            timeout = max(0.0, deadline - asyncio.get_running_loop().time())
            await asyncio.wait({reading, *stopping}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            whole = reading.done()
            by_hand = control.stop.is_set() or control.stop_round.is_set()
        finally:
            for task in (reading, *stopping):
                task.cancel()
            await asyncio.gather(reading, *stopping, return_exceptions=True)
        finished = _finished(step, call, backend.spec, heard, time.monotonic() - began)
        if whole:
            reading.result()
            if clipped and finished.finish_reason == "length":
                finished = replace(finished, finish_reason="budget_tokens")
        else:
            finished = replace(finished, finish_reason="cancelled" if by_hand else "budget_seconds")
        queue.put_nowait(finished)
    except PreflexorError as e:
        seconds = time.monotonic() - began
        failed = StepFailed(
            round=step.round, role=step.role, stage=step.stage, candidate=call.candidate, error=str(e), seconds=seconds
        )
        queue.put_nowait(failed)
    finally:
        queue.put_nowait(None)


@dataclass(slots=True)
class _Heard:
    """What came of a reply so far."""

    text: dict[Channel, str] = field(default_factory=lambda: {"thinking": "", "reflection": "", "answer": ""})
    pieces: int = 0
    completion: Completion | None = None


async def _read(
    backend: Backend, request: Request, at: StepStarted, queue: asyncio.Queue[Event | None], heard: _Heard
) -> None:
    async with aclosing(backend.generate(request)) as stream:
        async for item in stream:
            if isinstance(item, Completion):
                heard.completion = item
                continue
            heard.text[item.channel] += item.text
            heard.pieces += 1
            queue.put_nowait(_delta(at, item))


def _delta(at: StepStarted, item: Delta) -> TextDelta:
    return TextDelta(
        round=at.round, role=at.role, stage=at.stage, candidate=at.candidate, channel=item.channel, text=item.text
    )


def _finished(step: Generate, call: Call, model: str, heard: _Heard, seconds: float) -> StepFinished:
    whole = heard.completion or Completion(
        thinking=heard.text["thinking"],
        reflection=heard.text["reflection"],
        answer=heard.text["answer"],
        usage=Usage(generated=heard.pieces),
        notes=("cut short; generated tokens are counted by pieces",),
    )
    return StepFinished(
        round=step.round,
        role=step.role,
        stage=step.stage,
        candidate=call.candidate,
        thinking=whole.thinking,
        reflection=whole.reflection,
        answer=whole.answer,
        finish_reason=whole.finish_reason,
        usage=whole.usage,
        seconds=seconds,
        seed=call.seed,
        model=model,
        notes=whole.notes,
    )
