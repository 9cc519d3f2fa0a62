"""What the store reports: progress and outcome of an ingest, and what a store holds."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["added", "changed", "unchanged", "duplicate", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestProgress:
    """Where an ingest stands; sent after every batch of chunks and at the end of every document."""

    documents_done: int
    documents_total: int
    source: str
    """The document at hand."""
    chunks_done: int = 0
    """Of the document at hand; those that are stored already are not counted before its end."""
    chunks_total: int = 0
    chunks_written: int = 0
    """By this ingest so far."""
    file_bytes: int = 0
    """Size of the file at hand."""
    bytes_done: int = 0
    """Size of the files that are done."""
    bytes_total: int = 0
    """Size of all files."""
    outcome: Outcome | None = None
    """Set once the document at hand is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What became of the documents."""

    added: int = 0
    changed: int = 0
    """Replaced, because the content is another or the file was moved."""
    unchanged: int = 0
    duplicates: int = 0
    """Left out, because the same content is in the store under another name."""
    chunks: int = 0
    """Written by this ingest; what is the same as before in a changed document is kept."""
    failed: tuple[str, ...] = ()
    """One line for each document that could not be ingested."""
    notes: tuple[str, ...] = ()
    """One line for each document that deserves a look, as it is not UTF-8 or half a scan, and each broken plug-in."""
    seconds: float = 0.0

    def __str__(self) -> str:
        counts = (
            (self.added, "added"),
            (self.changed, "changed"),
            (self.unchanged, "unchanged"),
            (self.duplicates, "duplicate"),
            (len(self.failed), "failed"),
        )
        said = [f"{count} {word}" for count, word in counts if count]
        return f"{', '.join(said) or 'no documents'}; {self.chunks} chunks written"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """What a store holds and how it searches."""

    path: str
    documents: int
    chunks: int
    characters: int
    embedder: str | None
    """Name of the vector space; None before the first document."""
    dim: int | None
    vector_index: str
    """`sqlite-vec VERSION`, or `rows` where vectors are scanned without it."""
    schema_version: int
    sqlite_version: str
    size_bytes: int
