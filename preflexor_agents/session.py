"""From a question to an answer: open the models, gather the team, run it, keep the trace. Read the project from here.

The only place where any exception becomes an event.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from preflexor_agents.config import ReflectConfig
from preflexor_agents.errors import InputError, PreflexorError, TraceError
from preflexor_agents.events import (
    ROLES,
    Event,
    Resumed,
    Retrieved,
    Role,
    RunFinished,
    RunStarted,
    StepFailed,
    StepFinished,
    TextDelta,
    Usage,
)
from preflexor_agents.prompts import Grounds, draft
from preflexor_agents.reflection.engine import begin
from preflexor_agents.reflection.perform import Cast, Control, Library
from preflexor_agents.reflection.state import State, advance, start

if TYPE_CHECKING:
    from autogen_agentchat.messages import TextMessage

    from preflexor_agents.autogen.group_chat import ReflectionGroupChat

MODEL_ROLES: tuple[Role, ...] = tuple(role for role in ROLES if role != "librarian")


async def open_cast(model: str, others: Mapping[Role, str] | None = None) -> Cast:
    """A backend for every role: `model`, save where `others` names another SPEC. One SPEC is opened once."""
    from preflexor_agents.backends import open_backend

    specs = {role: (others or {}).get(role, model) for role in MODEL_ROLES}
    backends = {}
    try:
        for spec in specs.values():
            if spec not in backends:
                backends[spec] = await open_backend(spec)
    except BaseException:
        await asyncio.gather(*(b.aclose() for b in backends.values()))
        raise
    return {role: backends[spec] for role, spec in specs.items()}


async def close_cast(cast: Cast) -> None:
    """Let the models go."""
    for backend in {id(b): b for b in cast.values()}.values():
        await backend.aclose()


async def check_question(question: str, cast: Cast) -> str:
    """The question without surrounding white space.

    Raises:
        InputError: it is empty, or leaves the thinker less than half of its context.
    """
    question = question.strip()
    if not question:
        raise InputError("the question is empty; ask something, as: preflexor ask 'How tough is nacre?'")
    thinker = cast.get("thinker")
    if thinker and thinker.context_tok:
        tok = await thinker.count_tok(draft(Grounds(question=question)))
        if tok > thinker.context_tok // 2:
            raise InputError(
                f"the question takes {tok} tokens and {thinker.spec} has room for {thinker.context_tok // 2} "
                "(half of its context); shorten it, or ingest the long text and ask about it"
            )
    return question


async def ask(
    question: str,
    *,
    cast: Cast,
    config: ReflectConfig,
    library: Library | None = None,
    store: str | None = None,
    control: Control | None = None,
    earlier: tuple[str, ...] = (),
) -> AsyncGenerator[Event, None]:
    """Answer a question through the reflection group chat; yields the run's events, `RunFinished` last.

    Args:
        question: checked by `check_question`.
        cast: from `open_cast`.
        config: the protocol and its budgets.
        library: the open knowledge store, if any.
        store: its path, for the record.
        control: stop or steer the run from outside.
        earlier: what was said before in the conversation, from `remembered`.
    """
    from preflexor_agents.autogen.group_chat import reflection_team
    from preflexor_agents.autogen.transcript import Turn, turn_message

    control = control or Control()
    team = reflection_team(cast, config=config, library=library, store=store, control=control)
    task: str | TextMessage = question
    state: State | None = None
    if earlier:
        started = begin(question, cast=cast, config=config, store=store if library is not None else None)
        started = replace(started, earlier=earlier)
        yield started
        state, task = start(started), turn_message(Turn(started.started_at, 0, (started,)), source="user")
    async with aclosing(_watched(team, task, state, control)) as events:
        async for event in events:
            yield event


def remembered(turns: Sequence[tuple[str, str]], cast: Cast) -> tuple[str, ...]:
    """What a follow-up question is told of the questions and answers before it: as much of the end of the conversation
    as a quarter of the smallest context holds. The bundled model learned single questions only and is told nothing.
    """
    if any(backend.spec == "nano" for backend in cast.values()):
        return ()
    room_chars = min((b.context_tok for b in cast.values() if b.context_tok), default=4096) * 3 // 4
    kept: list[str] = []
    for question, answer in reversed(turns):
        room_chars -= len(question) + len(answer)
        if room_chars < 0:
            break
        kept[:0] = [f"user: {question}", f"you: {answer}"]
    return tuple(kept)


async def resume(
    before: Sequence[Event],
    *,
    cast: Cast,
    config: ReflectConfig,
    library: Library | None = None,
    store: str | None = None,
    control: Control | None = None,
) -> AsyncGenerator[Event, None]:
    """Go on with a run that has ended, or from the end of one of its rounds; yields `Resumed` and what comes after.

    Args:
        before: the run's events up to there, `RunStarted` first.
        cast: from `open_cast`.
        config: holds from here on. Rounds, tokens and seconds count from the run's beginning.
        library: the open knowledge store, if any.
        store: its path, for the record.
        control: stop or steer the run from outside; what it holds already counts at once.
    """
    from preflexor_agents.autogen.group_chat import reflection_team
    from preflexor_agents.autogen.transcript import Turn, turn_message

    started = before[0] if before else None
    if not isinstance(started, RunStarted):
        raise TraceError("these events do not begin with RunStarted, so there is no run to go on with")
    control = control or Control()
    opened = begin(started.question, cast=cast, config=config, store=store if library is not None else None)
    resumed = Resumed(
        models=opened.models,
        config=opened.config,
        store=opened.store,
        context_tok=opened.context_tok,
        resumed_at=opened.started_at,
        spent_s=spent_s(before),
        version=opened.version,
    )
    yield resumed
    events = [*before, resumed]
    state = start(started)
    for event in events[1:]:
        state = advance(state, event)
    team = reflection_team(cast, config=config, library=library, store=store, control=control)
    team.skip_time(started.started_at, resumed.resumed_at - resumed.spent_s)
    told = tuple(e for e in events if not isinstance(e, TextDelta | RunFinished))  # an end would end the chat
    task = turn_message(Turn(started.started_at, 0, told), source="user")
    async with aclosing(_watched(team, task, state, control)) as following:
        async for event in following:
            yield event


def spent_s(events: Sequence[Event]) -> float:
    """Seconds of its budget that a run has used: as it said at its end, else those of its steps."""
    total = 0.0
    for event in events:
        match event:
            case RunFinished(seconds=seconds):
                total = seconds
            case StepFinished(seconds=seconds) | StepFailed(seconds=seconds) | Retrieved(seconds=seconds):
                total += seconds
            case _:
                pass
    return total


async def _watched(
    team: "ReflectionGroupChat", task: "str | TextMessage", state: State | None, control: Control
) -> AsyncGenerator[Event, None]:
    """The events of a team's run; whatever breaks it ends it as data, with the best answer so far."""
    from preflexor_agents.autogen.transcript import watched

    began = time.monotonic()
    try:
        async with aclosing(team.run_stream(task=task)) as messages:
            try:
                async for message in messages:
                    event = watched(message)
                    if event is not None:
                        state = start(event) if isinstance(event, RunStarted) else state and advance(state, event)
                        yield event
            finally:
                control.stop.set()  # whoever leaves early does not wait for the rest of the run
    except Exception as e:  # the one place: whatever broke ends the run as data
        if state is None and isinstance(e, PreflexorError):
            raise
        if state is None or not state.finished:
            yield _broken(e, state, seconds=time.monotonic() - began)


def _broken(error: Exception, state: State | None, *, seconds: float) -> RunFinished:
    best = state.best if state else None
    why = str(error).partition("\nTraceback")[0]  # AutoGen puts the traceback of a participant into the message
    return RunFinished(
        answer=best.answer if best else "",
        stop_reason="failed",
        best_round=best.round if best else 0,
        usage=state.usage if state else Usage(),
        seconds=seconds,
        error=f"{type(error).__name__}: {' '.join(why.split())}",
    )


def new_trace_path(folder: Path | None = None) -> Path:
    """A place for the trace of a run that starts now, in the user's data folder."""
    import platformdirs

    base = folder or Path(platformdirs.user_state_dir("preflexor")) / "traces"
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    return base / f"{stamp}.jsonl"
