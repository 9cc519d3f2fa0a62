"""How a training run goes, on standard error: a bar under the lines on a terminal, else lines now and then."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from preflexor_agents.cli.progress import now_and_then
from preflexor_agents.cli.show import inert

if TYPE_CHECKING:
    from preflexor_training.schedule import Watch


@contextmanager
def watching() -> Iterator["Watch"]:
    """What shows a run as long as the context is open."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        yield _Bar(bar)


class _Lines:
    """Plain lines."""

    def __init__(self) -> None:
        self._is_due = now_and_then(time.monotonic())

    def tell(self, line: str) -> None:
        """Every one of them."""
        click.echo(inert(line), err=True)

    def show(self, what: str, *, done: int = 0, total: int = 0, note: str = "") -> None:
        """Now and then."""
        if total and self._is_due(time.monotonic()):
            click.echo(inert(f"{what}: {done} of {total}, {note}"), err=True)


class _Bar:
    """A bar that stays below."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, note="")

    def tell(self, line: str) -> None:
        """Above the bar."""
        self._bar.console.print(inert(line), markup=False, soft_wrap=True)

    def show(self, what: str, *, done: int = 0, total: int = 0, note: str = "") -> None:
        """In the bar."""
        text = f"{done} of {total}, {note}" if total else note
        self._bar.update(self._task, description=inert(what), completed=done, total=total or None, note=inert(text))
