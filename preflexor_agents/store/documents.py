"""Documents on disk: their bytes, and their text, exactly as it will be stored and cited."""

import hashlib
import os
import stat
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from preflexor_agents.errors import DocumentError
from preflexor_agents.store import chunks
from preflexor_agents.store.chunks import Chunk
from preflexor_agents.store.paths import as_text, printable, shown
from preflexor_agents.store.reading import formats, worker
from preflexor_agents.store.reading.finding import open_without_waiting, unreadable
from preflexor_agents.store.reading.formats import Format
from preflexor_agents.store.reading.parsed import LONGEST_NAME, MAX_TEXT_CHARS, Page, Parsed
from preflexor_agents.store.reading.sandbox import Sandbox

MAX_FILE_BYTES = 100_000_000


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
    """Of Markdown, text and code the decoded file without its byte order mark, nothing else changed, line ends
    included; of other formats what their parser made."""
    chunks: tuple[Chunk, ...]
    authors: tuple[str, ...] = ()
    published: str | None = None
    """`YYYY`, `YYYY-MM` or `YYYY-MM-DD`."""
    pages: tuple[Page, ...] = ()
    """In order; empty where the format has none."""

    def page_of(self, chunk: Chunk) -> int | None:
        """Number of the page on which a chunk starts."""
        at = bisect_right(self.pages, chunk.start, key=lambda page: page.start)
        return self.pages[at - 1].number if at else None


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file as it was read, not yet parsed."""

    path: Path
    data: bytes
    sha256: str
    format: Format

    @property
    def source(self) -> str:
        """What names its document in the store."""
        return as_text(self.path)


class Reader:
    """Turns files into documents. Use it as a context manager: it may hold a process that parses for it."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        """One line for each plug-in that is broken."""
        self._sandbox = Sandbox()
        plugged = []
        for entry in formats.plug_ins():
            try:
                plugged.append(self._sandbox.describe(entry))
            except DocumentError as error:
                self.notes.append(str(error))
        self.plugged = frozenset(suffix for form in plugged for suffix in form.suffixes)
        """Suffixes of the formats that plug-ins bring."""
        self._known = formats.by_suffix([*formats.built_in().values(), *plugged])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sandbox.close()

    def open(self, path: Path) -> File:
        """The file's bytes and format.

        Raises:
            DocumentError: it is unreadable, no regular file, too large, or empty.
        """
        data = _bytes(path)
        if not data.strip():
            raise DocumentError(f"{shown(path)} is empty")
        form = formats.of(data, path.suffix.lower(), self._known, plugged=self.plugged)
        return File(path=path, data=data, sha256=hashlib.sha256(data).hexdigest(), format=form)

    def parse(self, file: File) -> Document:
        """The document in a file.

        Raises:
            DocumentError: it is encrypted, broken, without text, in an unknown encoding, or too much for its parser.
        """
        try:
            parsed = self._parsed(file)
            if len(parsed.text) > MAX_TEXT_CHARS:
                raise DocumentError(f"has more than {MAX_TEXT_CHARS} characters of text; split it")
            found = _cut(parsed)
            if not found:
                raise DocumentError("has no text")
        except DocumentError as error:
            raise DocumentError(f"{shown(file.path)} {error}") from error
        return Document(
            source=file.source,
            title=printable(parsed.title or as_text(Path(file.path.stem)))[:LONGEST_NAME],
            sha256=file.sha256,
            parser=file.format.parser,
            encoding=parsed.encoding,
            size_bytes=len(file.data),
            text=parsed.text,
            chunks=tuple(found),
            authors=tuple(printable(author) for author in parsed.authors),
            published=parsed.published,
            pages=parsed.pages,
        )

    def _parsed(self, file: File) -> Parsed:
        name = printable(as_text(Path(file.path.name)))
        if file.format.is_isolated:
            return self._sandbox.parse(file.format, file.data, name)
        return worker.parser(file.format.target)(file.data, name)


def read(path: Path) -> Document:
    """The document in one file; for many, use a `Reader`.

    Raises:
        DocumentError: see `Reader.open` and `Reader.parse`.
    """
    with Reader() as reader:
        return reader.parse(reader.open(path))


def sha256_on_disk(source: str) -> str | None:
    """The hash of what a stored document's file holds at present; None if it is gone or cannot be read."""
    try:
        return hashlib.sha256(_bytes(Path(source))).hexdigest()
    except DocumentError:
        return None


def _cut(parsed: Parsed) -> list[Chunk]:
    if parsed.headings is None:
        return chunks.text_chunks(parsed.text)
    return chunks.structured_chunks(parsed.text, parsed.headings, start=parsed.body)


def _bytes(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DocumentError(f"{shown(path)} is no regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise DocumentError(f"{shown(path)} has {status.st_size} bytes, more than {MAX_FILE_BYTES}; split it")
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise DocumentError(unreadable(path, error)) from error
