"""Which files an ingest takes: those that are named, those under a folder, those that a pattern fits."""

import os
from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from preflexor_agents.store.paths import printable, shown
from preflexor_agents.store.reading import formats

_XML_SUFFIXES = frozenset({".xml", ".nxml"})
_MADE_FOLDERS = frozenset({"node_modules", "__pycache__", "site-packages"})
"""What programs put there, not people."""
_MAGIC = frozenset("*?[")
_HEAD_BYTES = 4096


def find(paths: Iterable[Path], failed: list[str], *, suffixes: Collection[str] = ()) -> list[Path]:
    """The files to ingest, absolute, in order, each once; what is named but cannot be used adds a line to `failed`.

    Folders are searched for files with a known suffix, hidden names left out, links followed without loops. A file
    that is named itself is taken whatever its suffix. A path that does not exist and holds `*`, `?` or `[` is a
    pattern, `**` in it any number of folders; hidden names do not fit.

    Args:
        paths: Files, folders and patterns.
        failed: Gets the lines.
        suffixes: Of the formats that plug-ins bring.
    """
    known = {*formats.by_suffix(formats.built_in().values()), *suffixes}
    files: dict[Path, None] = {}
    for path in paths:
        try:
            found = list(_under(path, failed, known))
        except (OSError, RuntimeError, ValueError) as error:
            failed.append(unreadable(path, error))
            continue
        if not found:
            failed.append(
                f"{shown(path)} has no documents that can be read; name files or folders of PDF, Word, text and so on"
            )
        files.update(dict.fromkeys(found))
    return list(files)


def unreadable(path: Path, error: OSError | RuntimeError | ValueError) -> str:
    """One line on a file that the system does not give."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{shown(path)} cannot be read: {printable(reason)}"


def _under(path: Path, failed: list[str], known: Collection[str]) -> Iterator[Path]:
    if path.is_dir():
        yield from _walk(path, failed, known)
    elif _MAGIC.isdisjoint(str(path)) or os.path.lexists(path):
        yield path.resolve(strict=True)
    else:
        names_suffix = path.parts[-1] not in ("*", "**")
        for match in _fitting(Path(path.anchor), path.parts[bool(path.anchor) :], set()):
            if match.is_dir():
                if "**" not in path.parts:
                    yield from _walk(match, failed, known)
            elif names_suffix or _is_wanted(match, known):
                yield Path(os.path.realpath(match))


def _walk(folder: Path, failed: list[str], known: Collection[str]) -> Iterator[Path]:
    """The files under a folder in the order of their names; `failed` gets the subfolders that cannot be read."""
    seen: set[tuple[int, int]] = set()
    walk = os.walk(folder, followlinks=True, onerror=lambda e: failed.append(unreadable(Path(e.filename), e)))
    for here, folders, names in walk:
        status = os.stat(here)
        is_known = (status.st_dev, status.st_ino) in seen or (here != str(folder) and _is_made(here))
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [] if is_known else sorted(name for name in folders if not name.startswith("."))
        for name in [] if is_known else sorted(names):
            if not name.startswith(".") and _is_wanted(Path(here, name), known):
                yield Path(os.path.realpath(os.path.join(here, name)))


def _is_made(folder: str) -> bool:
    return os.path.basename(folder) in _MADE_FOLDERS or os.path.exists(os.path.join(folder, "pyvenv.cfg"))


def _is_wanted(path: Path, known: Collection[str]) -> bool:
    """Whether a file that nobody named is a document: XML may be anything, so its beginning is looked at."""
    suffix = path.suffix.lower()
    if suffix not in known:
        return False
    if suffix not in _XML_SUFFIXES:
        return True
    try:
        with open(path, "rb", opener=open_without_waiting) as file:
            return formats.looks_like_jats(file.read(_HEAD_BYTES))
    except OSError:
        return True


def open_without_waiting(path: str, flags: int) -> int:
    """For `open`: a named pipe would keep a plain open waiting for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _fitting(folder: Path, pattern: tuple[str, ...], seen: set[tuple[int, int, int]]) -> Iterator[Path]:
    """Files and folders that fit the pattern, whose first part is looked for in `folder`.

    `seen` holds the folders in which `**` has been tried, by the length of what follows it, so that links end.
    """
    head, rest = pattern[0], pattern[1:]
    if head == "**":
        status = os.stat(folder)
        key = (status.st_dev, status.st_ino, len(rest))
        if key in seen:
            return
        seen.add(key)
        yield from _fitting(folder, rest or ("*",), seen)
        for entry in _entries(folder):
            if entry.is_dir():
                yield from _fitting(Path(folder, entry.name), pattern, seen)
    elif _MAGIC.isdisjoint(head):
        path = folder / head
        if rest and path.is_dir():
            yield from _fitting(path, rest, seen)
        elif not rest and path.exists():
            yield path
    else:
        for entry in _entries(folder):
            if fnmatchcase(entry.name, head):
                if not rest:
                    yield Path(folder, entry.name)
                elif entry.is_dir():
                    yield from _fitting(Path(folder, entry.name), rest, seen)


def _entries(folder: Path) -> "list[os.DirEntry[str]]":
    """What is in a folder, hidden names left out; nothing if it cannot be read."""
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except OSError:
        return []
    return sorted(entries, key=lambda entry: entry.name)
