"""Cuts a document into chunks that follow its structure; every chunk is an exact span of the text.

Linear in the length of the text, also for one line of ten million characters, where general splitters are not.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

VERSION = 1
"""Changes whenever the same text would be cut otherwise."""
LIMIT = 700
"""Most characters of a chunk."""
HARD_LEVEL = 2
"""A chunk never has text from before and after a heading of this level or a higher one (1 is the highest)."""
_BREAKS = tuple(
    re.compile(p) for p in (r"\n[ \t\r]*\n\s*", r"\n\s*", r"[.!?][\"'\u201d\u2019)\]]*\s+", r"[,;:]\s+", r"\s+")
)
"""Where text may be cut, best first: paragraph, line, sentence, clause, word."""
_LONGEST_HEADING = 500
_LINE = re.compile(r"([^\r\n]*)(\r\n|\r|\n|\Z)")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_NOT_A_PARAGRAPH = re.compile(r"\s*(?:[#>|<*+-]|\d+[.)]|`{3}|~{3}|\Z)| {4}|\t")
_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(?:[^\r\n]*\r?\n){0,100}?(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)")
_MARKUP = re.compile(r"[*_`]+|\{:[^}]*\}|!?\[([^\]\[]*)\]\([^)]*\)")


class Span(NamedTuple):
    """Half-open range of characters."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading: where its line starts and ends, its level (1 to 6) and its words."""

    start: int
    end: int
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document; its text is document[start:end]."""

    start: int
    end: int
    context: str
    """The headings it stands under, outermost first, those at its own beginning included."""
    body: int
    """Where the text begins after those headings."""


def markdown_chunks(text: str) -> list[Chunk]:
    """Chunks of a Markdown text: sections, or parts of sections longer than LIMIT.

    Together they hold every character outside the front matter that is not white space, each once.
    """
    return structured_chunks(text, headings(text), start=body_start(text))


def structured_chunks(text: str, found: Sequence[Heading], *, start: int = 0) -> list[Chunk]:
    """Chunks of a text whose headings are known, from `start` on; cut like Markdown."""
    spans: list[Span] = []
    for section in _sections(text, found, Span(start, len(text)), level=HARD_LEVEL):
        spans += [section] if _size(section) <= LIMIT else _parts(text, found, section)
    return _with_context(text, found, spans)


def text_chunks(text: str) -> list[Chunk]:
    """Chunks of a plain text, cut at paragraphs where possible."""
    return [Chunk(span.start, span.end, "", span.start) for span in _cut(text, Span(0, len(text)), keep=0)]


def body_start(text: str) -> int:
    """Where a Markdown text begins after its front matter (a YAML block between `---` lines)."""
    match = _FRONT_MATTER.match(text)
    return match.end() if match and ":" in match.group() else 0


def headings(text: str) -> list[Heading]:
    """The ATX and setext headings of a Markdown text, in order, those in fenced code or front matter left out."""
    found: list[Heading] = []
    fence = before = previous = ""
    previous_start = 0
    for match in _LINE.finditer(text, body_start(text)):
        line, start, end = match[1], match.start(), match.end()
        opening = _FENCE.fullmatch(line)
        if fence:
            if opening and opening[1].startswith(fence) and not opening[2].strip():
                fence = ""
            line = ""
        elif opening and not (opening[1][0] == "`" and "`" in opening[2]):
            fence = opening[1]
        elif len(line) > _LONGEST_HEADING:
            pass
        elif atx := _ATX.fullmatch(line):
            found.append(Heading(start + atx.start(1), end, len(atx[1]), _plain(atx[2] or "")))
        elif _is_one_line_paragraph(before, previous) and (under := _SETEXT.fullmatch(line)):
            indent = len(previous) - len(previous.lstrip())
            found.append(Heading(previous_start + indent, end, 1 if under[1][0] == "=" else 2, _plain(previous)))
        before, previous, previous_start = previous, line, start
    return found


def _is_one_line_paragraph(before: str, line: str) -> bool:
    return not before.strip() and len(line) <= _LONGEST_HEADING and not _NOT_A_PARAGRAPH.match(line)


def _plain(words: str) -> str:
    return " ".join(_MARKUP.sub(r"\1", words).split())


def _size(span: Span) -> int:
    return span.end - span.start


def _within(found: Sequence[Heading], start: int, end: int) -> Sequence[Heading]:
    """The headings that begin in the range."""
    return found[bisect_left(found, start, key=_start) : bisect_left(found, end, key=_start)]


def _start(heading: Heading) -> int:
    return heading.start


def _sections(text: str, found: Sequence[Heading], span: Span, *, level: int) -> list[Span]:
    """Spans that begin at the headings up to `level`; a heading with nothing under it joins what follows."""
    ends = {h.start: h.end for h in _within(found, *span) if h.level <= level}
    spans = []
    begin = span.start
    for at, following in pairwise([span.start, *(at for at in ends if at > span.start), span.end]):
        bare = at in ends and not text[ends[at] : following].strip()
        if not bare or following == span.end:
            spans.append(_trimmed(text, begin, following))
            begin = following
    return [piece for piece in spans if _size(piece)]


def _parts(text: str, found: Sequence[Heading], section: Span) -> list[Span]:
    """A long section as subsections, whole neighbours joined while they fit; one too long is cut further."""
    joined: list[Span] = []
    for span in _sections(text, found, section, level=6):
        if joined and span.end - joined[-1].start <= LIMIT:
            joined[-1] = Span(joined[-1].start, span.end)
        else:
            joined.append(span)
    parts: list[Span] = []
    for span in joined:
        leading = _leading(text, found, span)
        parts += _cut(text, span, keep=leading[-1].end if leading else 0)
    return parts


def _leading(text: str, found: Sequence[Heading], span: Span) -> list[Heading]:
    """The headings that a span begins with."""
    leading: list[Heading] = []
    at = span.start
    for heading in _within(found, *span):
        if text[at : heading.start].strip():
            break
        leading.append(heading)
        at = heading.end
    return leading


def _cut(text: str, span: Span, *, keep: int) -> list[Span]:
    """Parts of about equal size, none over LIMIT, cut at the best kind of break within reach, none before `keep`."""
    parts = []
    start, end = span
    while start < end:
        count = -(-(end - start) // LIMIT)
        ideal = (end - start) // count
        low, high = max(start + ideal // 2, keep), start + LIMIT
        stop = end if count == 1 else _best_break(text, low, high, start + ideal)
        part = _trimmed(text, start, stop)
        if _size(part):
            parts.append(part)
        start = stop
    return parts


def _best_break(text: str, low: int, high: int, ideal: int) -> int:
    """The break of the best kind in text[low:high], nearest to `ideal`; `high` where there is none."""
    for pattern in _BREAKS:
        ends = [match.end() for match in pattern.finditer(text, low, high)]
        if ends:
            return min(ends, key=lambda at: abs(at - ideal))
    return high


def _trimmed(text: str, start: int, end: int) -> Span:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return Span(start, end)


def _with_context(text: str, found: Sequence[Heading], spans: list[Span]) -> list[Chunk]:
    chunks = []
    stack: list[Heading] = []
    done = 0
    for span in spans:
        leading = _leading(text, found, span)
        until = leading[-1].end if leading else span.start
        for heading in _within(found, done, until):
            while stack and stack[-1].level >= heading.level:
                stack.pop()
            stack.append(heading)
        done = until
        context = " > ".join(h.text for h in stack if h.text)
        chunks.append(Chunk(span.start, span.end, context, min(until, span.end)))
    return chunks
