"""Keeps the pauses of the garbage collector too short to be felt at a key while a model writes.

Looking at the whole program takes it 150 ms, once a second. In a run it looks only at what is made in the run's step,
and at all of that only between two pictures, not in the middle of one.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

COLLECT_S = 1.0
"""How often everything that a step has made is looked at."""
NEVER = 1_000_000


@contextmanager
def short_pauses() -> Iterator[None]:
    """Hold the collector's long look back until the end."""
    before = gc.get_threshold()
    gc.set_threshold(before[0], before[1], NEVER)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def leave_out_what_there_is() -> None:
    """Look no more at what there is, until the end of `short_pauses`."""
    gc.freeze()


def collect(since: float) -> float:
    """Collect garbage if the last time, `since`, is long ago; returns when that was done last, by `time.monotonic`."""
    if time.monotonic() - since < COLLECT_S:
        return since
    gc.collect()
    return time.monotonic()
