"""`preflexor forge run`: make rows of preference data, or go on making them."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preflexor_agents.cli.options import json_option
from preflexor_agents.errors import ConfigError

if TYPE_CHECKING:
    from preflexor_agents.settings import Settings
    from preflexor_training.forge.calls import Spending
    from preflexor_training.forge.opening import Order
    from preflexor_training.forge.run import Report, Watch
    from preflexor_training.forge.settings import ForgeSettings
    from preflexor_training.forge.table import Tally

EXAMPLE = """
\b
Examples:
  preflexor forge run --rows 20 --questions questions.jsonl
  preflexor forge run --teacher ollama:qwen3:4b --student ollama:llama3.2:3b --variant reflection --out data/
  preflexor forge run --teacher ollama:qwen3:4b --samples 4 --verifier judge --margin 0.5 --out data/
  preflexor forge run --teacher openai:qwen3@http://gpu1:8000/v1 --ray auto --rows 20000 --out /shared/data
"""
OUT = Path("forge")
STOPS = {
    "rows": "all rows are there",
    "budget_tokens": "the token budget is spent; the same call goes on with a new one",
    "budget_seconds": "the time budget is spent; the same call goes on with a new one",
}
_OF_RUN = ("store", "teacher", "student", "judge", "out", "settings_file", "slots", "budget_tokens", "budget_seconds")


@click.command(name="run", short_help="Make rows, or go on making them.", epilog=EXAMPLE)
@click.option(
    "--store", metavar="PATH", help="Knowledge store, or `bundled`. Default: your own; without one the bundled."
)
@click.option(
    "--teacher",
    metavar="SPEC",
    help="Writes questions, thinking and good answers. Default: nano, or the model you have set.",
)
@click.option("--student", metavar="SPEC", help="Whose attempts are to be beaten. Default: the teacher.")
@click.option("--judge", metavar="SPEC", help="Compares answers for `--verifier judge`. Default: the teacher.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Folder of the run. Default: forge; goes on there."
)
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TOML file of settings, as settings.toml of a run; options stand above it.",
)
@click.option("--rows", type=int, metavar="N", help="Rows to make, dropped ones included. Default: 50.")
@click.option(
    "--variant",
    type=click.Choice(["plain", "graph", "reflection", "typed", "direct"]),
    help="What a good answer is made of; direct: what the teacher itself thinks and says. Default: plain.",
)
@click.option("--phase", type=click.Choice(["1", "2"]), help="Phase that the rows are for. Default: 1.")
@click.option("--round", type=int, metavar="N", help="Refresh that the rows are for, from 0. Default: 0.")
@click.option("--pack", metavar="NAME", help="Domain pack: general, materials or a .toml file. Default: general.")
@click.option(
    "--contexts",
    type=click.Choice(["random", "topic", "related", "path"]),
    help="Where passages come from. Default: random chunks.",
)
@click.option("--topic", "topics", multiple=True, metavar="WORDS", help="Of `--contexts topic`; may be repeated.")
@click.option("--passages", type=int, metavar="N", help="Passages of a row. Default: 3.")
@click.option(
    "--questions",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='Ask these: JSON lines with "question" and, if known, "answer".',
)
@click.option(
    "--prompt",
    type=click.Choice(["question", "grounded"]),
    help="Train on the question alone, or on the agents' prompt with the passages. Default: question.",
)
@click.option(
    "--rejected",
    type=click.Choice(["teacher_wrong", "teacher_shallow", "student", "student_thinking", "perturbed"]),
    help="What the rejected side is. Default: student; in phase 2 student_thinking.",
)
@click.option("--samples", type=int, metavar="K", help="Attempts to choose the rejected side from. Default: 1.")
@click.option(
    "--verifier",
    type=click.Choice(["none", "exact", "numeric", "task", "rule", "judge"]),
    help="What tells that an attempt is worse; task: what tells eval that an answer is right. Default: none.",
)
@click.option("--rule", metavar="REGEX", help="Of `--verifier rule`: what a right answer contains.")
@click.option("--margin", type=float, metavar="X", help="By how much an attempt must be worse, 0 to 1. Default: 0.")
@click.option("--seed", type=int, metavar="N", help="Decides everything that is drawn. Default: 0.")
@click.option("--budget-tokens", type=int, metavar="N", help="Most tokens written in this call.")
@click.option("--budget-seconds", type=float, metavar="S", help="Most seconds of this call.")
@click.option("--slots", type=click.IntRange(1, 1024), metavar="N", help="Calls of one model at once. Default: 8.")
@click.option(
    "--ray",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="local",
    help="Make the rows as a Ray Data job: on a cluster, or with this machine's processors if no address follows.",
)
@json_option
def run_command(*, as_json: bool, **options: Any) -> None:
    """Make rows of preference data; the same call goes on where it was broken off, and pays for nothing twice.

    The folder gets pairs.jsonl, one line a row, dropped and failed ones with their reasons. The bundled model, nano,
    only answers questions about the bundled library: give it some by --questions, or name a teacher that can write
    them. Ends with exit code 1 if all rows are there and none is kept.
    """
    address = options.pop("ray")
    order = _order(options)
    try:
        with watched() as watch:
            report = asyncio.run(_made(order, watch)) if address is None else _made_on_ray(order, address, watch)
    except KeyboardInterrupt:
        click.echo("stopped: what was done is kept, the same call goes on with the rest", err=True)
        raise SystemExit(1) from None
    for note in report.notes:
        click.echo(f"preflexor: {note}", err=True)
    if as_json:
        click.echo(json.dumps(_plain(order, report), ensure_ascii=False, indent=2))
    else:
        _say(order, report)
    raise SystemExit(1 if report.stopped == "rows" and not report.tally.kept else 0)


async def _made(order: "Order", watch: "Watch") -> "Report":
    from preflexor_training.forge.opening import opened
    from preflexor_training.forge.run import forge

    async with opened(order) as work:
        return await forge(work, watch=watch)


def _made_on_ray(order: "Order", address: str, watch: "Watch") -> "Report":
    from preflexor_training.forge.ray_job import forge_on_ray

    return forge_on_ray(order, address=address, watch=watch)


def _order(options: Mapping[str, Any]) -> "Order":
    from preflexor_agents.budget import Budget
    from preflexor_agents.settings import load
    from preflexor_training.forge.opening import Order
    from preflexor_training.forge.run import ENDLESS, SLOTS

    given = {"model": options["teacher"], "seed": options["seed"]}
    given |= {key: options[key] for key in ("budget_tokens", "budget_seconds")}
    if options["store"] != "bundled":
        given["store"] = options["store"]
    settings = load(given)
    teacher = settings.model
    return Order(
        settings=_settings(options, settings),
        folder=options["out"] or OUT,
        store=_store(options["store"], settings, teacher),
        models={
            "teacher": teacher,
            "student": options["student"] or teacher,
            "judge": options["judge"] or teacher,
        },
        slots=options["slots"] or SLOTS,
        budget=Budget(settings.budget_tokens or ENDLESS.tok, settings.budget_seconds or ENDLESS.s),
    )


def _settings(options: Mapping[str, Any], settings: "Settings") -> "ForgeSettings":
    """Options before the file before the settings of all commands before defaults."""
    from pydantic import ValidationError

    from preflexor_training.forge.folder import read_settings
    from preflexor_training.forge.settings import ForgeSettings

    file = options["settings_file"]
    values = read_settings(file).model_dump(exclude_unset=True) if file else {}
    if settings.seed is not None:
        values.setdefault("seed", settings.seed)
    given = {key: value for key, value in options.items() if key not in _OF_RUN and value not in (None, ())}
    if "phase" in given:
        given["phase"] = int(given["phase"])
    if "questions" in given:
        given["questions"] = given["questions"].expanduser().absolute()
    try:
        return ForgeSettings.model_validate(values | given)
    except ValidationError as e:
        first = e.errors()[0]
        option = str(first["loc"][0]).replace("_", "-").removesuffix("s" if first["loc"][0] == "topics" else "")
        raise ConfigError(f"--{option} is {first['input']!r}; {first['msg'].replace('Input', 'it')}") from None


def _store(given: str | None, settings: "Settings", teacher: str) -> str:
    """As `ask` chooses: the named store, the user's own, or for nano the bundled notes."""
    from preflexor_agents.settings import default_store
    from preflexor_agents.store.bundled import NAME

    if given == NAME:
        return NAME
    if settings.store.exists() or settings.store != default_store():
        return str(settings.store)
    if teacher == "nano":
        return NAME
    raise ConfigError(
        "there is no knowledge store to make rows from; make one: preflexor ingest PATH…, or use the bundled notes: "
        "--store bundled"
    )


