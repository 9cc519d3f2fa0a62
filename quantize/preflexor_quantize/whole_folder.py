"""A folder that is there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from preflexor_agents.errors import InputError, PreflexorError


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A place to write to; it becomes `folder` when all went well, and nothing is left of it otherwise.

    Raises:
        InputError: there is something at `folder`, or nothing can be made there.
        PreflexorError: the disk failed or is full.
    """
    if os.path.lexists(folder):
        raise InputError(f"{folder} exists already; name another folder, or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    except OSError as e:
        raise InputError(f"{folder} cannot be made: {e.strerror or e}; name a writable place") from None
    try:
        yield work
        work.chmod(0o755)
        os.rename(work, folder)
    except OSError as e:
        raise PreflexorError(f"{folder} could not be written: {e.strerror or e}; make room or name another") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
