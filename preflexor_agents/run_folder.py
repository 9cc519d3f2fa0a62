"""Reads the folder of a training run while the run is writing it.

A run folder holds `config.toml` (the recipe as resolved), `metrics.jsonl` (one line per logged step) and
`samples.jsonl` (texts the model wrote). Files may be missing, grow, end in half a line, or begin anew.
"""

import json
import math
import os
import tomllib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from preflexor_agents.errors import InputError

METRICS, SAMPLES, CONFIG = "metrics.jsonl", "samples.jsonl", "config.toml"
FIRST = ("loss", "margin", "accuracy", "masked_fraction", "tokens_per_s", "lr")
"""Series in the order in which they matter; others follow by name."""
MOST_POINTS = 20_000
"""Of one run in memory; beyond it every second one is dropped, as no screen has so many columns."""
MOST_SAMPLES = 500
_NOT_SERIES = ("step", "round", "phase", "t_s")
_MOST_BYTES = 8_000_000
"""Read at one time from one file, so that a long run opens in steps."""


class Point(NamedTuple):
    """One line of metrics.jsonl."""

    step: int
    round: int | None
    t_s: float | None
    """Seconds since the run began."""
    values: Mapping[str, float]
    """Every other number of the line."""


class Sample(NamedTuple):
    """One line of samples.jsonl: what the model wrote when it was asked."""

    round: int
    step: int
    prompt: str
    text: str


@dataclass(slots=True)
class Tail:
    """Follows a file of JSON lines."""

    path: Path
    offset: int = 0
    lines: int = 0
    bad: int = 0
    """Lines so far that were no JSON object."""
    more: bool = False
    """Whether the last read stopped before the end of the file."""
    _inode: int = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """The objects that were written since the last read. Raises InputError if the file cannot be read.

        The file begins anew when it is another one or shorter than what was read; then `offset` is 0 first.
        """
        self.more = False
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self.offset:
                    self.offset, self.lines, self.bad, self._inode = 0, 0, 0, status.st_ino
                file.seek(self.offset)
                data = file.read(_MOST_BYTES)
                self.more = self.offset + len(data) < status.st_size
        except FileNotFoundError:
            return
        except OSError as e:
            raise InputError(f"{self.path} cannot be read: {e.strerror}; make it readable") from None
        whole = data.rfind(b"\n") + 1
        if not whole and len(data) == _MOST_BYTES:
            raise InputError(f"{self.path} has a line of more than {_MOST_BYTES} bytes; it is no file of JSON lines")
        for line in data[:whole].splitlines():
            self.lines += 1
            found = _object(line)
            if found is not None:
                yield found
            elif line.strip():
                self.bad += 1
        self.offset += whole


