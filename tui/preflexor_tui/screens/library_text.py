"""How the library's documents, chunks and hits read."""

from rich.text import Text
from textual.content import Content

from preflexor_agents.cli.show import inert
from preflexor_agents.events import Passage
from preflexor_agents.store.browsing import StoredChunk
from preflexor_tui.widgets.text import plain


def size(size_bytes: int) -> str:
    """Bytes as they fit a column: 512 B, 3.4 kB, 12 MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            value = size_bytes / factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{size_bytes} B"


def short(title: str, *, most: int) -> Text:
    """A title as it fits a column."""
    line = " ".join(inert(title).split())
    return Text(line if len(line) <= most else line[: most - 1] + "…", no_wrap=True)


def chunk_text(chunk: StoredChunk) -> Content:
    """Where a chunk stands, and its words."""
    page = f"page {chunk.page}, " if chunk.page is not None else ""
    where = f"{chunk.ord + 1}  {page}characters {chunk.start}-{chunk.end}"
    return _piece(where, chunk.context, chunk.text)


def passage_text(number: int, passage: Passage) -> Content:
    """Where a hit stands, how it was found, and its words."""
    page = f", page {passage.page}" if passage.page is not None else ""
    found = [
        f"{kind} rank {rank} ({score:.2f})" if score is not None else f"{kind} rank {rank}"
        for kind, rank, score in (
            ("words", passage.text_rank, passage.text_score),
            ("meaning", passage.vector_rank, passage.vector_score),
        )
        if rank is not None
    ]
    return _piece(f"[{number}] {passage.title}{page}", " · ".join(found), passage.text)


def _piece(where: str, about: str, text: str) -> Content:
    return Content("\n").join(
        [
            Content.assemble(plain(where, "bold"), "  ", plain(" ".join(about.split()), "dim")),
            plain(" ".join(text.split())),
            Content(""),
        ]
    )
