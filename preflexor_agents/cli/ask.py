"""`preflexor ask`: one question, answered in rounds."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from preflexor_agents.errors import ConfigError, PreflexorError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from preflexor_agents.config import ReflectConfig
    from preflexor_agents.events import Event
    from preflexor_agents.reflection.perform import Cast, Control
    from preflexor_agents.settings import Settings
    from preflexor_agents.store import Store
    from preflexor_agents.trace import TraceWriter


@click.command(short_help="Answer a question in rounds of thinking, critique and revision.")
@click.argument("question", required=False, default="")
@click.option("--model", metavar="SPEC", help="nano (bundled), ollama:NAME or gguf:PATH. Default: nano.")
@click.option(
    "--role",
    "roles",
    metavar="ROLE=SPEC",
    multiple=True,
    help="Another model for one role: thinker, critic, reviser, judge, integrator. May be repeated.",
)
@click.option("--rounds", type=int, metavar="N", help="Answers written one after the other, the draft included.")
@click.option("--candidates", type=int, metavar="N", help="Drafts to choose from in the first round.")
@click.option("--store", metavar="PATH", help="Knowledge store to search and cite. Default: your own, if there is one.")
@click.option("--seed", type=int, metavar="N", help="Seeds every call; the same seed gives the same run.")
@click.option("--budget-tokens", type=int, metavar="N", help="Most tokens written over the whole run.")
@click.option("--budget-seconds", type=float, metavar="S", help="Most seconds over the whole run.")
@click.option("--preset", metavar="NAME", help="default (a blind judge gates revisions) or paper (as published).")
@click.option("--variant", type=click.Choice(["critic", "self"]), help="Feedback from a critic or its own reflection.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on standard output.")
@click.option("--print-schema", is_flag=True, help="Print the JSON schema of --json and end.")
@click.option("--trace", metavar="FILE", help="Where the trace goes. Default: a new file in your state folder.")
def command(*, question: str, print_schema: bool, as_json: bool, trace: str | None, **options: Any) -> None:
    """Answer QUESTION in rounds: think, be criticised, revise, keep the better answer, cite the sources.

    On a terminal the rounds stream as they happen. Otherwise they go to standard error as plain lines, and standard
    output holds the answer only. Ctrl-C ends the run with the best answer so far.
    """
    from preflexor_agents.report import SCHEMA

    if print_schema:
        click.echo(json.dumps(SCHEMA, indent=2))
        return
    roles, variant = options.pop("roles"), options.pop("variant")
    from preflexor_agents.settings import load

    settings = load(options)
    job = Job(
        question=question,
        settings=settings,
        config=_config(settings, variant),
        models=_models(roles),
        trace=Path(trace) if trace else None,
        as_json=as_json,
    )
    raise SystemExit(asyncio.run(run(job)))


class Job(NamedTuple):
    """What one call of `ask` or `demo` is to do."""

    question: str
    settings: "Settings"
    config: "ReflectConfig"
    models: dict[str, str]
    """Role -> SPEC, where it is not the model of the settings."""
    trace: Path | None
    as_json: bool


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
    store = open_library(job.settings, watch)
    try:
        async with models(job) as cast:
            question = await session.check_question(job.question, cast)
            with TraceWriter(job.trace or session.new_trace_path()) as trace:
                events, lost = await _answer(job, question, cast, store, trace, watch)
    finally:
        if store is not None:
            store.close()
    end = events[-1]
    if not isinstance(end, RunFinished):
        raise PreflexorError("the run ended without an answer")
    citations = next((e.citations for e in reversed(events) if isinstance(e, Cited)), ())
    if job.as_json:
        click.echo(json.dumps(report(events), ensure_ascii=False, indent=2))
    else:
        show_answer(out, end.answer, citations, integrated=end.integrated)
    watch.print(f"\n{lost or 'trace'}: {inert(str(trace.path))}", style="dim", soft_wrap=True, markup=False)
    return 1 if lost or end.stop_reason in ("failed", "cancelled") else 0


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
def stops_on_interrupt(control: "Control") -> "Iterator[None]":
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


def open_library(settings: "Settings", watch: "Console") -> "Store | None":
    """The store to search; for nano without a store of the user's own, the bundled library; else none."""
    from preflexor_agents.settings import default_store
    from preflexor_agents.store import Store

    if settings.store.exists() or settings.store != default_store():
        return Store.open(settings.store, create=False)
    if settings.model == "nano":
        from preflexor_agents.cli.demo import bundled_library

        return bundled_library(watch)
    watch.print("no knowledge store yet: answering without passages (preflexor ingest PATH… makes one)", style="dim")
    return None


def _config(settings: "Settings", variant: str | None) -> "ReflectConfig":
    from dataclasses import replace

    from preflexor_agents.config import paper
    from preflexor_agents.settings import reflect_config

    config = reflect_config(settings)
    if variant == "self" and settings.preset == "paper" and settings.rounds is None:
        return replace(config, variant="self", rounds=paper("self").rounds)
    return config if variant is None else replace(config, variant=variant)  # type: ignore[arg-type]


def _models(roles: Sequence[str]) -> dict[str, str]:
    from preflexor_agents.session import MODEL_ROLES

    found: dict[str, str] = {}
    for text in roles:
        role, _, spec = text.partition("=")
        if role not in MODEL_ROLES or not spec:
            raise ConfigError(f"--role {text!r} must be ROLE=SPEC with a role of: {', '.join(MODEL_ROLES)}")
        found[role] = spec
    return found
