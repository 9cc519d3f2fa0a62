"""Runs one question for the command line: opens everything, shows and traces the events, gives the exit code."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from preflexor_agents.errors import PreflexorError

if TYPE_CHECKING:
    from rich.console import Console

    from preflexor_agents.config import ReflectConfig
    from preflexor_agents.events import Event
    from preflexor_agents.packs import Pack
    from preflexor_agents.reflection.perform import Cast, Control
    from preflexor_agents.settings import Settings
    from preflexor_agents.store import Store
    from preflexor_agents.trace import TraceWriter


class Job(NamedTuple):
    """What one call of `ask` or `demo` is to do."""

    question: str
    settings: "Settings"
    config: "ReflectConfig"
    models: dict[str, str]
    """Role -> SPEC, where it is not the model of the settings."""
    trace: Path | None
    as_json: bool
    keep: "Pack | None" = None
    """Domain pack by which the answer is written back into the store; None leaves the store as it is."""


async def run(job: Job) -> int:
    """Answer, print, and return the exit code."""
    from rich.console import Console

    from preflexor_agents import session
    from preflexor_agents.cli.show import inert, show_answer
    from preflexor_agents.events import Cited, RunFinished
    from preflexor_agents.report import report
    from preflexor_agents.trace import TraceWriter

    out = Console(highlight=False)
    watch = out if out.is_terminal and not job.as_json else Console(stderr=True, highlight=False)
    await session.check_question(job.question, {})
    from preflexor_agents.cli.library import open_library

    store = open_library(job.settings, watch)
    try:
        async with models(job) as cast:
            question = await session.check_question(job.question, cast)
            with TraceWriter(job.trace or session.new_trace_path()) as trace:
                events, lost = await _answer(job, question, cast, store, trace, watch)
            kept = await _keep(job, cast, store, events)
    finally:
        if store is not None:
            store.close()
    end = events[-1]
    if not isinstance(end, RunFinished):
        raise PreflexorError("the run ended without an answer")
    cited = next((e for e in reversed(events) if isinstance(e, Cited)), None)
    if job.as_json:
        click.echo(json.dumps(report(events), ensure_ascii=False, indent=2))
    else:
        show_answer(out, end, cited)
    if kept:
        watch.print(f"\n{kept}", style="dim", soft_wrap=True, markup=False)
    watch.print(f"\n{lost or 'trace'}: {inert(str(trace.path))}", style="dim", soft_wrap=True, markup=False)
    return 1 if lost or end.stop_reason in ("failed", "cancelled") else 0


async def _keep(job: Job, cast: "Cast", store: "Store | None", events: "list[Event]") -> str:
    """Write the answer back if that was asked for; says in one line what came of it."""
    if job.keep is None:
        return ""
    from preflexor_agents.growth.answers import keep, outcome
    from preflexor_agents.growth.extract import planned

    found = outcome(events)
    if store is None or found is None or not found.supported:
        return "nothing kept: no document speaks for the answer"
    run = store.graph.begin(planned(cast["thinker"], job.keep, kind="answer", note=found.question, seed=found.seed))
    kept = await keep(store, cast["thinker"], found, pack=job.keep, run=run)
    return f"kept in the store: the supported sentences, {kept.added.relations} new relations of the graph"


async def _answer(
    job: Job, question: str, cast: "Cast", store: "Store | None", trace: "TraceWriter", watch: "Console"
) -> "tuple[list[Event], str]":
    """Run, trace and show. A trace that can not be written any more costs the trace, not the answer."""
    from preflexor_agents import session
    from preflexor_agents.cli.show import Printer
    from preflexor_agents.errors import TraceError
    from preflexor_agents.reflection.perform import Control

    events: list[Event] = []
    lost = ""
    printer = Printer(watch)
    control = Control()
    path = None if store is None else str(store.path)
    with stops_on_interrupt(control):
        async for event in session.ask(
            question, cast=cast, config=job.config, library=store, store=path, control=control
        ):
            events.append(event)
            printer.show(event)
            try:
                if not lost:
                    trace.write(event)
            except TraceError as e:
                lost = f"the trace is not complete ({e})"
    return events, lost


@asynccontextmanager
async def models(job: Job) -> "AsyncIterator[Cast]":
    """The cast, closed at the end."""
    from preflexor_agents import session

    cast = await session.open_cast(job.settings.model, job.models)  # type: ignore[arg-type]
    try:
        yield cast
    finally:
        await session.close_cast(cast)


@contextmanager
def stops_on_interrupt(control: "Control") -> Iterator[None]:
    """The first ctrl-c ends the run with the best answer so far; a second one ends the program."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        control.stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    try:
        loop.add_signal_handler(signal.SIGINT, stop)
    except NotImplementedError:  # Windows: ctrl-c raises KeyboardInterrupt there
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
