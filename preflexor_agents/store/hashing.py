"""Feature hashing of text: words and character n-grams as signed counts in a fixed number of buckets.

Deterministic across processes and machines: no hash of the interpreter is used. Feature hashing is Weinberger et
al. 2009 (arXiv 0902.2206); n-grams inside words with boundary marks are as in fastText (arXiv 1607.04606).
"""

import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from preflexor_agents.store.words import content_words, stem

VERSION = 1
"""Changes whenever the vectors do; part of the embedder's name."""
DIM = 512
_NGRAMS = (3, 4, 5)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SPACE = np.uint64(ord(" "))


def features(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Unnormalised feature vectors, (len(texts), DIM); a text without letters or digits gives zeros."""
    rows = np.zeros((len(texts), DIM), dtype=np.float32)
    words = [content_words(text) for text in texts]
    for row, found, ngrams in zip(rows, words, _ngram_hashes(words), strict=True):
        if found:
            _add(row, _word_hashes(found))
            _add(row, ngrams)
    return rows


def _add(row: npt.NDArray[np.float32], hashes: npt.NDArray[np.uint64]) -> None:
    """Add each distinct feature once, in order, weighted by the logarithm of its count; sorts the hashes."""
    if not len(hashes):
        return
    hashes.sort()
    firsts = np.flatnonzero(np.concatenate(([True], hashes[1:] != hashes[:-1])))
    distinct = hashes[firsts]
    counts = np.diff(firsts, append=len(hashes))
    signs = np.where(distinct >> np.uint64(63), -1.0, 1.0)
    buckets = ((distinct >> np.uint64(20)) % np.uint64(DIM)).astype(np.intp)
    np.add.at(row, buckets, (signs * np.log1p(counts)).astype(np.float32))


def _word_hashes(words: Sequence[str]) -> npt.NDArray[np.uint64]:
    return _mixed(np.fromiter(map(_code, words), dtype=np.uint64, count=len(words)))


@lru_cache(maxsize=1 << 16)
def _code(word: str) -> int:
    return zlib.crc32(stem(word).encode("utf-8", "replace"))


def _ngram_hashes(texts: Sequence[Sequence[str]]) -> list[npt.NDArray[np.uint64]]:
    """For each text the hashes of all n-grams that lie in one of its words, its boundaries counted as characters.

    All texts are hashed at once: an n-gram that spans two of them has the space between them inside.
    """
    joined = [f" {' '.join(words)} ".encode("utf-32-le", "replace") for words in texts]
    ends = np.cumsum([len(text) // 4 for text in joined])
    codes = np.frombuffer(b"".join(joined), dtype="<u4").astype(np.uint64)
    is_space = codes == _SPACE
    found: list[list[npt.NDArray[np.uint64]]] = [[] for _ in texts]
    for n in _NGRAMS:
        count = max(len(codes) - n + 1, 0)
        hashes = np.full(count, n, dtype=np.uint64)
        crossing = np.zeros(count, dtype=bool)
        for i in range(n):
            hashes *= _MULTIPLIER
            hashes += codes[i : i + count]
            if 0 < i < n - 1:
                crossing |= is_space[i : i + count]
        kept = np.flatnonzero(~crossing)
        mixed = _mixed(hashes[kept])
        for parts, part in zip(found, np.split(mixed, np.searchsorted(kept, ends[:-1])), strict=True):
            parts.append(part)
    return [np.concatenate(parts) for parts in found]


def _mixed(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread the bits, so that any of them may serve as bucket or sign (the finaliser of splitmix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
