"""Playing a run: what the players of one run share, and the loop that asks the protocol and does its steps."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace

from autogen_core import CancellationToken

from preflexor_agents.autogen.casting import Casting
from preflexor_agents.autogen.pauses import Pauses
from preflexor_agents.autogen.transcript import Emit, Transcript
from preflexor_agents.config import ReflectConfig
from preflexor_agents.events import Event, Role, TextDelta
from preflexor_agents.reflection.engine import begin, turn
from preflexor_agents.reflection.perform import Control
from preflexor_agents.reflection.protocol import next_step
from preflexor_agents.reflection.steps import role_of
from preflexor_agents.spans import Spans

COALESCE_S = 0.025
"""Text is given out at most this often: each message of a team costs more than a token does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What the players of one run share."""

    casting: Casting
    config: ReflectConfig
    emit: Emit = "events"
    control: Control = field(default_factory=Control)
    pauses: Pauses = field(default_factory=Pauses)
    spans: Spans = field(default_factory=Spans)


async def play(transcript: Transcript, table: Table, *, role: Role | None = None) -> AsyncGenerator[Event, None]:
    """Go on with the run that a transcript tells of, or begin the one that it asks for; yields what happens.

    Args:
        transcript: takes every event before it is yielded.
        table: the players.
        role: do only this role's next step and the decisions around it. Default: everything up to the end.
    """
    cast = await table.casting.open()
    if transcript.state is None:
        if transcript.question is None:
            return
        started = begin(transcript.question, cast=cast, config=table.config, store=table.casting.store)
        transcript.take(started)
        table.spans.take(started)
        yield started
    performed = False
    while transcript.state is not None and transcript.started is not None:
        started = table.pauses.without(transcript.started)
        step = next_step(
            transcript.state,
            elapsed_s=time.time() - started.started_at,
            cancelled=table.control.stop.is_set(),
        )
        whose = None if step is None else role_of(step)
        if step is None or (role is not None and whose is not None and (performed or whose != role)):
            return
        performed = whose is not None
        await table.pauses.over(table.control.stop)
        started = table.pauses.without(transcript.started)
        events = turn(transcript.state, started, cast=cast, library=table.casting.library, control=table.control)
        async with aclosing(table.spans.followed(events)) as followed:
            async for event in followed:
                transcript.take(event)
                yield event


async def coalesced(
    events: AsyncGenerator[Event, None], *, clock: Callable[[], float] = time.monotonic
) -> AsyncGenerator[Event, None]:
    """The events with neighbouring pieces of one text joined; the first piece after a silence is not held back."""
    held: TextDelta | None = None
    last = -COALESCE_S
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta):
                if held is not None and _place(held) == _place(event):
                    event = replace(event, text=held.text + event.text)
                elif held is not None:
                    yield held
                held = event
                if clock() - last < COALESCE_S:
                    continue
            if held is not None:
                yield held
                held, last = None, clock()
            if not isinstance(event, TextDelta):
                yield event
    if held is not None:
        yield held


@contextmanager
def stopped_by(token: CancellationToken | None, control: Control) -> Iterator[None]:
    """While this holds, cancelling the token stops the run; the token may be cancelled from any thread."""
    if token is None:
        yield
        return
    loop, over = asyncio.get_running_loop(), False

    def stop() -> None:
        if not over:
            control.stop.set()

    def cancel() -> None:
        if not over:
            loop.call_soon_threadsafe(stop)

    if token.is_cancelled():
        control.stop.set()
    token.add_callback(cancel)
    try:
        yield
    finally:
        over = True


def _place(event: TextDelta) -> tuple[object, ...]:
    return (event.round, event.role, event.stage, event.candidate, event.channel)
