"""`preflexor trace`: look at a run again, without a model."""

import io
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from preflexor_agents.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from preflexor_agents.trace import Timed


@click.group(short_help="Look at a run again: show, replay, export.")
def command() -> None:
    """Traces hold a run whole; no model is loaded to look at one."""


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
def show(*, file: Path) -> None:
    """Print the answer, the decision of each round and the citations."""
    from rich.console import Console
    from rich.text import Text

    from preflexor_agents.cli.show import inert, show_answer
    from preflexor_agents.events import Cited, RunFinished
    from preflexor_agents.report import report

    timed = _read(file)
    result = report(t.event for t in timed)
    out = Console(highlight=False)
    out.print(Text(inert(result["question"]), style="bold"))
    for r in result["rounds"]:
        verdict = "taken" if r["accepted"] else "kept the answer before"
        out.print(Text(f"round {r['round']}: {verdict}, {inert(r['reason'])}"), soft_wrap=True)
    cited = next((t.event for t in reversed(timed) if isinstance(t.event, Cited)), None)
    last = timed[-1].event
    end = last if isinstance(last, RunFinished) else RunFinished(answer="", stop_reason="cancelled")
    show_answer(out, end, cited)
    usage = result["usage"]
    ending = end.stop_reason if end is last else "the trace ends before the run did"
    out.print(Text(f"\n{ending} · {usage['calls']} calls · {usage['generated']} tokens written", style="dim"))


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--speed", type=click.FloatRange(min=0), default=0.0, help="1 is real time, 10 ten times as fast, 0 at once."
)
def replay(*, file: Path, speed: float) -> None:
    """Print the run as it was shown when it happened."""
    from rich.console import Console

    _play(_read(file), Console(highlight=False), speed=speed)


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["json", "markdown", "html", "svg"]),
    default="json",
    help="json: as ask --json; html: one file without scripts; svg: a picture of the terminal.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Where to write. Default: standard output.")
def export(*, file: Path, kind: str, out: Path | None) -> None:
    """Write the run as one JSON object, as Markdown, as HTML, or as a picture of the terminal."""
    text = _written(_read(file), kind)
    if out is None:
        click.echo(text, nl=False)
        return
    if out.exists():
        raise InputError(f"{out} exists already; name another file or remove it")
    partial = out.with_name(out.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(out)
    except OSError as e:
        raise InputError(f"can not write {out}: {e.strerror}; name a writable place") from None


def _written(timed: "list[Timed]", kind: str) -> str:
    from preflexor_agents.report import as_markdown, report

    result = report(t.event for t in timed)
    match kind:
        case "json":
            return json.dumps(result, ensure_ascii=False, indent=2) + "\n"
        case "markdown":
            return as_markdown(result)
        case "html":
            from preflexor_agents.report_html import as_html

            return as_html(result)
    return _picture(timed)


def _play(timed: "list[Timed]", out: "Console", *, speed: float) -> None:
    from preflexor_agents.cli.show import Printer, show_answer
    from preflexor_agents.events import Cited, RunFinished

    printer = Printer(out)
    cited: Cited | None = None
    before = 0.0
    for t_s, event in timed:
        if speed:
            time.sleep(max(0.0, t_s - before) / speed)
        before = t_s
        printer.show(event)
        if isinstance(event, Cited):
            cited = event
        if isinstance(event, RunFinished):
            show_answer(out, event, cited)


def _picture(timed: "list[Timed]") -> str:
    """The run on a terminal as SVG, with no address of a font server in it."""
    from rich.console import Console

    console = Console(record=True, width=116, file=io.StringIO(), force_terminal=True, highlight=False)
    _play(timed, console, speed=0)
    svg = console.export_svg(title="preflexor ask")
    return re.sub(r"@font-face\s*\{[^}]*\}", "", svg)


def _read(file: Path) -> "list[Timed]":
    from preflexor_agents.trace import read_trace

    timed = list(read_trace(file))
    if not timed:
        raise InputError(f"{file} holds no event")
    return timed
