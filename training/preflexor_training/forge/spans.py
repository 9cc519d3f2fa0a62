"""The places in documents that rows were made from: whether they still say what they said."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from preflexor_agents.store import Store
from preflexor_training.forge.records import Row, Span


class Changed(NamedTuple):
    """A span whose document says something else there, or is gone."""

    row: int
    """Number of the row."""
    span: Span


def check_spans(rows: Iterable[Row], store: Store) -> Iterator[Changed]:
    """Re-read every span of the rows from the documents in the store; gives those that are not as they were.

    Raises:
        StoreError: the store could not be read.
    """
    for row in rows:
        for span in row.context:
            if not stands(span, store):
                yield Changed(row.number, span)


def stands(span: Span, store: Store) -> bool:
    """Whether the document says at the span what it said when the row was made."""
    return hashlib.sha256(store.words(span.source, span.start, span.end).encode()).hexdigest() == span.sha256
