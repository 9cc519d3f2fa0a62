"""What llama.cpp says while it works: its plans and its reasons go to a log and nowhere else."""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import llama_cpp

_WARNING, _ERROR, _CONTINUED = 3, 4, 5


class Line(NamedTuple):
    """A line of the log."""

    level: int
    text: str


@contextmanager
def log_lines() -> Iterator[list[Line]]:
    """Collect the log of what runs inside; afterwards the log goes where it went before."""
    lines: list[Line] = []

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def keep(level: int, text: bytes, _: object) -> None:
        piece = text.decode("utf-8", errors="replace")
        if lines and not lines[-1].text.endswith("\n"):
            level = lines[-1].level if level == _CONTINUED else level
            lines[-1] = Line(max(level, lines[-1].level), lines[-1].text + piece)
            return
        lines.append(Line(level, piece))

    before, data = llama_cpp.llama_log_callback(), ctypes.c_void_p()
    llama_cpp.llama_log_get(ctypes.byref(before), ctypes.byref(data))
    llama_cpp.llama_log_set(keep, None)
    try:
        llama_cpp.llama_backend_init()
        yield lines
    finally:
        llama_cpp.llama_log_set(before, data)


def reason(lines: Sequence[Line]) -> str:
    """The first error in the log as one line, else the last warning."""
    errors = [line for line in lines if line.level == _ERROR]
    chosen = errors[:1] or [line for line in lines if line.level == _WARNING][-1:]
    words = " ".join(chosen[0].text.replace("=", " ").split()) if chosen else "it gave no reason"
    return words.split("error loading model: ")[-1].removeprefix("ERROR: ")[:300]
