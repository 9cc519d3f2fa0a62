"""The trace of a run: one JSON line per event, written as it happens, read back without a model.

First line: `{"format": "preflexor-trace", "version": 1, ...}`; then `{"t": seconds since start, "event": ..., ...}`.
A run that was killed leaves a trace that is whole up to its last complete line.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from preflexor_agents import __version__
from preflexor_agents.errors import TraceError
from preflexor_agents.events import Event, from_json, to_json
from preflexor_agents.events import Timed as Timed

FORMAT, VERSION = "preflexor-trace", 1


class TraceWriter:
    """Appends events to a new trace file; every line is flushed. Close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._began = time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: TextIO = path.open("x", encoding="utf-8")
        except FileExistsError:
            raise TraceError(f"trace file {path} exists already; name another or remove it") from None
        except OSError as e:
            raise TraceError(f"can not write the trace {path}: {e.strerror}; name a writable place") from None
        self._line({"format": FORMAT, "version": VERSION, "preflexor": __version__})

    def write(self, event: Event, *, t_s: float | None = None) -> None:
        """Append one event that happened `t_s` seconds after the run began (default: now).

        Raises:
            TraceError: the disk is full or gone.
        """
        t_s = time.monotonic() - self._began if t_s is None else t_s
        self._line({"t": round(t_s, 4), **to_json(event)})

    def close(self) -> None:
        """End the file."""
        self._file.close()

    def __enter__(self) -> "TraceWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self, data: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(data, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as e:
            raise TraceError(f"the trace {self.path} could not be written further: {e.strerror}") from None


def read_trace(path: Path) -> Iterator[Timed]:
    """The events of a trace file in order.

    A last line that was cut off is left out. Raises TraceError for a file that is missing, no trace, of a newer
    version, or damaged before its last line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise TraceError(f"there is no trace file {path}") from None
    except IsADirectoryError:
        raise TraceError(f"{path} is a folder; name a trace file in it") from None
    except (OSError, UnicodeDecodeError) as e:
        raise TraceError(f"{path} is not readable as a trace: {e}") from None
    _check_header(path, lines[0] if lines else "")
    for number, line in enumerate(lines[1:], 2):
        try:
            data = json.loads(line)
        except ValueError:
            if number == len(lines):
                return
            raise TraceError(f"{path} line {number} is damaged: {line[:60]!r}") from None
        if not isinstance(data, dict):
            raise TraceError(f"{path} line {number} is not an event: {line[:60]!r}")
        t = data.pop("t", 0.0)
        yield Timed(float(t), from_json(data))


def _check_header(path: Path, line: str) -> None:
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise TraceError(f"{path} is not a preflexor trace")
    if header.get("version") != VERSION:
        raise TraceError(f"{path} is a trace of version {header.get('version')}; this program reads version {VERSION}")
