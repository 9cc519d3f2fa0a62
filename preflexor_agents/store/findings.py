"""Findings: texts that people and agents add to a store, kept with who added them; searched and cited like documents.

A finding is a document whose source is `finding:ID`. Removing it leaves nothing behind.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlite_utils import Database

from preflexor_agents.errors import InputError
from preflexor_agents.store import chunks, writing
from preflexor_agents.store.documents import Document
from preflexor_agents.store.paths import printable

PREFIX = "finding:"
"""Sources of findings begin with it."""
_LONGEST_NAME = 200
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A text in the store and where it came from."""

    source: str
    """Names it in passages and citations; the same text from the same owner always has the same."""
    title: str
    text: str
    owner: str
    """Whose it is: what `Store.clear_findings` goes by."""
    author: str
    """Who found it."""
    mime_type: str
    metadata: Mapping[str, Any]
    """What else is known about it, as JSON values."""
    added_at: str
    """UTC, ISO 8601."""


def finding(
    text: str, *, owner: str, author: str, title: str, mime_type: str, metadata: Mapping[str, Any] | None
) -> Finding:
    """A finding to be added; characters that cannot be stored become U+FFFD.

    Raises:
        InputError: the text is empty, or the metadata is no JSON.
    """
    text, owner = (_UNSTORABLE.sub("\ufffd", given) for given in (text, owner))
    if not text.strip():
        raise InputError("the finding is empty; give the text to keep")
    try:
        known = json.dumps(dict(metadata or {}), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata of the finding cannot be kept as JSON: {error}; use JSON values") from error
    return Finding(
        source=f"{PREFIX}{_sha256(owner, text)[:16]}",
        title=printable(title)[:_LONGEST_NAME],
        text=text,
        owner=owner,
        author=printable(author)[:_LONGEST_NAME],
        mime_type=printable(mime_type)[:_LONGEST_NAME],
        metadata=json.loads(_UNSTORABLE.sub("\ufffd", known)),
        added_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def as_document(finding: Finding) -> Document:
    """The finding as the store keeps its text; another owner's copy of the text is another document."""
    is_markdown = finding.mime_type == "text/markdown"
    found = chunks.markdown_chunks(finding.text) if is_markdown else chunks.text_chunks(finding.text)
    return Document(
        source=finding.source,
        title=finding.title,
        sha256=_sha256(finding.owner, finding.text),
        parser=f"finding-{'markdown' if is_markdown else 'text'}/{chunks.VERSION}",
        encoding="utf-8",
        size_bytes=len(finding.text.encode("utf-8")),
        text=finding.text,
        chunks=tuple(found or chunks.text_chunks(finding.text)),
    )


def record(db: Database, finding: Finding) -> None:
    """Write where a finding came from, in the transaction that writes its document."""
    sql = """INSERT OR REPLACE INTO finding (document_id, owner, author, mime_type, metadata, added_at)
             SELECT id, ?, ?, ?, ?, ? FROM document WHERE source = ?"""
    f = finding
    db.conn.execute(sql, (f.owner, f.author, f.mime_type, json.dumps(dict(f.metadata)), f.added_at, f.source))


def read(db: Database, *, owner: str | None = None, source: str | None = None) -> list[Finding]:
    """The findings, oldest first: all, or those of an owner, or the one of a source."""
    sql = """SELECT d.source, d.title, d.text, f.owner, f.author, f.mime_type, f.metadata, f.added_at
             FROM finding f JOIN document d ON d.id = f.document_id
             WHERE (?1 IS NULL OR f.owner = ?1) AND (?2 IS NULL OR d.source = ?2) ORDER BY d.id"""
    rows = db.conn.execute(sql, (owner, source)).fetchall()
    names = ("source", "title", "text", "owner", "author", "mime_type", "metadata", "added_at")
    return [Finding(**{**dict(zip(names, row, strict=True)), "metadata": json.loads(row[6])}) for row in rows]


def remove(db: Database, found: list[Finding], *, has_vec: bool) -> None:
    """Take findings out with all that was made of them; inside a write transaction."""
    sql = "SELECT id FROM document WHERE source = ?"
    writing.remove(db, [id for f in found for (id,) in db.conn.execute(sql, (f.source,)).fetchall()], has_vec=has_vec)


def _sha256(owner: str, text: str) -> str:
    return hashlib.sha256(f"{owner}\0{text}".encode()).hexdigest()
