"""Files that are whole or not there, and room for them on the disk."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from preflexor_agents.errors import InputError, PreflexorError

PARTIAL = ".partial"
"""Ends the name of a file that is being written."""
_SPARE_BYTES = 64 << 20
"""Left on the disk, so that nothing else on the machine fails."""


@dataclass(frozen=True, slots=True)
class Written:
    """How far the writing of a file is."""

    what: str
    """In words, as `Q4_K_M`."""
    done_bytes: int
    total_bytes: int
    """As planned; 0 if that is not known."""


Watch = Callable[[Written], None]
"""Takes the progress; called from the thread that waits."""


def ignore(_: Written) -> None:
    """Watch nothing."""


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A name to write to; it becomes `out` when all went well, and nothing is left of it otherwise.

    Raises:
        InputError: the folder cannot be made.
    """
    partial = out.with_name(out.name + PARTIAL)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(f"{out.parent} cannot be made: {e.strerror or e}; give another place") from None
    try:
        yield partial
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def size_of(file: Path) -> int:
    """Bytes of a file; 0 if it is not there."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def check_room(folder: Path, need_bytes: int) -> None:
    """See that the disk has room before anything is written.

    Raises:
        PreflexorError: it does not.
    """
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if need_bytes + _SPARE_BYTES > free:
        raise PreflexorError(
            f"{folder} has {gigabytes(free)} free, {gigabytes(need_bytes + _SPARE_BYTES)} are needed; "
            "free some, or give another folder"
        )


def gigabytes(count: int) -> str:
    """A size in words."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
