"""File names as text that can be stored and shown, whatever bytes the file system gave."""

import os
from pathlib import Path


def as_text(path: Path) -> str:
    """The path as valid Unicode; bytes that are not UTF-8 become hexadecimal escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def shown(path: Path) -> str:
    """The path on one line."""
    return printable(as_text(path))


def printable(text: str) -> str:
    """The text with line breaks and other unprintable characters escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
