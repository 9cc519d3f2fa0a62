"""How far a long piece of work is, on standard error: a bar on a terminal, else a plain line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from preflexor_agents.cli.progress import now_and_then

Show = Callable[[str, int, int], None]
"""Takes what is done, in words, and how much of how much: bytes, or steps where the total is below a thousand."""


@contextmanager
def bytes_bar() -> Iterator[Show]:
    """What shows the progress as long as the context is open, with rate and time left."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        task, what, began = bar.add_task("", total=None, amount=""), "", time.monotonic()

        def show(now: str, done: int, total: int) -> None:
            nonlocal what, began
            if now != what:
                what, began = now, time.monotonic()
                bar.reset(task, total=total or None, description=what)
            amount = _amount(done, total, time.monotonic() - began)
            bar.update(task, completed=done, total=total or None, amount=amount)

        yield show


def _lines() -> Show:
    what, began = "", time.monotonic()
    is_due = now_and_then(began)

    def show(now: str, done: int, total: int) -> None:
        nonlocal what, began
        moment = time.monotonic()
        if now != what:
            what, began = now, moment
        if not is_due(moment):
            return
        rate = done / max(moment - began, 1e-3)
        left = f", about {max(total - done, 0) / rate:.0f} s left" if rate and total else ""
        click.echo(f"{what}: {_amount(done, total, moment - began)}{left}", err=True)

    return show


def _amount(done: int, total: int, seconds: float) -> str:
    if 0 < total < 1000:
        return f"{done} of {total}"
    of = f" of {total / 1e6:.1f}" if total else ""
    return f"{done / 1e6:.1f}{of} MB, {done / 1e6 / max(seconds, 1e-3):.1f} MB/s"
