"""How many sequences to advance in one step: timed once for each model, build and number of threads, then kept.

A timing that other programs disturbed is used for a minute, and not kept.

The steps are timed behind the prompt that is at hand, since attention to it costs the more the smaller a model is.
Quantised weights on a CPU can get slower when two or four sequences are computed at once, so the widest batch is not
always the fastest.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import platformdirs

CANDIDATES = (1, 2, 4, 8, 16)
"""Widths that are timed."""
ROUNDS = 12
"""Most steps of each width; a busy moment then hits all widths alike."""
WORTH = 1.1
"""How many times the tokens a second of single steps a wider one must promise: timings are off by some percent."""
AGAIN_S = 60.0
"""How long a timing that was disturbed is used before the next one."""
_MOST_KEPT = 64
"""Timings in the file; the oldest go."""
_LONG_S = 1.0
"""No other round is begun after so long."""
_UNDISTURBED = 0.85
"""Share of the time that the threads must have had a processor; below it, other programs were measured."""
_SCHEME = 2
"""Another number when steps come to be computed in another way."""


@dataclass(frozen=True, slots=True)
class Widths:
    """Seconds of a step by how many tokens it evaluates; empty before they were timed."""

    seconds: Mapping[int, float] = field(default_factory=dict)

    def choose(self, ready: int) -> int:
        """How many of `ready` sequences to advance at once: what makes the most tokens a second."""
        if not self.seconds:
            return ready
        options = [width for width in (*self.seconds, ready) if width <= ready]
        best = max(options, key=lambda width: (width / self.cost(width), -width))
        return best if best / self.cost(best) >= WORTH else 1

    def cost(self, width: int) -> float:
        """Time of a step so wide as a multiple of one of width 1, on a line between those that were timed."""
        above = min((known for known in self.seconds if known >= width), default=None)
        if above is None:
            return float("inf")
        below = max((known for known in self.seconds if known <= width), default=above)
        share = (width - below) / (above - below) if above > below else 0.0
        return (self.seconds[below] + share * (self.seconds[above] - self.seconds[below])) / self.seconds[1]


class Timing(NamedTuple):
    """What came of timing steps."""

    widths: Widths
    undisturbed: bool
    """Whether it is worth being kept."""


def timed(step: Callable[[int], bool], *, threads: int) -> Timing:
    """Time steps; the best of a few each, since other programs only make them slower.

    Args:
        step: does a step of so many tokens; False if it was interrupted, which ends the timing without a result.
        threads: that compute a step, all the time; 0 where a GPU does.
    """
    seconds = dict.fromkeys(CANDIDATES, float("inf"))
    began, computed = time.perf_counter(), time.process_time()
    for _ in range(ROUNDS):
        for width in CANDIDATES:
            start = time.perf_counter()
            if not step(width):
                return Timing(Widths(), undisturbed=False)
            seconds[width] = min(seconds[width], time.perf_counter() - start)
        if time.perf_counter() - began > _LONG_S:
            break
    share = (time.process_time() - computed) / (time.perf_counter() - began)
    return Timing(Widths(seconds), undisturbed=share >= _UNDISTURBED * threads)


def key(path: Path, *, threads: int) -> str:
    """What the timing belongs to."""
    import llama_cpp

    status = path.stat()
    return f"{path.name}/{status.st_size}/{status.st_mtime_ns}/{llama_cpp.__version__}/{threads}/{_SCHEME}"


def recall(name: str) -> Widths:
    """What was timed before; nothing if there is no file or it cannot be read."""
    try:
        data = json.loads(_file().read_text(encoding="utf-8"))
        seconds = {int(width): float(value) for width, value in data[name].items() if float(value) > 0}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Widths()
    return Widths(seconds if 1 in seconds else {})


def remember(name: str, measured: Widths) -> None:
    """Keep a timing for later processes; a cache folder that cannot be written costs time, nothing else."""
    file = _file()
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        data = {}
    others = [item for item in data.items() if item[0] != name] if isinstance(data, dict) else []
    data = dict([*others, (name, measured.seconds)][-_MOST_KEPT:])
    fresh = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(data, indent=1), encoding="utf-8")
        fresh.replace(file)
    except OSError:
        with suppress(OSError):
            fresh.unlink()


def _file() -> Path:
    return Path(platformdirs.user_cache_dir("preflexor", appauthor=False)) / "step-times.json"
