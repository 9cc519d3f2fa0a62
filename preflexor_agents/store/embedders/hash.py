"""The embedder that is always there: `hash`."""

from collections.abc import Sequence

from preflexor_agents.store import hashing
from preflexor_agents.store.embedders.embedding import Vectors, normalised


class HashEmbedder:
    """Hashed words and character n-grams: no model, no meaning, only likeness of spelling; always there and fast.

    It finds a text that shares words, word parts and inflections with the query, but no synonyms.
    """

    spec = "hash"
    name = f"hash/{hashing.VERSION}"
    dim = hashing.DIM

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`."""
        return normalised(hashing.features(texts))

    def embed_query(self, text: str) -> Vectors:
        """See `Embedder.embed_query`."""
        return self.embed([text])
