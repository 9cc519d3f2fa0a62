"""PDF: the text of each page by PDFium, by pypdf where PDFium cannot read the file or finds nothing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from preflexor_agents.errors import DocumentError
from preflexor_agents.store.reading.pages import Entry, joined, mended
from preflexor_agents.store.reading.parsed import Parsed, iso_date, names, one_line

if TYPE_CHECKING:
    import pypdfium2

_NO_TEXT = "has no text layer; OCR it first, e.g. with: ocrmypdf IN.pdf OUT.pdf"
_ENCRYPTED = "is encrypted; remove the password first, e.g. with: qpdf --decrypt --password=… IN.pdf OUT.pdf"
_MAX_PAGES = 20_000
_MAX_OUTLINE = 5_000
_NO_TITLE = re.compile(
    r"(?:microsoft |powerpoint |untitled|document\d*$|title$|slide \d|(?:table of )?contents$|abstract$)|"
    r"(?:chapter )?\d|.*\.(?:docx?|tex|dvi|pdf|indd|qxd|rtf|p65|ps|odt|"
    r"pages|pptx?|html?)$|[\W\d_]*$|.{0,2}$",
    re.IGNORECASE,
)
_TITLE_CHARS = range(8, 200)
_LARGER = 1.15
"""A title's letters are this many times as large as the page's usual ones."""
_LOOKED_AT_CHARS = 4000
_NOBODY = frozenset({"anonymous", "unknown", "author", "user", "administrator", "admin", "owner"})
_AUTHOR_GAP = re.compile(r"\s*;\s*|\s*,\s*|\s+and\s+|\s*&\s*")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff]")


@dataclass(slots=True)
class _Raw:
    """What a library gives."""

    pages: list[str]
    fields: dict[str, str] = field(default_factory=dict)
    outline: list[Entry] = field(default_factory=list)
    large: str = ""
    """The words in the largest letters of the first page."""


def parse(data: bytes, name: str) -> Parsed:
    """A PDF file."""
    raw = _by_pdfium(data)
    if raw is None or not _says_something(raw.pages):
        raw = _by_pypdf(data) or raw
    return _parsed(raw)


def parse_with_pypdf(data: bytes, name: str) -> Parsed:
    """A PDF file that crashes PDFium."""
    return _parsed(_by_pypdf(data))


def _parsed(raw: _Raw | None) -> Parsed:
    if raw is None:
        raise DocumentError("is no PDF, or a broken one; open it in a viewer and print it to a new PDF")
    if not _says_something(raw.pages):
        raise DocumentError(_NO_TEXT)
    written = joined(raw.pages, raw.outline)
    return Parsed(
        text=written.text,
        headings=written.headings,
        title=_title(raw),
        authors=_authors(raw.fields.get("Author", "")),
        published=iso_date(raw.fields.get("CreationDate")),
        pages=written.pages,
    )


def _says_something(texts: Sequence[str]) -> bool:
    return any(any(c.isalnum() for c in text) for text in texts)


def _by_pdfium(data: bytes) -> _Raw | None:
    """None where PDFium cannot open the file."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise DocumentError(_ENCRYPTED) from error
        return None
    try:
        count = len(document)
        if count > _MAX_PAGES:
            raise DocumentError(f"has {count} pages, more than {_MAX_PAGES}; split it")
        raw = _Raw([], document.get_metadata_dict(skip_empty=True))
        for number in range(count):
            raw.pages.append(_page_text(document, number, raw))
        for entry in document.get_toc(max_depth=6):
            target = entry.get_dest()
            if target is not None and len(raw.outline) < _MAX_OUTLINE:
                raw.outline.append(Entry(entry.level + 1, one_line(entry.get_title()), target.get_index() or 0))
        return raw
    finally:
        document.close()


def _page_text(document: "pypdfium2.PdfDocument", number: int, raw: _Raw) -> str:
    """The page's text; empty where PDFium cannot read the page."""
    import pypdfium2

    try:
        page = document[number]
        text_page = page.get_textpage()
    except pypdfium2.PdfiumError:
        return ""
    text = str(text_page.get_text_range())
    if number == 0:
        raw.large = _largest(text_page)
    text_page.close()
    page.close()
    return text


def _largest(text_page: "pypdfium2.PdfTextPage") -> str:
    """The first run of letters that are clearly larger than the usual ones."""
    import pypdfium2.raw as pdfium

    count = min(text_page.count_chars(), _LOOKED_AT_CHARS)
    sizes = [round(pdfium.FPDFText_GetFontSize(text_page, at), 1) for at in range(count)]
    letters = [chr(pdfium.FPDFText_GetUnicode(text_page, at)) for at in range(count)]
    seen = sorted(size for size, letter in zip(sizes, letters, strict=True) if letter.isalnum())
    if not seen or seen[-1] < _LARGER * seen[len(seen) // 2]:
        return ""
    is_large = [size == seen[-1] or letter.isspace() for size, letter in zip(sizes, letters, strict=True)]
    start = next(at for at in range(count) if letters[at].isalnum() and sizes[at] == seen[-1])
    stop = next((at for at in range(start, count) if not is_large[at]), count)
    return "".join(letters[start:stop])


def _by_pypdf(data: bytes) -> _Raw | None:
    """None where pypdf cannot read the file either."""
    import io

    import pypdf
    from pypdf.errors import PyPdfError

    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentError(_ENCRYPTED)
        fields = {key.lstrip("/"): str(value) for key, value in dict(reader.metadata or {}).items()}
        return _Raw([page.extract_text() for page in reader.pages[:_MAX_PAGES]], fields)
    except (PyPdfError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OSError):
        return None


def _title(raw: _Raw) -> str:
    """The title in the file's metadata, unless a program made it up; else the largest words of the first page."""
    said = one_line(raw.fields.get("Title", ""))
    if not _NO_TITLE.match(said):
        return said
    large = one_line(mended(raw.large))
    is_one = len(large) in _TITLE_CHARS and not _NO_TITLE.match(large) and not _RIGHT_TO_LEFT.search(large)
    return large if is_one else ""


def _authors(said: str) -> tuple[str, ...]:
    """Names in one field: `A; B`, `A and B`, `A B, C D`; `Surname, Given` is one name."""
    said = one_line(said)
    parts = [part for part in _AUTHOR_GAP.split(said) if part]
    if ";" in said:
        parts = said.split(";")
    elif len(parts) == 2 and "," in said and not all(" " in part for part in parts):
        parts = [said]
    return names(part for part in parts if part.strip().lower() not in _NOBODY)
