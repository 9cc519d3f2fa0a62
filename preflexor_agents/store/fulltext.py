"""Search by words: FTS5 and bm25 over the chunks' context and text, for any of the query's words.

bm25 is worked out for every chunk that has one of the words, which takes long where a word is common. Chunks that
have common words only cannot be among the best once k better ones are known (MaxScore, Turtle and Flood 1995), so
they are left out; the hits are the same.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from sqlite_utils import Database

from preflexor_agents.store.filters import Condition
from preflexor_agents.store.scan import Hit
from preflexor_agents.store.words import STOP_WORDS, fold

_MAX_QUERY_WORDS = 64
_WORD = re.compile(r"[^\W_]+")
_SATURATION = 2.2
"""k1 + 1 of FTS5's bm25: how many times its rarity a word can add to a score at most."""
_EXPECTED = 0.35
"""What the last of the best scores is expected to be, as a share of what all words together could add."""
_WORTHWHILE = 0.6
_FEW = 2000
"""Matches below this, or a larger share of them than above, are scored all: leaving out would not save time."""
_MARGIN = 1e-9
_WEIGHTS = "1.0, 1.0"
"""Of a match in the context and in the text."""


class _Word(NamedTuple):
    phrase: str
    chunks: int
    """That have it."""
    most: float
    """It adds to a score."""


def phrases(query: str) -> list[str]:
    """The query's telling words as FTS5 phrases; every word is quoted, so nothing in them can act as syntax."""
    found = list(dict.fromkeys(_WORD.findall(query)))
    telling = [word for word in found if fold(word) not in STOP_WORDS] or found
    return [f'"{word}"' for word in telling[:_MAX_QUERY_WORDS]]


def by_words(db: Database, query: str, *, k: int, among: Condition | None = None) -> list[Hit]:
    """The k chunks that fit the query's words best by bm25, best first, ties by id.

    Args:
        db: In a read transaction.
        query: Any text.
        k: How many at most.
        among: Which chunks are allowed.
    """
    asked = phrases(query)
    if not asked:
        return []
    words = _counted(db, asked)
    total = sum(word.chunks for word in words)
    needed = _without(words, below=_EXPECTED * _most(words))
    if total <= _FEW or sum(word.chunks for word in words[:needed]) > _WORTHWHILE * total:
        needed = len(words)
    while True:
        hits = _scored(db, words[:needed], words[needed:], k=k, among=among)
        least = hits[-1].score - _MARGIN if len(hits) == k else 0.0
        enough = _without(words, below=least)
        if enough <= needed:
            return hits
        needed = enough


def _counted(db: Database, asked: Sequence[str]) -> list[_Word]:
    """The words that there are, rarest first, with how much each can add.

    Ids only grow, so that the last one bounds the number of chunks.
    """
    total = db.conn.execute("SELECT coalesce(max(id), 0) FROM chunk").fetchone()[0]
    counted = []
    for phrase in asked:
        chunks = db.conn.execute("SELECT count(*) FROM chunk_fts WHERE chunk_fts MATCH ?", (phrase,)).fetchone()[0]
        if chunks:
            rarity = math.log((total - chunks + 0.5) / (chunks + 0.5))
            counted.append(_Word(phrase, chunks, _SATURATION * max(rarity, 1e-6)))
    return sorted(counted, key=lambda word: word.chunks)


def _without(words: Sequence[_Word], *, below: float) -> int:
    """How many of the words, rarest first, leave the rest unable to reach a score."""
    return next((i for i in range(len(words)) if _most(words[i:]) < below), len(words))


def _most(words: Sequence[_Word]) -> float:
    """The score that a chunk with none but these words cannot exceed."""
    return sum(word.most for word in words)


def _scored(
    db: Database, needed: Sequence[_Word], others: Sequence[_Word], *, k: int, among: Condition | None
) -> list[Hit]:
    """The best by bm25 over all the words, of the chunks that have one of those needed."""
    if not needed:
        return []
    expression, rest = (" OR ".join(word.phrase for word in words) for words in (needed, others))
    parts = (f"({expression}) AND ({rest})", f"({expression}) NOT ({rest})") if others else (expression,)
    sql = f"SELECT rowid, -bm25(chunk_fts, {_WEIGHTS}) AS score FROM chunk_fts WHERE chunk_fts MATCH ?"
    if among:
        sql += f" AND +rowid IN ({among.sql})"
    sql += " ORDER BY score DESC, rowid LIMIT ?"
    values = (*among.values, k) if among else (k,)
    hits = [Hit(id, score) for part in parts for id, score in db.conn.execute(sql, (part, *values))]
    return sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))[:k]
