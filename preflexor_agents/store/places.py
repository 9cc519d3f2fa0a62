"""Where words stand in a stored document."""

from sqlite_utils import Database

from preflexor_agents.events import Citation


def page_at(db: Database, source: str, start: int) -> int | None:
    """Number of the page on which the character stands; None in a document without pages."""
    sql = """SELECT p.number FROM page p JOIN document d ON d.id = p.document_id
             WHERE d.source = ? AND p.start <= ? ORDER BY p.number DESC LIMIT 1"""
    row = db.conn.execute(sql, (source, start)).fetchone()
    return int(row[0]) if row else None


def stands(db: Database, citation: Citation) -> bool:
    """Whether the quote stands in the document at exactly its place and page; in a read transaction."""
    if not citation.quote or words(db, citation.source, citation.start, citation.end) != citation.quote:
        return False
    return citation.page == page_at(db, citation.source, citation.start)


def words(db: Database, source: str, start: int, end: int) -> str:
    """What a document says between two offsets; empty if there is no such document or place."""
    if not 0 <= start < end < 1 << 31:
        return ""
    sql = "SELECT substr(text, ?, ?) FROM document WHERE source = ?"
    row = db.conn.execute(sql, (start + 1, end - start, source)).fetchone()
    return row[0] if row else ""