@dataclass(slots=True)
class RunFolder:
    """A run as far as it was read; `refresh` reads on."""

    path: Path
    config: str = ""
    """The text of config.toml."""
    points: list[Point] = field(default_factory=list)
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=MOST_SAMPLES))
    problems: tuple[str, ...] = ()
    """One line for each thing that could not be read."""
    more: bool = False
    """Whether there is more to read at once."""
    _metrics: Tail = field(init=False)
    _samples: Tail = field(init=False)
    _stride: int = 1
    _seen: int = 0

    def __post_init__(self) -> None:
        self._metrics = Tail(self.path / METRICS)
        self._samples = Tail(self.path / SAMPLES)

    def refresh(self) -> bool:
        """Read what is new; whether anything was. Raises InputError: the folder is gone or cannot be read."""
        if not self.path.is_dir():
            raise InputError(f"{self.path} is no folder; name the folder of a training run")
        before = (self._metrics.offset, self._samples.offset, self._metrics._inode, self.config)
        for line in self._metrics.read():
            if self._metrics.lines == 1:
                self.points.clear()
                self._stride = self._seen = 1
            self._take(line)
        for line in self._samples.read():
            if self._samples.lines == 1:
                self.samples.clear()
            sample = _sample(line)
            if sample is not None:
                self.samples.append(sample)
        config_problem = self._read_config()
        self.more = self._metrics.more or self._samples.more
        self.problems = tuple(
            f"{tail.path.name}: {tail.bad} of {tail.lines} lines are no JSON objects, left out"
            for tail in (self._metrics, self._samples)
            if tail.bad
        ) + ((config_problem,) if config_problem else ())
        return before != (self._metrics.offset, self._samples.offset, self._metrics._inode, self.config)

    def names(self) -> list[str]:
        """The series that the run has, those that matter most first."""
        found = {name for point in self.points[-200:] for name in point.values}
        found |= {name for point in self.points[:200] for name in point.values}
        return [name for name in FIRST if name in found] + sorted(found - set(FIRST))

    def series(self, name: str) -> list[tuple[float, float]]:
        """Step and value where the series has one; a value that is not finite is kept, as a gap."""
        return [(float(point.step), point.values[name]) for point in self.points if name in point.values]

    def _take(self, line: Mapping[str, Any]) -> None:
        point = _point(line)
        if point is None:
            self._metrics.bad += 1
            return
        self._seen += 1
        if self._seen % self._stride == 0 or not self.points:
            self.points.append(point)
        else:
            self.points[-1] = point
        if len(self.points) > MOST_POINTS:
            self.points = self.points[1::2]
            self._stride *= 2

    def _read_config(self) -> str:
        try:
            text = (self.path / CONFIG).read_text(encoding="utf-8")
            self.config = text
            tomllib.loads(text)
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, RecursionError) as e:
            return f"{CONFIG}: {' '.join(str(e).split())}"
        return ""


def runs_folder() -> Path:
    """Where training runs lie unless something else is said."""
    return Path(platformdirs.user_data_dir("preflexor", appauthor=False)) / "runs"


def find_runs(folder: Path) -> list[Path]:
    """The run folders in a folder, and the folder itself if it is one; the newest first."""
    try:
        inside = [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []
    found = [(mtime, path) for path in (folder, *inside) if (mtime := _written(path)) is not None]
    return [path for _, path in sorted(found, reverse=True)]


def described(points: list[tuple[float, float]]) -> str:
    """A series in words, for those who do not see the plot."""
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    if not finite:
        return "no values yet" if not points else "no finite value"
    first, last = finite[0], finite[-1]
    low, high = min(finite, key=lambda p: p[1]), max(finite, key=lambda p: p[1])
    lost = len(points) - len(finite)
    return (
        f"{shown(first[1])} → {shown(last[1])} over steps {first[0]:.0f}-{last[0]:.0f}; "
        f"lowest {shown(low[1])} at {low[0]:.0f}, highest {shown(high[1])} at {high[0]:.0f}"
        + (f"; {lost} not finite" if lost else "")
    )


def shown(value: float) -> str:
    """A number in few characters."""
    if value == 0 or 0.001 <= abs(value) < 10_000:
        return f"{value:.4g}"
    return f"{value:.2e}"


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _point(line: Mapping[str, Any]) -> Point | None:
    step = _number(line.get("step"))
    if step is None or not math.isfinite(step):
        return None
    numbers = {key: number for key, value in line.items() if (number := _number(value)) is not None}
    round_ = numbers.get("round")
    return Point(
        step=int(step),
        round=int(round_) if round_ is not None and math.isfinite(round_) else None,
        t_s=numbers.get("t_s"),
        values={key: value for key, value in numbers.items() if key not in _NOT_SERIES},
    )


def _sample(line: Mapping[str, Any]) -> Sample | None:
    prompt, text = line.get("prompt"), line.get("text")
    if not isinstance(prompt, str) or not isinstance(text, str):
        return None
    numbers = [_number(line.get(key)) for key in ("round", "step")]
    round_, step = (int(n) if n is not None and math.isfinite(n) else 0 for n in numbers)
    return Sample(round_, step, prompt, text)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _written(folder: Path) -> float | None:
    try:
        return (folder / METRICS).stat().st_mtime
    except OSError:
        return None
