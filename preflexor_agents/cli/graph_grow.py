"""`preflexor graph extract` and `graph grow`: fill the graph from the documents, let it ask questions of its own."""

import asyncio
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click

from preflexor_agents.cli.options import store_option
from preflexor_agents.cli.progress import counting
from preflexor_agents.cli.store import file_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from preflexor_agents.backends.base import Backend
    from preflexor_agents.budget import Budget
    from preflexor_agents.events import Event, Passage
    from preflexor_agents.growth.loop import Asker, Grown
    from preflexor_agents.packs import Pack
    from preflexor_agents.settings import Settings
    from preflexor_agents.store import Store

MOST_LINES = 10
"""Refused facts that are shown."""
STOPS = {
    "questions": "all questions asked",
    "budget_tokens": "the token budget is spent",
    "budget_seconds": "the time budget is spent",
    "novelty": "the last questions added nothing new",
    "asked_all": "the graph has no more questions",
}
BIG = 1 << 30


def model_options(function: click.decorators.FC) -> click.decorators.FC:
    """Which model reads, by which pack, and how long."""
    for option in (
        click.option(
            "--budget-seconds", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Most seconds."
        ),
        click.option("--budget-tokens", type=click.IntRange(min=1), metavar="N", help="Most tokens written."),
        click.option(
            "--pack", default="general", show_default=True, metavar="NAME", help="Domain pack: a name or a .toml file."
        ),
        click.option("--model", metavar="SPEC", help="As `preflexor ask --model`. Default: nano."),
    ):
        function = option(function)
    return function


@click.command(name="extract", short_help="Read facts out of the documents with a model.")
@click.option("--source", metavar="NAME", help="Only this document, folder or glob.")
@click.option("--collection", metavar="NAME", help="Only this collection.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Most passages to read.")
@model_options
@store_option
def extract_command(
    *, source: str | None, collection: str | None, limit: int | None, model: str | None, pack: str, **options: Any
) -> None:
    """Read the passages of the store one by one and write down the facts in them, each with the words that say so.

    What was read by the same model and pack before is left out, so the same call may be repeated, also after Ctrl-C.
    A fact whose quote is not in the passage, or does not name both its ends, is refused. Ends with exit code 1 if some
    passages could not be read.
    """
    from preflexor_agents.packs import load as load_pack
    from preflexor_agents.settings import load
    from preflexor_agents.store import Store
    from preflexor_agents.store.filters import Filter

    chosen, settings = load_pack(pack), load({"model": model})
    where = Filter(source=source, collection=collection)
    with Store.open(file_of(options["store"]), create=False) as store:
        interruptible(_extract(store, settings.model, chosen, where, limit, budget_of(options)))


async def _extract(store: "Store", model: str, pack: "Pack", where: Any, limit: int | None, budget: "Budget") -> int:
    from preflexor_agents.backends import open_backend
    from preflexor_agents.growth import extract

    backend = await open_backend(model)
    try:
        run = extract.planned(backend, pack)
        passages = store.graph.unexamined(run, where=where)[:limit]
        if not passages:
            click.echo("nothing left to read: this model has read all of it by this pack")
            return 0
        return await _read(store, backend, passages, pack, store.graph.begin(run), budget)
    finally:
        await backend.aclose()


