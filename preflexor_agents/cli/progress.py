"""How far a long piece of work is: a bar on a terminal, now and then a line elsewhere; always on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

LINE_EVERY_S = 5.0
"""Without a terminal, progress is a line at most this often."""


@contextmanager
def counting(total: int | None, things: str) -> Iterator[Callable[[int], None]]:
    """What is told how many of `total` things are done; None if the total is not known."""
    if sys.stderr.isatty():
        with _bar(total, things) as tell:
            yield tell
    else:
        yield _lines(total, things)


@contextmanager
def _bar(total: int | None, things: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    began = time.monotonic()
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        task = bar.add_task("", total=total, rate=things)

        def tell(done: int) -> None:
            rate = done / max(time.monotonic() - began, 1e-3)
            bar.update(task, completed=done, rate=f"{things}, {rate:.2g}/s")

        yield tell


def now_and_then(began: float) -> Callable[[float], bool]:
    """What says whether a line is due at a moment of `time.monotonic`; the first is, LINE_EVERY_S after `began`."""
    last = began

    def is_due(moment: float) -> bool:
        nonlocal last
        if moment - last < LINE_EVERY_S:
            return False
        last = moment
        return True

    return is_due


def _lines(total: int | None, things: str) -> Callable[[int], None]:
    began = time.monotonic()
    is_due = now_and_then(began)

    def tell(done: int) -> None:
        now = time.monotonic()
        if not done or not is_due(now):
            return
        rate = done / (now - began)
        left = f", about {(total - done) / rate:.0f} s left" if total else ""
        click.echo(f"{done} of {total or '?'} {things}, {rate:.2g}/s{left}", err=True)

    return tell
