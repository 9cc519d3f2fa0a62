"""`preflexor eval run`: ask, judge, write down, and show the table."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from preflexor_agents.cli.options import json_option
from preflexor_agents.errors import InputError, PreflexorError

if TYPE_CHECKING:
    from preflexor_agents.evaluation.folder import EvalFolder
    from preflexor_agents.evaluation.systems import System
    from preflexor_agents.evaluation.tasks import Task
    from preflexor_agents.store import Store

EXAMPLE = """
\b
SUITE is a file of questions (JSON lines, JSON, CSV or Parquet with question and answer; GSM8K, MMLU, PubMedQA and
knights-and-knaves rows are understood), library[:COLUMN,...] or knights[:PEOPLE[:COUNT]].

\b
Example:
  preflexor eval run library --limit 50 --system nano::answer --system nano::think --system nano::default
"""


@click.command(short_help="Ask questions of models under protocols, and score the answers.", epilog=EXAMPLE)
@click.argument("suites", nargs=-1, required=True, metavar="SUITE...")
@click.option(
    "--system",
    "asked",
    multiple=True,
    metavar="[NAME=]MODEL[::PROTOCOL]",
    help="What is measured; may be repeated, the first one is what the others are compared with. "
    "See `preflexor eval protocols`. Default: nano::answer, nano::think and nano::default.",
)
@click.option("--seeds", default="0", show_default=True, metavar="N,...", help="Every question is asked with each.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="So many questions of each column.")
@click.option("--store", metavar="PATH", help="Knowledge store to answer from. Default: as `preflexor ask`.")
@click.option("--no-store", is_flag=True, help="Answer without passages.")
@click.option("--judge", "judge", metavar="SPEC", help="Model that compares the answers to open questions.")
@click.option("--budget-tokens", type=click.IntRange(1), metavar="N", help="Equal limit of written tokens a question.")
@click.option("--budget-seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="Likewise of seconds.")
@click.option("--slots", type=click.IntRange(1, 64), default=4, show_default=True, help="Questions asked at a time.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Default: eval in the current folder.")
@json_option
def run_command(
    *,
    suites: tuple[str, ...],
    asked: tuple[str, ...],
    seeds: str,
    limit: int | None,
    store: str | None,
    no_store: bool,
    judge: str | None,
    budget_tokens: int | None,
    budget_seconds: float | None,
    slots: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Ask every question of every system with every seed, write each result down, and print the table.

    The same command goes on where it was broken off. Systems can be added to a folder later.
    """
    from preflexor_agents.cli.eval_show import report, show
    from preflexor_agents.cli.eval_suites import gather
    from preflexor_agents.evaluation.folder import EvalFolder
    from preflexor_agents.evaluation.systems import system

    numbers = _seeds(seeds)
    tasks = gather(suites, limit=limit, seed=numbers[0])
    texts = asked or ("nano::answer", "nano::think", "nano::default")
    systems = [system(text, budget_tok=budget_tokens, budget_s=budget_seconds) for text in texts]
    doubled = {s.name for s in systems if sum(other.name == s.name for other in systems) > 1}
    if doubled:
        raise InputError(f"two systems are called {doubled.pop()!r}; name them apart, as --system a=nano::think")
    if no_store and store is not None:
        raise InputError(f"--store {store} and --no-store exclude one another; give one of them")
    if judge is None and any(task.kind == "open" for task in tasks):
        raise InputError("some questions are open; name a model to judge the answers with --judge SPEC")
    with ExitStack() as held:
        library = None if no_store else _library(held, store, systems)
        name = "" if library is None else str(library.path)
        folder = held.enter_context(EvalFolder(out or Path("eval"), tasks, systems, library=name))
        asyncio.run(_ask(folder, tasks, systems, seeds=numbers, library=library, slots=slots))
        if judge is not None:
            asyncio.run(_judge(folder, tasks, first=systems[0].name, judge=judge, slots=slots))
        found = report(folder.path, first=systems[0].name)
    if as_json:
        click.echo(json.dumps(found.as_json(), ensure_ascii=False, indent=2))
    else:
        show(found)
    failed = sum(row.errors for row in found.rows)
    if failed:
        raise PreflexorError(f"{failed} questions could not be asked; see {folder.path}, or run the same again")


def _seeds(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise InputError(f"--seeds is {text!r}; write numbers with commas, as 0,1,2") from None
    if min(numbers) < 0 or max(numbers) >= 2**31:
        raise InputError(f"--seeds is {text!r}; seeds are from 0 to 2147483647")
    return numbers


def _library(held: ExitStack, store: str | None, systems: "Sequence[System]") -> "Store | None":
    from rich.console import Console

    from preflexor_agents.cli.library import open_library
    from preflexor_agents.settings import load

    models = {s.model for s in systems}
    settings = load({"store": store, "model": "nano" if "nano" in models else next(iter(models))})
    library = open_library(settings, Console(stderr=True, highlight=False))
    return held.enter_context(library) if library is not None else None


async def _ask(
    folder: "EvalFolder",
    tasks: "Sequence[Task]",
    systems: "Sequence[System]",
    *,
    seeds: Sequence[int],
    library: "Store | None",
    slots: int,
) -> None:
    from preflexor_agents.cli.progress import counting
    from preflexor_agents.evaluation.running import evaluate

    done = folder.done()
    wanted = [(s.name, t.id, seed) for s in systems for t in tasks for seed in seeds]
    ended = sum(key in done for key in wanted)
    results = evaluate(tasks, systems, seeds=seeds, library=library, slots=slots, done=done)
    with counting(len(wanted), "questions") as tell:
        async with aclosing(results):
            async for result in results:
                folder.add(result)
                ended += 1
                tell(ended)


async def _judge(folder: "EvalFolder", tasks: "Sequence[Task]", *, first: str, judge: str, slots: int) -> None:
    from preflexor_agents.backends import open_backend
    from preflexor_agents.evaluation import judging

    backend = await open_backend(judge)
    try:
        named = {task.id: task for task in tasks}
        heard = {key for key, judgement in folder.judgements.items() if judgement.score is not None}
        results = [result for result in folder.results.values() if result.task in named]
        said = judging.judge(named, results, first=first, backend=backend, slots=slots, done=heard)
        async with aclosing(said):
            async for judgement in said:
                folder.add_judgement(judgement)
    finally:
        await backend.aclose()
