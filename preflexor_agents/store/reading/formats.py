"""Which format a file has: by its suffix, else by what it begins with; and the formats that plug-ins bring."""

import io
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from preflexor_agents.store import chunks
from preflexor_agents.store.reading.code import SUFFIXES as CODE_SUFFIXES

GROUP = "preflexor.formats"
"""Entry points of plug-ins."""
TIMEOUT_S = 120.0
MEMORY_BYTES = 2 << 30
_HEAD_BYTES = 4096
_HTML = re.compile(
    rb"\s*(?:<\?xml[^>]*\?>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
_JATS = re.compile(rb"<!doctype\s+article\b|<article[\s>]", re.IGNORECASE)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PACKAGES = __package__


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A kind of file, and the function that parses it."""

    name: str
    suffixes: frozenset[str]
    """In lower case, with their dots."""
    version: str
    """Another one makes every document of this format new."""
    target: str
    """`module:attribute`: a function of bytes and a file's name that returns a `Parsed`, or an object with one."""
    fallback: str = ""
    """Another target, for files that crash the first."""
    is_isolated: bool = True
    """Whether it is parsed in a process of its own, with limits."""
    timeout_s: float = TIMEOUT_S
    memory_bytes: int = MEMORY_BYTES
    """Most address space of that process."""

    @property
    def parser(self) -> str:
        """Name and version of all that makes text and chunks from the bytes."""
        return f"{self.name}/{self.version}.{chunks.VERSION}"


def _format(
    name: str, version: int, suffixes: Iterable[str], *, packages: Sequence[str] = (), function: str = "parse"
) -> Format:
    module = "markdown" if name == "text" else name
    libraries = "".join(f" {package}-{metadata.version(package)}" for package in packages)
    return Format(
        name=name,
        suffixes=frozenset(suffixes),
        version=f"{version}{libraries}",
        target=f"{_PACKAGES}.{module}:{function}",
        fallback=f"{_PACKAGES}.pdf:parse_with_pypdf" if name == "pdf" else "",
        is_isolated=name not in ("markdown", "text", "code"),
    )


@cache
def built_in() -> dict[str, Format]:
    """The formats of this package by name."""
    found = (
        _format("markdown", 2, (".md", ".markdown", ".mdown", ".mkd")),
        _format("text", 1, (".txt", ".text"), function="parse_text"),
        _format("html", 1, (".html", ".htm", ".xhtml"), packages=["selectolax"]),
        _format("pdf", 1, (".pdf",), packages=["pypdfium2", "pypdf"]),
        _format("docx", 1, (".docx", ".docm"), packages=["mammoth", "selectolax"]),
        _format("epub", 1, (".epub",), packages=["selectolax"]),
        _format("jats", 1, (".xml", ".nxml")),
        _format("code", 1, CODE_SUFFIXES),
    )
    return {form.name: form for form in found}


def plug_ins() -> list[metadata.EntryPoint]:
    """The entry points that other packages declare, by name."""
    return sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name)


def by_suffix(found: Iterable[Format]) -> dict[str, Format]:
    """The format of each suffix; a later one takes it from an earlier one."""
    return {suffix: form for form in found for suffix in form.suffixes}


def of(data: bytes, suffix: str, known: dict[str, Format], *, plugged: frozenset[str] = frozenset()) -> Format:
    """The format of a file.

    Args:
        data: Its bytes.
        suffix: Of its name, in lower case.
        known: Formats by suffix.
        plugged: Suffixes that plug-ins claim; for them the suffix decides.
    """
    formats = built_in()
    if suffix in plugged:
        return known[suffix]
    head = data[:_HEAD_BYTES]
    if head.lstrip().startswith(b"%PDF-"):
        return formats["pdf"]
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return formats["epub" if _is_epub(data) else "docx"]
    if head.startswith(_OLE):
        return formats["docx"]
    if suffix in known:
        return known[suffix]
    if _HTML.match(head):
        return formats["html"]
    if looks_like_jats(head):
        return formats["jats"]
    return formats["text"]


def looks_like_jats(head: bytes) -> bool:
    """Whether a file that begins like this is an article in JATS."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and bool(_JATS.search(head)) and not _HTML.match(head)


def _is_epub(data: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return b"application/epub+zip" in data[:200]
    return "mimetype" in names and "word/document.xml" not in names
