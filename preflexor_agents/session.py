"""From a question to an answer: open the models, gather the team, run it, keep the trace. Read the project from here.

The only place where any exception becomes an event.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime
from pathlib import Path

from preflexor_agents.config import ReflectConfig
from preflexor_agents.errors import InputError, PreflexorError
from preflexor_agents.events import ROLES, Event, Role, RunFinished, RunStarted, Usage
from preflexor_agents.prompts import Grounds, draft
from preflexor_agents.reflection.perform import Cast, Control, Library
from preflexor_agents.reflection.state import State, advance, start

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
) -> AsyncGenerator[Event, None]:
    """Answer a question through the reflection group chat; yields the run's events, `RunFinished` last.

    Args:
        question: checked by `check_question`.
        cast: from `open_cast`.
        config: the protocol and its budgets.
        library: the open knowledge store, if any.
        store: its path, for the record.
        control: stop or steer the run from outside.
    """
    from preflexor_agents.autogen.group_chat import reflection_team
    from preflexor_agents.autogen.transcript import watched

    control = control or Control()
    began = time.monotonic()
    state: State | None = None
    team = reflection_team(cast, config=config, library=library, store=store, control=control)
    try:
        async with aclosing(team.run_stream(task=question)) as messages:
            try:
                async for message in messages:
                    event = watched(message)
                    if event is not None:
                        state = start(event) if isinstance(event, RunStarted) else state and advance(state, event)
                        yield event
            finally:
                control.stop.set()  # whoever leaves early does not wait for the rest of the run
    except Exception as e:  # the one place: whatever broke ends the run as data, with the best answer so far
        if state is None and isinstance(e, PreflexorError):
            raise
        if state is None or not state.finished:
            yield _broken(e, state, seconds=time.monotonic() - began)


def _broken(error: Exception, state: State | None, *, seconds: float) -> RunFinished:
    best = state.best if state else None
    return RunFinished(
        answer=best.answer if best else "",
        stop_reason="failed",
        best_round=best.round if best else 0,
        usage=state.usage if state else Usage(),
        seconds=seconds,
        error=f"{type(error).__name__}: {' '.join(str(error).split())}",
    )


def new_trace_path(folder: Path | None = None) -> Path:
    """A place for the trace of a run that starts now, in the user's data folder."""
    import platformdirs

    base = folder or Path(platformdirs.user_state_dir("preflexor")) / "traces"
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    return base / f"{stamp}.jsonl"
