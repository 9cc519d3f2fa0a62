"""What changed between two texts, word by word."""

import difflib
import re
from typing import Literal, NamedTuple

_WORDS = re.compile(r"\s+|\w+(?:[.,]\d+)*|[^\w\s]")
MOST_WORDS = 6000
"""Longer texts are compared line by line: comparing words takes time that grows with the square of their number."""


class Piece(NamedTuple):
    """A stretch of text and what became of it."""

    kind: Literal["same", "gone", "new"]
    text: str


class Change(NamedTuple):
    """How much changed, in words."""

    gone: int
    new: int


def word_diff(old: str, new: str) -> tuple[Piece, ...]:
    """The pieces that lead from one text to the other; joined without `gone` they are `new`, without `new`, `old`."""
    a, b = _split(old, new)
    pieces: list[Piece] = []
    for tag, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "equal":
            pieces.append(Piece("same", "".join(a[a0:a1])))
            continue
        if a1 > a0:
            pieces.append(Piece("gone", "".join(a[a0:a1])))
        if b1 > b0:
            pieces.append(Piece("new", "".join(b[b0:b1])))
    return tuple(pieces)


def change(pieces: tuple[Piece, ...]) -> Change:
    """How many words went and came."""
    counts = {kind: sum(len(p.text.split()) for p in pieces if p.kind == kind) for kind in ("gone", "new")}
    return Change(counts["gone"], counts["new"])


def _split(old: str, new: str) -> tuple[list[str], list[str]]:
    a, b = _WORDS.findall(old), _WORDS.findall(new)
    if len(a) + len(b) <= MOST_WORDS:
        return a, b
    return old.splitlines(keepends=True), new.splitlines(keepends=True)
