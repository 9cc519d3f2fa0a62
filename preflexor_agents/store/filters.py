"""What a search is limited to: a collection, documents by source, a range of dates."""

import re
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from preflexor_agents.errors import InputError

_DATE = re.compile(r"\d{4}(-\d\d(-\d\d)?)?", re.ASCII)
_GLOB = re.compile(r"[*?\[]")


class Condition(NamedTuple):
    """Which chunks are allowed, as a subselect of their ids and the values of its question marks."""

    sql: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which documents a search looks at: those that fit every field that is given."""

    collection: str | None = None
    """The collection's name."""
    source: str | None = None
    """A document, a folder with all below it, or a glob in which `*` also spans folders. One that begins with a slash
    or is an address counts from the start of the source, any other from any name in it."""
    since: str | None = None
    """The first date, `YYYY`, `YYYY-MM` or `YYYY-MM-DD`, of publication or, where that is not known, of the ingest."""
    until: str | None = None
    """The last date, in the same forms. A document of which only the year is known fits any range that touches it."""

    def __post_init__(self) -> None:
        """Raise InputError if a date is none, or the range ends before it begins."""
        for name, given in (("since", self.since), ("until", self.until)):
            if given is not None and not _is_date(given):
                raise InputError(f"{name} is {given!r}; write a date as 2024, 2024-03 or 2024-03-15")
        if self.since is not None and self.until is not None and self.since > f"{self.until}~":
            raise InputError(f"since {self.since} is after until {self.until}; swap them")
        if self.source is not None and not self.source.strip("/") and self.source != "/":
            raise InputError(f"source is {self.source!r}; name a document, a folder or a glob")

    def condition(self) -> Condition | None:
        """The chunks of the documents that fit; None where nothing is asked for."""
        terms: list[str] = []
        values: list[str] = []
        if self.collection is not None:
            terms.append("d.collection = ?")
            values.append(self.collection)
        if self.source is not None:
            sql, patterns = _source(self.source)
            terms.append(sql)
            values += patterns
        day = "substr(coalesce(d.published, d.ingested_at), 1, 10)"
        if self.since is not None:
            terms.append(f"{day} || '~' >= ?")
            values.append(self.since)
        if self.until is not None:
            terms.append(f"{day} <= ? || '~'")
            values.append(self.until)
        if not terms:
            return None
        sql = f"SELECT c.id FROM document d JOIN chunk c ON c.document_id = d.id WHERE {' AND '.join(terms)}"
        return Condition(sql, tuple(values))


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text + "-01-01"[len(text) - 4 :])
    except ValueError:
        return False
    return True


def _source(given: str) -> tuple[str, list[str]]:
    """The condition on `d.source`, and its values."""
    plain = given.rstrip("/")
    escaped = _GLOB.sub(lambda found: f"[{found.group()}]", plain)
    anchored = given.startswith("/") or ":" in given.split("/", 1)[0]
    patterns = [f"{escaped}/*"]
    if not anchored:
        patterns += [f"*/{escaped}", f"*/{escaped}/*"]
    if _GLOB.search(given):
        patterns += [given] if anchored else [given, f"*/{given}"]
    return f"(d.source = ? OR {' OR '.join(['d.source GLOB ?'] * len(patterns))})", [plain or "/", *patterns]
