"""The rows of a run, or of any preference file, to look at: the words of their context, and what bears them out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from preflexor_agents.errors import InputError
from preflexor_agents.events import Passage
from preflexor_agents.preference_rows import LOG, open_rows
from preflexor_agents.store import Store, citations
from preflexor_training import tables
from preflexor_training.forge.importing import as_row
from preflexor_training.forge.records import Row, Span, read_rows
from preflexor_training.forge.spans import stands
from preflexor_training.pairs import Reply, read_pairs

AROUND_CHARS = 80
"""Of the document before and after a passage."""


class Words(NamedTuple):
    """A stretch of a document: around the passage, of the passage, or a quote that the chosen answer stands on."""

    kind: Literal["around", "passage", "quote"]
    text: str


class Shown(NamedTuple):
    """A passage of a row's context."""

    span: Span
    words: tuple[Words, ...]
    """Empty if the document says something else there, or is not in the store."""


def rows_of(place: Path) -> Iterator[Row]:
    """The rows of a run's folder or log; those of any other preference file as if they had been imported.

    Raises:
        InputError: it cannot be read, or a line of the log is damaged.
    """
    if is_log(place):
        yield from read_rows(place)
        return
    for number, item in enumerate(read_pairs(place)):
        yield as_row(item, place, number)


def row_at(place: Path, number: int) -> Row:
    """One row by its number. Raises InputError: there is none, or as `rows_of`."""
    last = -1
    for row in rows_of(place):
        if row.number == number:
            return row
        last = row.number
    known = f"it has rows 0 to {last}" if last >= 0 else "it has no rows"
    raise InputError(f"{place} has no row {number}; {known}")


def context_of(row: Row, store: Store) -> tuple[Shown, ...]:
    """The passages of a row as the documents in the store have them.

    Raises:
        StoreError: the store could not be read.
    """
    texts = {n: store.words(s.source, s.start, s.end) for n, s in enumerate(row.context) if stands(s, store)}
    passages = [_passage(row.context[n], text) for n, text in texts.items()]
    cited = citations.cite(row.chosen.answer, passages).citations
    shown = []
    for n, span in enumerate(row.context):
        quotes = [(c.start, c.end) for c in cited if c.chunk_id == span.chunk_id]
        shown.append(Shown(span, tuple(_words(span, texts[n], quotes, store)) if n in texts else ()))
    return tuple(shown)


def sections(reply: Reply) -> Iterator[tuple[str, str]]:
    """The parts of a reply by name, as they follow one another."""
    for name, text in (("thinking", reply.thinking), ("reflection", reply.reflection), ("answer", reply.answer)):
        if text is not None:
            yield name, text


def is_log(place: Path) -> bool:
    """Whether this is the log of a run, or the folder of one. Raises InputError: it cannot be read."""
    if (place / LOG).is_file():
        return True
    if tables.is_table(place):
        return False
    rows = open_rows(place)
    try:
        first = rows.data(0) if len(rows) else None
    except InputError:
        return False
    return isinstance(first, dict) and {"schema", "state"} <= first.keys()


def _passage(span: Span, text: str) -> Passage:
    return Passage(
        chunk_id=span.chunk_id,
        source=span.source,
        title=span.title,
        page=span.page,
        start=span.start,
        end=span.end,
        text=text,
    )


def _words(span: Span, text: str, quotes: list[tuple[int, int]], store: Store) -> Iterator[Words]:
    """The passage cut at the edges of the quotes in it, with some of the document around it."""
    yield Words("around", store.words(span.source, max(0, span.start - AROUND_CHARS), span.start))
    at = span.start
    for start, end in sorted(quotes):
        start, end = max(start, at), min(end, span.end)
        if start < end:
            yield Words("passage", text[at - span.start : start - span.start])
            yield Words("quote", text[start - span.start : end - span.start])
            at = end
    yield Words("passage", text[at - span.start :])
    yield Words("around", store.words(span.source, span.end, span.end + AROUND_CHARS))
