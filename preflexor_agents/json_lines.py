"""Files of JSON lines that only grow: a line is there whole or not at all, whatever ends the program."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from preflexor_agents.errors import DiskError, InputError


class Line(NamedTuple):
    """Where a line stands, and what it says."""

    start: int
    """Offset in bytes; likewise `end`."""
    end: int
    data: dict[str, Any]


class Lines:
    """Appends to a file that one process at a time has open. Use it as a context manager or call `close`.

    A last line that was cut off, by a kill or a full disk, is taken away when the file is opened.
    """

    def __init__(self, path: Path, *, durable: bool, take: Callable[[Line], None]) -> None:
        """Open the file, made if there is none.

        Args:
            path: the file.
            durable: wait for each line until the disk has it; else a line outlives the process, but not the power.
            take: is given each line that is there.

        Raises:
            InputError: the file cannot be opened or is damaged, or another process has it.
        """
        self.path = path
        self._durable = durable
        self._size = 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as e:
            raise InputError(f"{path} cannot be written: {e.strerror}; name a folder that can") from None
        try:
            _lock(self._file, path)
            for line in read_lines(path):
                take(line)
                self._size = line.end
            os.ftruncate(self._file, self._size)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, line: str) -> int:
        """Write one line, its end included; returns the offset at which it begins.

        Raises:
            DiskError: the disk is full or gone; the file is as it was.
        """
        left = memoryview(line.encode("utf-8"))
        start, size = self._size, len(left)
        try:
            os.lseek(self._file, start, os.SEEK_SET)
            while left:
                left = left[os.write(self._file, left) :]
            if self._durable:
                os.fsync(self._file)
        except OSError as e:
            os.ftruncate(self._file, start)
            raise DiskError(
                f"{self.path} could not be written further: {e.strerror}; free some space and run the same again, "
                "what was done is kept"
            ) from None
        self._size = start + size
        return start

    def close(self) -> None:
        """Let the file go. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a file in order; none if there is no file. A last line that is not whole is left out.

    Raises:
        InputError: the file cannot be read, or is damaged before its last line.
    """
    start, broken = 0, 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if broken:
                    raise InputError(f"{path} line {broken} is damaged; restore a copy, or name another folder")
                data = _object(line) if line.endswith(b"\n") else None
                if data is None:
                    broken = number
                    continue
                yield Line(start, start + len(line), data)
                start += len(line)
    except FileNotFoundError:
        return
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}; make it readable") from None


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _lock(file: int, path: Path) -> None:
    """Held as long as the file is open; a killed process lets it go. Windows refuses less."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(f"another process writes to {path}; wait for it, or name another folder") from None
