"""Builds the text of a structured document block by block, and remembers where headings and pages begin."""

import re
from itertools import pairwise

from preflexor_agents.errors import DocumentError
from preflexor_agents.store.chunks import Heading
from preflexor_agents.store.reading.parsed import MAX_TEXT_CHARS, Page, clean, one_line

_LONGEST_HEADING = 500
_EXPONENT = re.compile(r"[+\-\u2212\u2013]?\d{1,3}(?:[./]\d{1,3})?")
_RAISABLE = re.compile(r"(?:\d|(?:^|[\s\d(/\u00b7\u22c5.])[A-Za-z\u00b5\u03bc\u2126\u03a9]{1,3})$")
_MINUS = str.maketrans("\u2212\u2013", "--")
_MAX_RUN = 4


class Blocks:
    """The text so far. Headings are written as Markdown's, and known by their place, not by their look."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._headings: list[Heading] = []
        self._pages: list[tuple[int, int]] = []

    def heading(self, level: int, words: str) -> None:
        """A heading of level 1 to 6; long ones are paragraphs."""
        words = one_line(words)
        if len(words) > _LONGEST_HEADING:
            self.paragraph(words)
        elif words:
            start = self._add(f"{'#' * level} {words}")
            self._headings.append(Heading(start, self._length, level, words))

    def paragraph(self, text: str, *, lead: str = "", close: bool = False) -> None:
        """A paragraph, or a list item or table row that follows the line before it closely."""
        text = clean(text).strip()
        if text:
            self._add(lead + text, gap="\n" if close else "\n\n")

    def page(self, number: int) -> None:
        """From here on the text stands on this page; a number that is not above the last one is passed over."""
        if number >= 1 and (not self._pages or number > self._pages[-1][0]):
            self._pages.append((number, self._length))

    @property
    def headings(self) -> tuple[Heading, ...]:
        """What was written as headings."""
        return tuple(self._headings)

    def text(self) -> str:
        """The whole text."""
        return "".join(self._pieces)

    def pages(self) -> tuple[Page, ...]:
        """The pages, each up to the next one."""
        places = [*self._pages, (0, self._length)]
        return tuple(Page(number, start, end) for (number, start), (_, end) in pairwise(places))

    def _add(self, text: str, *, gap: str = "\n\n") -> int:
        """Append a block; returns where it starts."""
        if self._length:
            self._pieces.append(gap)
            self._length += len(gap)
        start = self._length
        self._pieces.append(text)
        self._length += len(text)
        if self._length > MAX_TEXT_CHARS:
            raise DocumentError(f"has more than {MAX_TEXT_CHARS} characters of text; split it")
        return start


def raised(before: str, words: str) -> str:
    """A superscript as text: `^` where it is an exponent of a number or a unit, plain where it is a note's mark."""
    if _EXPONENT.fullmatch(words.strip()) and _RAISABLE.search(before[-_MAX_RUN:]):
        return f"^{words.strip().translate(_MINUS)}"
    return words
