"""Hybrid search: words by bm25 and vectors by cosine, fused by reciprocal rank.

Reciprocal rank fusion with k = 60 is Cormack et al. 2009 (SIGIR); it needs no scores that compare.
"""

import re
from collections.abc import Sequence

from sqlite_utils import Database

from preflexor_agents.events import Passage
from preflexor_agents.store.vectors import Hit
from preflexor_agents.store.words import STOP_WORDS, fold

CANDIDATES = 50
"""Chunks taken from each side before fusing."""
RRF_K = 60
_MAX_QUERY_WORDS = 64
_WORD = re.compile(r"[^\W_]+")
_CONTEXT_WEIGHT, _TEXT_WEIGHT = 1.0, 1.0


def match_expression(query: str) -> str:
    """An FTS5 expression that finds any of the query's words; empty if it has none.

    Every word is quoted, so nothing in the query can act as FTS5 syntax.
    """
    found = list(dict.fromkeys(_WORD.findall(query)))
    telling = [word for word in found if fold(word) not in STOP_WORDS] or found
    return " OR ".join(f'"{word}"' for word in telling[:_MAX_QUERY_WORDS])


def by_words(db: Database, query: str, *, k: int) -> list[Hit]:
    """The k chunks that fit the query's words best by bm25, best first, ties by id."""
    expression = match_expression(query)
    if not expression:
        return []
    sql = f"""SELECT rowid, -bm25(chunk_fts, {_CONTEXT_WEIGHT}, {_TEXT_WEIGHT}) AS score
              FROM chunk_fts WHERE chunk_fts MATCH ? ORDER BY score DESC, rowid LIMIT ?"""
    return [Hit(id, score) for id, score in db.conn.execute(sql, (expression, k))]


def fuse(by_words: Sequence[Hit], by_vector: Sequence[Hit], *, k: int) -> list[Hit]:
    """The k best of both lists by reciprocal rank, best first, ties by id."""
    scores: dict[int, float] = {}
    for hits in (by_words, by_vector):
        for rank, hit in enumerate(hits, 1):
            scores[hit.chunk_id] = scores.get(hit.chunk_id, 0.0) + 1 / (RRF_K + rank)
    ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return [Hit(id, score) for id, score in ordered[:k]]


def passages(db: Database, fused: Sequence[Hit], by_words: Sequence[Hit], by_vector: Sequence[Hit]) -> list[Passage]:
    """The fused hits as passages that say how each side ranked them."""
    word_ranks = {hit.chunk_id: (rank, hit.score) for rank, hit in enumerate(by_words, 1)}
    vector_ranks = {hit.chunk_id: (rank, hit.score) for rank, hit in enumerate(by_vector, 1)}
    sql = """SELECT d.source, d.title, c.page, c.start, c."end", c.text
             FROM chunk c JOIN document d ON d.id = c.document_id WHERE c.id = ?"""
    found = []
    for hit in fused:
        source, title, page, start, end, text = db.conn.execute(sql, (hit.chunk_id,)).fetchone()
        text_rank, text_score = word_ranks.get(hit.chunk_id, (None, None))
        vector_rank, vector_score = vector_ranks.get(hit.chunk_id, (None, None))
        found.append(
            Passage(
                chunk_id=hit.chunk_id,
                source=source,
                title=title,
                page=page,
                start=start,
                end=end,
                text=text,
                score=hit.score,
                vector_rank=vector_rank,
                vector_score=vector_score,
                text_rank=text_rank,
                text_score=text_score,
            )
        )
    return found
