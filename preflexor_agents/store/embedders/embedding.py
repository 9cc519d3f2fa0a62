"""What an embedder is: text in, vectors of length 1 out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
"""(n, dim), rows of length 1 (or 0 where the text has nothing to embed)."""


class Embedder(Protocol):
    """What the store asks of an embedder; it may be called from any thread."""

    @property
    def spec(self) -> str:
        """What opens it again: see `open_embedder`."""

    @property
    def name(self) -> str:
        """Which vector space it makes; the store refuses vectors of another."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The normalised vectors of texts that are searched, (len(texts), dim).

        Raises:
            BackendError: the model could not embed; ModelError if it cannot be used at all.
        """

    def embed_query(self, text: str) -> Vectors:
        """The normalised vector of what is searched for, (1, dim); raises what `embed` raises."""


def normalised(rows: Vectors) -> Vectors:
    """The rows with length 1; what is no number counts as 0."""
    finite = np.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)
    lengths: Vectors = np.linalg.norm(finite, axis=1, keepdims=True)
    lengths[lengths == 0] = 1.0
    return np.asarray(finite / lengths, dtype=np.float32)


def checked(rows: Sequence[Sequence[float]], *, expected: int) -> Vectors:
    """A server's rows, normalised. Raises ValueError if they are not one vector per text, all of one length."""
    lengths = {len(row) for row in rows}
    if len(rows) != expected or len(lengths) > 1 or 0 in lengths:
        raise ValueError(f"gave {len(rows)} vectors for {expected} texts")
    return normalised(np.asarray(rows, dtype=np.float32).reshape(expected, -1))
