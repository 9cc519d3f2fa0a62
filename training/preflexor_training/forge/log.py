"""The pair log of a run: one line for each row, in order of their numbers, never changed again."""

import threading
from collections.abc import Callable
from pathlib import Path

from preflexor_agents.errors import InputError
from preflexor_agents.json_lines import Line, Lines
from preflexor_agents.preference_rows import LOG
from preflexor_training.forge.cache import sha256_of
from preflexor_training.forge.records import Row, from_json, to_line


class PairLog:
    """Appends rows to the log of a folder. A row that was added is on the disk. Close it at the end."""

    def __init__(self, folder: Path, *, run: str, take: Callable[[Row], None]) -> None:
        """Open the log; a last line that was cut off is taken away, and its row made again.

        Args:
            folder: of the run.
            run: id of the run; the log of another one is refused.
            take: is given each row that is there.

        Raises:
            InputError: the log is damaged, is of another run, or another process writes to it.
        """
        self.next = 0
        """Number of the next row."""
        self._run = run
        self._lock = threading.Lock()
        self._take = take
        self.path = folder / LOG
        self._lines = Lines(self.path, durable=True, take=self._known)

    def append(self, row: Row) -> None:
        """Add the next row. Raises DiskError: the disk is full; the log is as it was."""
        with self._lock:
            if row.number != self.next:
                raise ValueError(f"row {row.number} is not the next, {self.next}")
            self._lines.append(to_line(row))
            self.next += 1

    def close(self) -> None:
        """Let the file go, once the row is written that is being written. Idempotent."""
        with self._lock:
            self._lines.close()

    def _known(self, line: Line) -> None:
        row = from_json(line.data, where=f"line {self.next + 1} of {self.path}")
        if (row.number, row.id) != (self.next, row_id(self._run, self.next)):
            raise InputError(f"line {self.next + 1} of {self.path} is no row of this run; name another folder by --out")
        self.next += 1
        self._take(row)


def row_id(run: str, number: int) -> str:
    """The id of a row: the same however often the run was interrupted."""
    return sha256_of([run, number])
