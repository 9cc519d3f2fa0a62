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
from preflexor_agents.events import ROLES, Event, Role, RunFinished
from preflexor_agents.prompts import Grounds, draft
from preflexor_agents.reflection.perform import Cast, Control, Library

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
    finished = False
    team = reflection_team(cast, config=config, library=library, store=store, control=control)
    try:
        async with aclosing(team.run_stream(task=question)) as messages:
            try:
                async for message in messages:
                    event = watched(message)
                    if event is not None:
                        finished = isinstance(event, RunFinished)
                        yield event
            finally:
                control.stop.set()  # whoever leaves early does not wait for the rest of the run
    except PreflexorError:
        raise
    except Exception as e:  # the one place: whatever broke ends the run as data
        if not finished:
            error = f"{type(e).__name__}: {' '.join(str(e).split())}"
            yield RunFinished(answer="", stop_reason="failed", seconds=time.monotonic() - began, error=error)


def new_trace_path(folder: Path | None = None) -> Path:
    """A place for the trace of a run that starts now, in the user's data folder."""
    import platformdirs

    base = folder or Path(platformdirs.user_state_dir("preflexor")) / "traces"
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    return base / f"{stamp}.jsonl"
