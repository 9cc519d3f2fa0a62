"""Joins the pages of a printed document to one text: words mended, lines to paragraphs, running heads once."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from preflexor_agents.errors import DocumentError
from preflexor_agents.store.chunks import Heading
from preflexor_agents.store.reading.parsed import MAX_TEXT_CHARS, Page, clean

_HYPHEN = "\ufffe"
"""What PDFium gives for a hyphen at the end of a line; the line break itself is left out."""
_LIGATURES = str.maketrans(
    {"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl", "\ufb05": "st", "\ufb06": "st"}
)
_BROKEN_WORD = re.compile(rf"(\w+)(?:{_HYPHEN}|[\u00ad\u2010-](?:\r\n|\r|\n))(\w+)")
_WORD = re.compile(r"\w+(?:-\w+)*")
_LINE_END = re.compile(r"[ \t]*(?:\r\n|\r|\n)")
_FULL_SHARE = 0.7
"""A line of at least this share of the usual width goes on in the next one."""
_NARROWEST = 25
_SENTENCE_END = re.compile(r"[.!?:;][\"'\u201d\u2019)\]]*$")
_NEW_BLOCK = re.compile(r"(?:[\u00b7\u2022\u25aa\u25cf*]\s?|[-\u2013]\s|\(?\d{1,3}[.)]\s|(?:Fig(?:ure|\.)|Table)\s?\d)")
_LEADER = re.compile(r"(?:\s?[.\u00b7\u2026]){5,}")
"""Dots that lead the eye to a page number."""
_DIGITS = re.compile(r"\d+")
_RUNNING_LINES = 2
"""At the top and the bottom of a page."""
_RUNNING_SHARE = 0.6
_LEAST_PAGES = 4
_LONGEST_RUNNING = 120


class Entry(NamedTuple):
    """A line of a document's outline."""

    level: int
    words: str
    page: int
    """Index of the page, from 0 on."""


class Joined(NamedTuple):
    """The text of all pages, and where its headings and pages are."""

    text: str
    headings: tuple[Heading, ...]
    pages: tuple[Page, ...]


def joined(texts: Sequence[str], outline: Iterable[Entry] = ()) -> Joined:
    """One text of the pages' texts.

    Args:
        texts: As a PDF library gives them, a line for each printed line.
        outline: Entries whose words stand as lines of their own on their page become headings.
    """
    whole = mended("\f".join(text.replace("\f", " ") for text in texts))
    lines = _without_running_lines([_lines(text) for text in whole.split("\f")])
    entries: dict[int, list[Entry]] = {}
    for entry in outline:
        entries.setdefault(entry.page, []).append(entry)
    text = _Text()
    for number, page in enumerate(lines, 1):
        text.page(number)
        _write(text, page, entries.get(number - 1, []))
    return text.joined()


def mended(text: str) -> str:
    """Words that were broken at the end of a line are whole again, ligatures are letters.

    Whether a hyphen belongs to the word is looked up in the rest of the text; where that does not tell, it goes.
    """
    text = text.translate(_LIGATURES)
    known = Counter(word.lower() for word in _WORD.findall(text))

    def whole(match: re.Match[str]) -> str:
        left, right = match.groups()
        hyphenated, plain = f"{left}-{right}", f"{left}{right}"
        if not right[0].islower() or known[hyphenated.lower()] > known[plain.lower()] or not left.isalpha():
            return hyphenated
        return plain

    return _BROKEN_WORD.sub(whole, text).replace(_HYPHEN, "-")


class _Text:
    """The text so far, with the places of headings and pages."""

    def __init__(self) -> None:
        self.last = ""
        self._pieces: list[str] = []
        self._length = 0
        self._headings: list[Heading] = []
        self._starts: list[int] = []

    def page(self, number: int) -> None:
        """The next block begins a page."""
        self._starts += [-1] * (number - len(self._starts))

    def block(self, text: str, *, level: int = 0, gap: str = "\n\n") -> None:
        """A paragraph, or a heading of a level."""
        if self._length:
            self._pieces.append(gap)
            self._length += len(gap)
        start, written = self._length, f"{'#' * level} {text}" if level else text
        self._pieces.append(written)
        self._length += len(written)
        self.last = text
        self._starts = [start if known < 0 else known for known in self._starts]
        if level:
            self._headings.append(Heading(start, self._length, level, text))
        if self._length > MAX_TEXT_CHARS:
            raise DocumentError(f"has more than {MAX_TEXT_CHARS} characters of text; split it")

    def joined(self) -> Joined:
        """Everything; a page without text is empty and lies where the next one begins."""
        starts = [self._length if start < 0 else start for start in self._starts]
        ends = [*starts[1:], self._length]
        pages = tuple(Page(n, start, end) for n, (start, end) in enumerate(zip(starts, ends, strict=True), 1))
        return Joined("".join(self._pieces), tuple(self._headings), pages)


