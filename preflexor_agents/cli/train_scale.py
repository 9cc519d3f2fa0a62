"""`preflexor train` in several processes: starting them, and what each of them does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from preflexor_agents.cli.show import inert
from preflexor_agents.errors import InputError

if TYPE_CHECKING:
    from preflexor_training.phases import BackendName, OpenLearner

LAUNCHES = ("cpu_gloo", "deepspeed_zero2", "deepspeed_zero3", "fsdp2", "multi_gpu")
"""The files of preflexor_training/scale/configs."""
_OURS = ("launch", "process_count")


@contextmanager
def opening(ctx: click.Context, backend: str | None) -> Iterator[Callable[["BackendName"], "OpenLearner"]]:
    """What opens a phase's model, in all processes if a launcher started several.

    Only the first of them gets here; the others do what it tells them and end.

    Raises:
        InputError: several processes with a backend that trains in one.
    """
    from preflexor_training import phases
    from preflexor_training.scale import crew

    count = crew.processes()
    if count == 1:
        yield phases.opener
        return
    if crew.rank():
        if backend == "mlx":
            ctx.exit(2)
        from preflexor_training.scale.learner import follow

        with crew.following() as found:
            follow(found)
        ctx.exit(0)

    def several(name: "BackendName") -> "OpenLearner":
        if name == "mlx":
            raise InputError(f"--backend mlx trains in one process and was started in {count}; start it without them")
        from preflexor_training.scale.learner import opener

        return opener(found)

    if backend == "mlx":
        several("mlx")
    with crew.leading(_failed) as found:
        yield several


def launched(ctx: click.Context, name: str, *, processes: int | None) -> int:
    """Run this command again in several processes; returns the exit code."""
    from preflexor_training.scale.launching import launch

    return launch(name, _words(ctx), processes=processes)


def _words(ctx: click.Context) -> list[str]:
    """The command as it was given, without what starts processes."""
    words = ["--debug"] if ctx.find_root().params.get("debug") else []
    words += ["train", "run"]
    for parameter in ctx.command.params:
        value = ctx.params[parameter.name or ""]
        if parameter.name in _OURS or value in (None, False, ()):
            continue
        if isinstance(parameter, click.Argument):
            words += [str(value)]
        elif value is True:
            words += [parameter.opts[0]]
        else:
            for one in value if isinstance(value, tuple) else (value,):
                words += [parameter.opts[0], str(one)]
    return words


def _failed(line: str) -> None:
    click.echo(f"preflexor: {inert(line)}; go on with --resume", err=True)
