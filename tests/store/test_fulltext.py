"""Search by words: what is left out of the scoring does not change the hits."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils import Database

from preflexor_agents.store import fulltext, schema
from preflexor_agents.store.filters import Condition

WORDS = [f"word{n}" for n in range(60)]


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Four thousand chunks of words some of which are in most chunks and some in a few."""
    opened = schema.open_file(tmp_path_factory.mktemp("words") / "a.db", create=True)
    rng = random.Random(3)
    weights = [1 / (n + 1) ** 1.3 for n in range(len(WORDS))]
    opened.conn.execute(
        "INSERT INTO document (source, title, sha256, parser, size_bytes, text) VALUES ('','','','',1,'')"
    )
    opened.conn.execute("BEGIN")
    for n in range(4000):
        text = " ".join(rng.choices(WORDS, weights, k=rng.randint(3, 40)))
        sql = "INSERT INTO chunk (document_id, ord, start, \"end\", context, text) VALUES (1, ?, ?, ?, 'notes', ?)"
        opened.conn.execute(sql, (n, n, n + 1, text))
    opened.conn.execute("COMMIT")
    yield opened
    opened.close()


@given(
    words=st.lists(st.sampled_from([*WORDS, "notes", "absent"]), min_size=1, max_size=9),
    k=st.sampled_from([1, 5, 50]),
    among=st.sampled_from([None, Condition("SELECT id FROM chunk WHERE id % 7 = 0", ())]),
)
@settings(max_examples=150, deadline=None)
def test_the_hits_are_those_of_scoring_every_chunk(
    db: Database, words: list[str], k: int, among: Condition | None
) -> None:
    limit = f" AND +rowid IN ({among.sql})" if among else ""
    sql = f"""SELECT rowid, -bm25(chunk_fts, 1.0, 1.0) AS score FROM chunk_fts WHERE chunk_fts MATCH ?{limit}
              ORDER BY score DESC, rowid LIMIT ?"""
    everything = db.conn.execute(sql, (rarest_first(db, words), k)).fetchall()
    found = fulltext.by_words(db, " ".join(words), k=k, among=among)
    assert [(hit.chunk_id, hit.score) for hit in found] == everything


def rarest_first(db: Database, words: list[str]) -> str:
    """The words in the order in which their scores are summed, so that sums are equal to the last digit."""
    count = "SELECT count(*) FROM chunk_fts WHERE chunk_fts MATCH ?"
    counts = {word: db.conn.execute(count, (word,)).fetchone()[0] for word in dict.fromkeys(words)}
    return " OR ".join(sorted(counts, key=lambda word: counts[word]))


def test_chunks_with_common_words_only_are_not_scored(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[int] = []
    plain = fulltext._scored

    def counting(db, needed, others, *, k, among):  # type: ignore[no-untyped-def]
        scored.append(len(others))
        return plain(db, needed, others, k=k, among=among)

    monkeypatch.setattr(fulltext, "_scored", counting)
    assert fulltext.by_words(db, "word0 word1 word2 word59 word58", k=5)
    assert scored[-1] > 0