def _plain(order: "Order", report: "Report") -> dict[str, Any]:
    """The report for programs."""
    tally, spending = report.tally, report.spending
    return {
        "folder": str(report.folder),
        "run": report.run,
        "stopped": report.stopped,
        "rows": tally.done,
        "wanted": tally.total,
        "kept": tally.kept,
        "dropped": dict(tally.dropped),
        "failed": dict(tally.failed),
        "calls": {"made": spending.paid, "cached": spending.cached, "failed_tries": dict(spending.failures)},
        "usage": asdict(spending.usage),
        "seconds": round(report.seconds, 3),
        "models": dict(order.models),
        "store": order.store,
        "notes": list(report.notes),
    }


def _say(order: "Order", report: "Report") -> None:
    from preflexor_agents.cli.show import inert
    from preflexor_training.forge.table import facts

    for name, value in facts(report.tally, report.spending, seconds=report.seconds):
        click.echo(f"{name:<12}{inert(value)}")
    click.echo(f"{STOPS[report.stopped]}: {report.folder}")
    refused = sum(count for kind, count in report.tally.dropped.items() if "question" in kind)
    if not report.tally.kept and refused and order.models["teacher"] == "nano":
        click.echo(
            "nano cannot write questions; give it some by --questions, or name a teacher, as ollama:qwen3:4b", err=True
        )


@contextmanager
def watched() -> "Iterator[Watch]":
    """What shows the progress on standard error: a table on a terminal, else a line now and then."""
    from preflexor_agents.cli.progress import now_and_then
    from preflexor_training.forge.table import line, table

    began = time.monotonic()
    if not sys.stderr.isatty():
        is_due = now_and_then(began)

        def tell(tally: "Tally", spending: "Spending") -> None:
            moment = time.monotonic()
            if is_due(moment):
                click.echo(line(tally, spending, seconds=moment - began), err=True)

        yield tell
        return
    from rich.console import Console
    from rich.live import Live

    state: list[tuple[Tally, Spending]] = []

    def drawn() -> Any:
        return table(*state[-1], seconds=time.monotonic() - began) if state else ""

    with Live(console=Console(stderr=True), get_renderable=drawn, transient=True, refresh_per_second=4):
        yield lambda tally, spending: state.append((tally, spending)) if not state else None
