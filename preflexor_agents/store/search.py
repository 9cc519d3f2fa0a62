"""Hybrid search: words by bm25 and vectors by cosine, fused by reciprocal rank, chosen to cover the question.

Reciprocal rank fusion with k = 60 is Cormack et al. 2009 (SIGIR); it needs no scores that compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlite_utils import Database

from preflexor_agents.errors import ConfigError
from preflexor_agents.events import Passage
from preflexor_agents.store import diversity, vectors
from preflexor_agents.store.coverage import aspects
from preflexor_agents.store.embedders import Vectors
from preflexor_agents.store.filters import Condition
from preflexor_agents.store.fulltext import by_words
from preflexor_agents.store.matrix import Matrix
from preflexor_agents.store.scan import Hit
from preflexor_agents.store.vectors import Space

MAX_RESULTS = 1000
CANDIDATES = 50
"""Chunks taken from each side before fusing; of the fused ones as many are looked at for what they say."""
RERANKED = 20
"""Passages that a reranker judges, if not more are asked for: each costs a call of a model."""
RRF_K = 60
SHARPNESS = 2
"""Power of the fused score where it is weighed against what a passage tells: its scores lie close together."""


class Reranker(Protocol):
    """Judges passages one by one against the query, as a model can; it may be called from any thread."""

    def scores(self, query: str, passages: Sequence[Passage]) -> Sequence[float]:
        """How well each passage answers the query, not negative, larger is better, (len(passages),).

        Raises:
            BackendError: the model failed.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is asked for."""

    query: str
    k: int
    among: Condition | None
    diversity: float
    pool: int
    """Passages to choose the k from."""


def asked(query: str, *, k: int, among: Condition | None, diversity: float) -> Search:
    """The search, checked. Raises ConfigError if `k` or `diversity` is out of range."""
    if not 1 <= k <= MAX_RESULTS:
        raise ConfigError(f"k is {k}; it must be 1 to {MAX_RESULTS}")
    if not 0 <= diversity <= 1:
        raise ConfigError(f"diversity is {diversity}; it must be 0 to 1")
    return Search(query=query, k=k, among=among, diversity=diversity, pool=max(k, CANDIDATES))


@dataclass(frozen=True, slots=True)
class Found:
    """Passages to choose from, best first."""

    passages: list[Passage]
    contexts: list[str]
    """The headings that each stands under."""
    vectors: Vectors | None
    """Of each, (n, dim); none where they are not needed."""


def find(db: Database, search: Search, *, space: Space, vector: Vectors, has_vec: bool, matrix: Matrix | None) -> Found:
    """Search words and vectors, and fuse; in a read transaction, so that both see the same chunks."""
    count = max(search.pool, CANDIDATES)
    words = by_words(db, search.query, k=count, among=search.among)
    nearest = vectors.nearest(db, space, vector, k=count, has_vec=has_vec, among=search.among, matrix=matrix)
    fused = fuse(words, nearest, k=search.pool)
    rows = vectors.of(db, space, [hit.chunk_id for hit in fused]) if search.diversity else None
    return Found(passages(db, fused, words, nearest), contexts(db, fused), rows)


def choose(search: Search, found: Found, reranker: Reranker | None) -> list[Passage]:
    """The k of what was found that together tell most of what is asked, the best first; not too alike.

    A reranker judges the first of them one by one; its order counts then.
    """
    shown = zip(found.contexts, found.passages, strict=True)
    texts = [f"{context}\n{passage.text}" for context, passage in shown][:CANDIDATES]
    relevance = [passage.score**SHARPNESS for passage in found.passages]
    covers = aspects(search.query, texts)
    if reranker is None:
        order = diversity.choose(
            relevance, k=search.k, aspects=covers, vectors=found.vectors, diversity=search.diversity
        )
        return [found.passages[i] for i in order]
    order = diversity.choose(relevance, k=max(search.k, RERANKED), aspects=covers)
    judged = [found.passages[i] for i in order]
    rows = None if found.vectors is None else found.vectors[order]
    scores = reranker.scores(search.query, judged) if judged else []
    order = diversity.choose(scores, k=search.k, vectors=rows, diversity=search.diversity)
    return [judged[i] for i in order]


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


def contexts(db: Database, hits: Sequence[Hit]) -> list[str]:
    """The headings that chunks stand under, outermost first."""
    sql = "SELECT context FROM chunk WHERE id = ?"
    return [db.conn.execute(sql, (hit.chunk_id,)).fetchone()[0] for hit in hits]
