"""`preflexor chat`: the terminal UI."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from preflexor_agents.cli.options import run_options
from preflexor_agents.errors import InputError


@click.command(short_help="Watch the rounds and take part, in a terminal UI.")
@click.argument("question", required=False, default="")
@run_options
@click.option("--resume", "resumed", is_flag=True, help="Go on with the latest session.")
@click.option("--replay", type=click.Path(path_type=Path), metavar="TRACE", help="Show a trace as it happened.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0),
    default=1.0,
    metavar="X",
    help="Speed of --replay: 1 is real time, 10 ten times as fast, 0 at once.",
)
@click.option("--serve", is_flag=True, help="Show it in a browser on this machine, at an address that works once.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where --serve listens.")
@click.option("--port", type=int, default=8000, show_default=True, help="Port of --serve; 0 takes a free one.")
@click.pass_context
def command(
    ctx: click.Context, /, *, question: str, resumed: bool, replay: Path | None, speed: float, **options: Any
) -> None:
    """Chat with a model that thinks in the open, and take part.

    Every round is a card: thinking, critique, revision, score, and whether it was taken. While a run goes, what you
    type counts from its next round on; esc stops the round and keeps what is written, esc twice stops the run.
    Sessions are kept in the store. QUESTION, if given, is asked at once.
    """
    if importlib.util.find_spec("textual") is None:
        raise InputError("the terminal UI is not installed; install it with: pip install 'preflexor-agents[tui]'")
    from preflexor_agents.settings import load
    from preflexor_tui.cli import Opening, start

    roles, variant = options.pop("roles"), options.pop("variant")
    is_served, host, port = options.pop("serve"), options.pop("host"), options.pop("port")
    opening = Opening(
        settings=load(options),
        roles=tuple(roles),
        variant=variant,
        question=question,
        resumed=resumed,
        replay=replay,
        speed=speed,
    )
    if not is_served:
        start(opening)
        return
    if importlib.util.find_spec("textual_serve") is None:
        raise InputError("serving is not installed; install it with: pip install 'preflexor-agents[tui,web]'")
    from preflexor_tui.cli import make_app
    from preflexor_tui.serve import serve

    make_app(opening)  # what is wrong with the options is said here, not in the browser
    serve([sys.executable, "-m", "preflexor_agents", *_same_call(ctx)], host=host, port=port, say=click.echo)


def _same_call(ctx: click.Context) -> list[str]:
    """The arguments that this was called with, without those of serving."""
    words = ["chat"]
    for param in ctx.command.params:
        name, value = param.name or "", ctx.params[param.name or ""]
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if isinstance(param, click.Option) and given and name not in ("serve", "host", "port"):
            values = value if param.multiple else [value]
            words += [param.opts[0]] if param.is_flag else [f"{param.opts[0]}={one}" for one in values]
    question = ctx.params["question"]
    return [*words, "--", question] if question else words
