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
    if not 0 <= citation.start < citation.end < 1 << 31:
        return False
    sql = "SELECT substr(text, ?, ?) FROM document WHERE source = ?"
    place = (citation.start + 1, citation.end - citation.start, citation.source)
    row = db.conn.execute(sql, place).fetchone()
    if row is None or row[0] != citation.quote:
        return False
    return citation.page == page_at(db, citation.source, citation.start)
