"""Markdown and plain text: kept as they are, line ends included."""

import re

from preflexor_agents.store import chunks
from preflexor_agents.store.reading.decoding import decoded
from preflexor_agents.store.reading.parsed import Page, Parsed, iso_date, names

_FIELD = re.compile(r"^(title|authors?|date|published):[ \t]*(.*?)[ \t]*\r?$", re.MULTILINE)
_ITEM = re.compile(r"[ \t]*-[ \t]+(.*?)[ \t]*\r?\n")


def parse(data: bytes, name: str) -> Parsed:
    """A Markdown file."""
    text, encoding = decoded(data)
    return from_markdown(text, encoding=encoding)


def parse_text(data: bytes, name: str) -> Parsed:
    """A plain text file."""
    text, encoding = decoded(data)
    return Parsed(text=text, encoding=encoding)


def from_markdown(
    text: str,
    *,
    title: str = "",
    authors: tuple[str, ...] = (),
    published: str | None = None,
    pages: tuple[Page, ...] = (),
    encoding: str = "utf-8",
) -> Parsed:
    """A Markdown text; what is not given is taken from its first heading of level 1 and its front matter."""
    found = tuple(chunks.headings(text))
    body = chunks.body_start(text)
    known = _front_matter(text[:body])
    heading = next((h.text for h in found if h.level == 1 and h.text), "")
    return Parsed(
        text=text,
        headings=found,
        body=body,
        title=title or heading or " ".join(known.get("title", [])),
        authors=authors or names([*known.get("author", []), *known.get("authors", [])]),
        published=published or iso_date(" ".join(known.get("date", known.get("published", [])))),
        pages=pages,
        encoding=encoding,
    )


def _front_matter(block: str) -> dict[str, list[str]]:
    """The fields of a YAML block that say what a document is: plain values, `[a, b]` and lists of lines."""
    found: dict[str, list[str]] = {}
    for match in _FIELD.finditer(block):
        value = match[2]
        items = [value]
        if value.startswith("[") and value.endswith("]"):
            items = value[1:-1].split(",")
        elif not value:
            items = _items(block, match.end() + 1)
        found.setdefault(match[1], [item.strip(" \t\"'") for item in items])
    return found


def _items(block: str, at: int) -> list[str]:
    items = []
    while match := _ITEM.match(block, at):
        items.append(match[1])
        at = match.end()
    return items
