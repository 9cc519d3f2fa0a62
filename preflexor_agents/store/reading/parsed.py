"""What a format makes of a file's bytes, and how that travels between processes as JSON."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from preflexor_agents.store.chunks import Heading

MAX_TEXT_CHARS = 50_000_000
"""Most characters of one document."""
MOST_AUTHORS = 1000
LONGEST_NAME = 200
_UNSTORABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_DATE = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?(?!\d)")
_PDF_DATE = re.compile(r"(?:D:)?(\d{4})(\d{2})?(\d{2})?")


class Page(NamedTuple):
    """A page and where its text lies in the document's: half-open range of characters."""

    number: int
    """From 1 on."""
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A file's text and what is known about it."""

    text: str
    """What is stored and cited; all offsets count its characters."""
    headings: tuple[Heading, ...] | None = None
    """Where the text is to be cut and what its parts are about; None for text without structure."""
    body: int = 0
    """Where that begins which is to be cut into chunks."""
    title: str = ""
    """Empty: the file's name will do."""
    authors: tuple[str, ...] = ()
    published: str | None = None
    """`YYYY`, `YYYY-MM` or `YYYY-MM-DD`."""
    pages: tuple[Page, ...] = ()
    """In order; empty where the format has none."""
    encoding: str = "utf-8"


def clean(text: str) -> str:
    """The text without what no store and no terminal takes: control characters, halves of surrogate pairs."""
    return _UNSTORABLE.sub("", text)


def one_line(text: str) -> str:
    """The text on one line."""
    return " ".join(clean(text).split())


def names(found: Iterable[str]) -> tuple[str, ...]:
    """Names of people, each once, in order."""
    lines = (one_line(name)[:LONGEST_NAME] for name in found)
    return tuple(dict.fromkeys(line for line in lines if line))[:MOST_AUTHORS]


def iso_date(text: str | None) -> str | None:
    """The day, month or year at the beginning of an ISO date or a PDF date; None if there is none."""
    found = _DATE.match((text or "").strip().replace("/", "-"))
    if found is None or (found[2] is None and re.match(r"(?:D:)?\d{6}", (text or "").strip())):
        found = _PDF_DATE.match((text or "").strip())
    return date(*found.groups()) if found else None


def date(year: str | None, month: str | None, day: str | None) -> str | None:
    """A date of the parts that make sense: without its day or month where they are missing or out of range."""
    if not (year and year.isdecimal() and 1000 <= int(year) <= 9999):
        return None
    if not (month and month.isdecimal() and 1 <= int(month) <= 12):
        return year
    if not (day and day.isdecimal() and 1 <= int(day) <= 31):
        return f"{year}-{int(month):02}"
    return f"{year}-{int(month):02}-{int(day):02}"


def to_json(parsed: Parsed) -> bytes:
    """The document for another process."""
    p = parsed
    headings = None if p.headings is None else [(h.start, h.end, h.level, clean(h.text)) for h in p.headings]
    fields = (p.text, headings, p.body, p.title, p.authors, p.published, p.pages, p.encoding)
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")


def from_json(data: bytes) -> Parsed:
    """The document that another process sent.

    Raises:
        ValueError: it is none, or its pages and headings lie outside its text.
    """
    fields: list[Any] = json.loads(data)
    text, headings, body, title, authors, published, pages, encoding = fields
    parsed = Parsed(
        text=text,
        headings=None if headings is None else tuple(Heading(*heading) for heading in headings),
        body=body,
        title=title,
        authors=tuple(authors),
        published=published,
        pages=tuple(Page(*page) for page in pages),
        encoding=encoding,
    )
    check(parsed)
    return parsed


def check(parsed: Parsed) -> None:
    """Raise ValueError unless pages and headings are in order and inside the text."""
    end = len(parsed.text)
    headings = parsed.headings or ()
    numbers = [page.number for page in parsed.pages]
    for spans in ([(p.start, p.end) for p in parsed.pages], [(h.start, h.end) for h in headings]):
        places = [0, *(place for span in spans for place in span), end]
        if places != sorted(places):
            raise ValueError("pages or headings are not in order")
    if numbers != sorted(set(numbers)) or (numbers and numbers[0] < 1):
        raise ValueError("pages are not numbered upwards")
    if not 0 <= parsed.body <= end or any(not 1 <= h.level <= 6 for h in headings):
        raise ValueError("headings are not of level 1 to 6")
