"""Splits text into sentences as exact spans; list items and table rows stand for themselves."""

import re
from collections.abc import Iterator

from preflexor_agents.store.chunks import Span

_BLOCK_BREAK = re.compile(
    r"\n[ \t\r]*\n|\n(?=[ \t]*(?:[-*+•][ \t]|\d{1,3}[.)][ \t]|\||#{1,6}[ \t]|>))|(?<=\|)[ \t\r]*\n"
)
_LEAD = re.compile(r"\s*(?:(?:[-*+•>]|\d{1,3}[.)])[ \t]+)*")
_HEADING = re.compile(r"#{1,6}[ \t][^\n]*(?:\n|\Z)\s*")
_END = re.compile(r"(?P<mark>[.!?]+)[\"'\u201d\u2019)*_]*(?:\s?\[\d+(?:\s*[,\u2013-]\s*\d+)*\])*(?=\s|\Z)")
_LAST_WORD = re.compile(r"[^\W_](?:[\w.]*[^\W_])?\Z")
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\S+",
        """al approx c ca cf dr e.g eq eqs etc fig figs i.e max min mr mrs no nos p pp prof ref refs resp sec sp spp st
        tab var viz vol vs""",
    )
)


def split(text: str) -> list[Span]:
    """The sentences of a text, Markdown headings and list markers left out; each is trimmed."""
    return [span for block in _blocks(text) for span in _sentences(text, block)]


def headings(text: str) -> str:
    """The heading lines of a Markdown text."""
    return "\n".join(match.group() for match in re.finditer(r"^#{1,6}[ \t][^\n]*", text, re.MULTILINE))


def _blocks(text: str) -> Iterator[Span]:
    start = 0
    for match in _BLOCK_BREAK.finditer(text):
        yield Span(start, match.end())
        start = match.end()
    yield Span(start, len(text))


def _sentences(text: str, block: Span) -> Iterator[Span]:
    start, end = block
    start = _skip(text, start, end)
    for match in _END.finditer(text, start, end):
        if match.start() >= start and _is_end(text, match, start):
            yield from _trimmed(text, start, match.end())
            start = match.end()
    yield from _trimmed(text, start, end)


def _skip(text: str, start: int, end: int) -> int:
    """Past the headings and the list marker that a block begins with."""
    while match := _HEADING.match(text, start, end):
        start = match.end()
    lead = _LEAD.match(text, start, end)
    return lead.end() if lead else start


def _is_end(text: str, match: re.Match[str], start: int) -> bool:
    if match["mark"] != ".":
        return True
    following = text[match.end() : match.end() + 20].lstrip()
    if following[:1].islower():
        return False
    word = _LAST_WORD.search(text, max(start, match.start() - 20), match.start())
    if word is None:
        return True
    is_unit = text[max(0, word.start() - 3) : word.start()].rstrip()[-1:].isdigit()
    is_initial = len(word.group()) == 1 and word.group().isupper() and word.start() > start and not is_unit
    return not is_initial and word.group().lower() not in _ABBREVIATIONS


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    body = text[start:end]
    left, right = len(body) - len(body.lstrip()), len(body.rstrip())
    if left < right:
        yield Span(start + left, start + right)