async def _read(
    store: "Store", backend: "Backend", passages: "list[Passage]", pack: "Pack", run: Any, budget: "Budget"
) -> int:
    from preflexor_agents.cli.show import inert
    from preflexor_agents.growth.extract import extract

    counts: Counter[str] = Counter()
    refused: list[str] = []
    reading = extract(store, backend, passages, pack=pack, run=run, budget=budget)
    with counting(len(passages), "passages") as tell:
        async for done in reading:
            counts.update(read=int(not done.error), failed=int(bool(done.error)), refused=len(done.added.refused))
            counts.update(entities=done.added.entities, relations=done.added.relations, evidence=done.added.evidence)
            refused += done.added.refused
            if done.error:
                click.echo(inert(f"preflexor: {done.passage.source}: {done.error}"), err=True)
            tell(counts["read"] + counts["failed"])
    for line in refused[:MOST_LINES]:
        click.echo(inert(f"refused: {line}"), err=True)
    if len(refused) > MOST_LINES:
        click.echo(f"refused: {len(refused) - MOST_LINES} more", err=True)
    click.echo(
        f"{counts['read']} of {len(passages)} passages read: {counts['evidence']} quotes for {counts['relations']} new "
        f"relations and {counts['entities']} new entities; {counts['refused']} facts refused"
    )
    if counts["read"] and not counts["evidence"]:
        click.echo(f"{backend.spec} found no fact that its passage bears out; try a larger model", err=True)
    return 1 if counts["failed"] else 0


@click.command(name="grow", short_help="Let the graph ask questions of its own and keep what the answers add.")
@click.option("--questions", type=click.IntRange(min=1), default=10, show_default=True, help="Most questions.")
@model_options
@store_option
def grow_command(*, questions: int, model: str | None, pack: str, **options: Any) -> None:
    """Ask what the graph leaves open: what little is known of, what may be related, what lies far apart.

    Each question is answered in rounds from the store. The sentences that documents support are kept as a finding, the
    facts in them, with the documents' words, as relations. Ends early when three questions in a row add nothing.
    """
    from preflexor_agents.packs import load as load_pack
    from preflexor_agents.settings import load
    from preflexor_agents.store import Store

    chosen, settings = load_pack(pack), load({"model": model})
    with Store.open(file_of(options["store"]), create=False) as store:
        interruptible(_grow(store, settings, chosen, questions, budget_of(options)))


async def _grow(store: "Store", settings: "Settings", pack: "Pack", questions: int, budget: "Budget") -> int:
    from preflexor_agents import session
    from preflexor_agents.growth.loop import grow

    cast = await session.open_cast(settings.model)
    try:
        ask = asker(cast, settings, store)
        async with aclosing(
            grow(store, ask, cast["thinker"], pack=pack, questions=questions, budget=budget)
        ) as growing:
            async for step in growing:
                if isinstance(step, str):
                    click.echo(f"ended: {STOPS[step]}")
                else:
                    show(step)
    finally:
        await session.close_cast(cast)
    return 0


def asker(cast: Any, settings: "Settings", store: "Store") -> "Asker":
    """Answers a question from the store, as `preflexor ask` does."""
    from preflexor_agents import session
    from preflexor_agents.settings import reflect_config

    config = reflect_config(settings)

    def ask(question: str) -> "AsyncIterator[Event]":
        return session.ask(question, cast=cast, config=config, library=store, store=str(store.path))

    return ask


def show(step: "Grown") -> None:
    """One question for people."""
    from preflexor_agents.cli.show import inert

    added = step.kept.added
    click.echo(click.style(inert(f"{step.proposal.kind.replace('_', ' ')}: {step.proposal.question}"), bold=True))
    if step.error:
        click.echo(inert(f"  failed: {step.error}"))
    if step.answer:
        click.echo(inert(f"  {' '.join(step.answer.split())}"))
    kept = "kept" if step.kept.finding else "not kept: no document speaks for it"
    click.echo(
        f"  {kept}; {added.relations} new relations, {added.entities} new entities, {added.evidence} quotes "
        f"({step.usage.generated} tokens, {step.seconds:.1f} s)\n"
    )


def budget_of(options: dict[str, Any]) -> "Budget":
    """The budget of the options; what is not given is as good as endless."""
    from preflexor_agents.budget import Budget

    return Budget(tok=options["budget_tokens"] or BIG, s=options["budget_seconds"] or float(BIG))


def interruptible(work: Any) -> None:
    """Run it and end with its exit code; Ctrl-C says that what is done is kept."""
    try:
        code = asyncio.run(work)
    except KeyboardInterrupt:
        click.echo("stopped: what was done is kept, the same call goes on with the rest", err=True)
        code = 1
    raise SystemExit(code)
