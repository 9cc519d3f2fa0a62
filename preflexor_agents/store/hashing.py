"""Feature hashing of text: words and character n-grams as signed counts in a fixed number of buckets.

Deterministic across processes and machines: no hash of the interpreter is used. Feature hashing is Weinberger et
al. 2009 (arXiv 0902.2206); n-grams inside words with boundary marks are as in fastText (arXiv 1607.04606).
"""

import zlib
from collections.abc import Sequence

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
    for row, text in zip(rows, texts, strict=True):
        words = content_words(text)
        if words:
            _add(row, _word_hashes(words))
            _add(row, _ngram_hashes(words))
    return rows


def _add(row: npt.NDArray[np.float32], hashes: npt.NDArray[np.uint64]) -> None:
    """Add each distinct feature once, weighted by the logarithm of its count."""
    distinct, counts = np.unique(hashes, return_counts=True)
    signs = np.where(distinct >> np.uint64(63), -1.0, 1.0)
    buckets = ((distinct >> np.uint64(20)) % np.uint64(DIM)).astype(np.intp)
    np.add.at(row, buckets, (signs * np.log1p(counts)).astype(np.float32))


def _word_hashes(words: Sequence[str]) -> npt.NDArray[np.uint64]:
    codes = [zlib.crc32(stem(word).encode("utf-8", "replace")) for word in words]
    return _mixed(np.array(codes, dtype=np.uint64))


def _ngram_hashes(words: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Hashes of all n-grams that lie in one word, its boundaries counted as characters."""
    text = f" {' '.join(words)} ".encode("utf-32-le", "replace")
    codes = np.frombuffer(text, dtype="<u4").astype(np.uint64)
    is_space = codes == _SPACE
    found = []
    for n in _NGRAMS:
        count = len(codes) - n + 1
        if count <= 0:
            continue
        hashes = np.full(count, n, dtype=np.uint64)
        crossing = np.zeros(count, dtype=bool)
        for i in range(n):
            hashes = hashes * _MULTIPLIER + codes[i : i + count]
            if 0 < i < n - 1:
                crossing |= is_space[i : i + count]
        found.append(_mixed(hashes[~crossing]))
    return np.concatenate(found) if found else np.zeros(0, dtype=np.uint64)


def _mixed(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread the bits, so that any of them may serve as bucket or sign (the finaliser of splitmix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
