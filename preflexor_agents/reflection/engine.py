"""Runs the protocol: ask it for the next step, perform the step, fold its events, until it says that it is over."""

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import asdict

from preflexor_agents import __version__
from preflexor_agents.config import ReflectConfig
from preflexor_agents.events import Event, RoundStopped, RunStarted, Steered
from preflexor_agents.reflection.perform import Cast, Control, Library, perform
from preflexor_agents.reflection.protocol import budget_left, next_step
from preflexor_agents.reflection.state import State, advance, start


async def run(
    question: str,
    *,
    cast: Cast,
    config: ReflectConfig,
    library: Library | None = None,
    store: str | None = None,
    control: Control | None = None,
) -> AsyncGenerator[Event, None]:
    """Answer a question in rounds; yields every event, `RunFinished` last.

    Args:
        question: what to answer.
        cast: a backend for every role that the config needs.
        config: the protocol and its budgets.
        library: searched and cited from, if given.
        store: the library's path, for the record.
        control: stop or steer the run from outside.
    """
    control = control or Control()
    started = begin(question, cast=cast, config=config, store=store if library is not None else None)
    yield started
    state = start(started)
    while not state.finished:
        async with aclosing(turn(state, started, cast=cast, library=library, control=control)) as events:
            async for event in events:
                state = advance(state, event)
                yield event


async def turn(
    state: State, started: RunStarted, *, cast: Cast, library: Library | None, control: Control
) -> AsyncGenerator[Event, None]:
    """The events of one step; what the user did is taken in first, most of it at a round's edge."""
    for event in _by_hand(state, control):
        state = advance(state, event)
        yield event
    elapsed_s = time.time() - started.started_at
    step = next_step(state, elapsed_s=elapsed_s, cancelled=control.stop.is_set())
    if step is None:
        return
    left = budget_left(state, elapsed_s)
    async with aclosing(perform(step, cast=cast, library=library, control=control, left=left)) as events:
        async for event in events:
            yield event


def _by_hand(state: State, control: Control) -> Iterator[Event]:
    """What the user did since the last step and counts from here on."""
    if control.stop_round.is_set():
        control.stop_round.clear()
        if state.round_open or state.steps:  # else nothing was being written
            yield RoundStopped(round=state.round)
    if not state.round_open:
        while control.orders:
            yield control.orders.pop(0)
        while control.said and not control.stop.is_set():  # what no round will take in stays with the user
            yield Steered(text=control.said.pop(0))


def begin(question: str, *, cast: Cast, config: ReflectConfig, store: str | None) -> RunStarted:
    """The first event of a run."""
    return RunStarted(
        question=question,
        models={role: backend.spec for role, backend in cast.items()},
        config=asdict(config),
        store=store,
        context_tok=min((b.context_tok for b in cast.values()), default=0),
        started_at=time.time(),
        version=__version__,
    )
