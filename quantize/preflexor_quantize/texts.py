"""Text to calibrate and to measure on: the bundled notes, every other one for each, so that the two never meet."""

from pathlib import Path

import preflexor_agents
from preflexor_agents.errors import InputError

_LIBRARY = Path(preflexor_agents.__file__).parent / "data" / "library"
BUNDLED = "the bundled notes"


def calibration_text(file: Path | None) -> tuple[str, str]:
    """The user's text, or the bundled one, and what to call it.

    Raises:
        InputError: the file cannot be read as text.
    """
    if file is None:
        return _notes(0), BUNDLED
    try:
        return file.read_text(encoding="utf-8"), file.name
    except UnicodeDecodeError:
        raise InputError(f"{file} is no UTF-8 text; give a plain text file to calibrate with") from None
    except OSError as e:
        raise InputError(f"{file} cannot be read: {e.strerror or e}; give a plain text file") from None


def scored_text() -> str:
    """What divergence and perplexity are measured on."""
    return _notes(1)


def _notes(part: int) -> str:
    files = sorted(_LIBRARY.glob("*.md"))[part::2]
    return "\n\n".join(file.read_text(encoding="utf-8").partition("## Sources")[0] for file in files)