def _lines(text: str) -> list[str]:
    return [line for line in (_LEADER.sub(" \u2026", clean(line)).strip() for line in _LINE_END.split(text)) if line]


def _without_running_lines(pages: list[list[str]]) -> list[list[str]]:
    """Heads and feet that stand on most pages are kept where they stand first."""
    if len(pages) < _LEAST_PAGES:
        return pages
    counts: Counter[str] = Counter()
    for lines in pages:
        counts.update({_pattern(lines[at]) for at in _edges(lines)})
    running = {pattern for pattern, count in counts.items() if count >= _RUNNING_SHARE * len(pages)}
    seen: set[str] = set()
    kept = []
    for lines in pages:
        drop = {at for at in _edges(lines) if _pattern(lines[at]) in running & seen}
        seen |= {_pattern(lines[at]) for at in _edges(lines)} & running
        kept.append([line for at, line in enumerate(lines) if at not in drop])
    return kept


def _edges(lines: list[str]) -> set[int]:
    near = {*range(_RUNNING_LINES), *range(len(lines) - _RUNNING_LINES, len(lines))}
    return {at for at in near if 0 <= at < len(lines) and len(lines[at]) <= _LONGEST_RUNNING}


def _pattern(line: str) -> str:
    return _DIGITS.sub("0", line)


def _write(text: _Text, lines: list[str], entries: list[Entry]) -> None:
    """The lines of a page as paragraphs and headings."""
    headings = _headings(lines, entries)
    width = _width(lines)
    paragraph: list[str] = []
    is_first = True

    def flush() -> None:
        nonlocal is_first
        if paragraph:
            goes_on = is_first and _goes_on(text.last, paragraph[0])
            text.block(" ".join(paragraph), gap="\n" if goes_on else "\n\n")
            paragraph.clear()
            is_first = False

    for at, line in enumerate(lines):
        if at in headings:
            flush()
            text.block(line, level=headings[at])
            is_first = False
            continue
        if paragraph and _is_new(paragraph[-1], line, width):
            flush()
        paragraph.append(line)
    flush()


def _headings(lines: list[str], entries: list[Entry]) -> dict[int, int]:
    """The level of each line that the outline names."""
    found: dict[int, int] = {}
    places: dict[str, list[int]] = {}
    for at, line in enumerate(lines):
        for key in {_key(line), _key(re.sub(r"^[\dA-Z]{1,3}(?:\.\d{1,3})*\.?\s+", "", line))}:
            places.setdefault(key, []).append(at)
    for entry in entries:
        free = [at for at in places.get(_key(entry.words), []) if at not in found]
        if free and _key(entry.words):
            found[free[0]] = min(max(entry.level, 1), 6)
    return found


def _key(words: str) -> str:
    return "".join(c for c in words.lower() if c.isalnum())


def _width(lines: list[str]) -> int:
    """The usual length of a full line."""
    lengths = sorted(len(line) for line in lines)
    return max(lengths[int(0.9 * (len(lengths) - 1))], _NARROWEST) if lengths else _NARROWEST


def _is_new(before: str, line: str, width: int) -> bool:
    """Whether a line begins a paragraph."""
    if _NEW_BLOCK.match(line) or " \u2026" in before:
        return True
    if len(before) >= _FULL_SHARE * width:
        return False
    return not line[0].islower()


def _goes_on(before: str, line: str) -> bool:
    """Whether a sentence goes on from one page to the next."""
    return bool(before) and not _SENTENCE_END.search(before) and line[0].islower()
