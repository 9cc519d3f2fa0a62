"""Documents on disk: which files an ingest takes, and their text, exactly as it will be stored and cited."""

import codecs
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from preflexor_agents.errors import DocumentError
from preflexor_agents.store import chunks
from preflexor_agents.store.chunks import Chunk
from preflexor_agents.store.paths import as_text, printable, shown

MARKDOWN_SUFFIXES = frozenset({".md", ".markdown", ".mdown", ".mkd"})
TEXT_SUFFIXES = frozenset({".txt", ".text"})
MAX_FILE_BYTES = 100_000_000
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_MAX_CONTROL_SHARE = 0.01
_LONGEST_TITLE = 200
_FRONT_MATTER_TITLE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file's text and how it is cut. `chunks` are spans of `text`."""

    source: str
    title: str
    sha256: str
    """Of the file's bytes."""
    parser: str
    """Name and version of what made text and chunks from the bytes; another one makes the document new."""
    encoding: str
    size_bytes: int
    text: str
    """The decoded file without its byte order mark; nothing else is changed, line ends included."""
    chunks: tuple[Chunk, ...]


def find(paths: Iterable[Path], failed: list[str]) -> list[Path]:
    """The files to ingest, absolute, in order, each once; what is named but cannot be used adds a line to `failed`.

    Folders are searched for Markdown and text files by suffix, hidden names left out, links followed without loops.
    A file that is named itself is taken whatever its suffix.
    """
    files: dict[Path, None] = {}
    for path in paths:
        try:
            found = list(_walk(path, failed)) if path.is_dir() else [path.resolve(strict=True)]
        except (OSError, RuntimeError, ValueError) as error:
            failed.append(_unreadable(path, error))
            continue
        if not found:
            failed.append(f"{shown(path)} has no Markdown or text files")
        files.update(dict.fromkeys(found))
    return list(files)


def _walk(folder: Path, failed: list[str]) -> Iterator[Path]:
    """The files under a folder in the order of their names; `failed` gets the subfolders that cannot be read."""
    seen: set[tuple[int, int]] = set()
    walk = os.walk(folder, followlinks=True, onerror=lambda e: failed.append(_unreadable(Path(e.filename), e)))
    for here, folders, names in walk:
        status = os.stat(here)
        known = (status.st_dev, status.st_ino) in seen
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [] if known else sorted(name for name in folders if not name.startswith("."))
        for name in [] if known else sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in MARKDOWN_SUFFIXES | TEXT_SUFFIXES:
                yield Path(os.path.realpath(os.path.join(here, name)))


def read(path: Path) -> Document:
    """The document in a file.

    Raises:
        DocumentError: it is unreadable, no regular file, too large, binary, in an unknown encoding, or empty.
    """
    data = _bytes(path)
    if not data.strip():
        raise DocumentError(f"{shown(path)} is empty")
    text, encoding = _decoded(data, path)
    is_markdown = path.suffix.lower() in MARKDOWN_SUFFIXES
    found = chunks.markdown_chunks(text) if is_markdown else chunks.text_chunks(text)
    if not found:
        raise DocumentError(f"{shown(path)} has no text")
    title = (_markdown_title(text) if is_markdown else "") or as_text(Path(path.stem))
    return Document(
        source=as_text(path),
        title=printable(title)[:_LONGEST_TITLE],
        sha256=hashlib.sha256(data).hexdigest(),
        parser=f"{'markdown' if is_markdown else 'text'}/{chunks.VERSION}",
        encoding=encoding,
        size_bytes=len(data),
        text=text,
        chunks=tuple(found),
    )


def sha256_on_disk(source: str) -> str | None:
    """The hash of what a stored document's file holds at present; None if it is gone or cannot be read."""
    try:
        return hashlib.sha256(_bytes(Path(source))).hexdigest()
    except DocumentError:
        return None


def _bytes(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DocumentError(f"{shown(path)} is no regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise DocumentError(f"{shown(path)} has {status.st_size} bytes, more than {MAX_FILE_BYTES}; split it")
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise DocumentError(_unreadable(path, error)) from error


def _open_without_waiting(path: str, flags: int) -> int:
    """A named pipe would keep a plain open waiting for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _decoded(data: bytes, path: Path) -> tuple[str, str]:
    """The text and its encoding: what the byte order mark says, else UTF-8, else Windows-1252."""
    encoding, mark = next(((name, mark) for mark, name in _BOMS if data.startswith(mark)), ("utf-8", b""))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        encoding = "cp1252"
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            raise DocumentError(f"{shown(path)} is neither UTF-8 nor Windows-1252 text; convert it to UTF-8") from None
    controls = len(_CONTROL.findall(text))
    allowed = 0 if encoding == "cp1252" else 1 + int(len(text) * _MAX_CONTROL_SHARE)
    if "\0" in text or controls > allowed:
        raise DocumentError(f"{shown(path)} is binary, no Markdown or text")
    return text, encoding


def _markdown_title(text: str) -> str:
    """The first heading of level 1, else the title in the front matter."""
    for heading in chunks.headings(text):
        if heading.level == 1 and heading.text:
            return heading.text
    match = _FRONT_MATTER_TITLE.search(text, 0, chunks.body_start(text))
    return match[1].strip("\"'") if match else ""


def _unreadable(path: Path, error: OSError | RuntimeError | ValueError) -> str:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{shown(path)} cannot be read: {printable(reason)}"
