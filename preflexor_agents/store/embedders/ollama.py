"""Embedding models that Ollama serves: `ollama:NAME`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from preflexor_agents.errors import BackendError, ModelError
from preflexor_agents.store.embedders.embedding import Vectors, checked
from preflexor_agents.store.embedders.prefixes import prefixes_of

if TYPE_CHECKING:
    import ollama


class OllamaEmbedder:
    """An embedding model served by Ollama (`/api/embed`)."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.spec = f"ollama:{model}"
        self.name = self.spec if ":" in model else f"{self.spec}:latest"
        self._prefixes = prefixes_of(model)
        self._dim = 0
        self._client: ollama.Client | None = None

    @property
    def dim(self) -> int:
        """Length of a vector; asks the server once."""
        return self._dim or self.embed(["dimension"]).shape[1]

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`. Texts longer than the model's context are cut by the server."""
        return self._asked([self._prefixes.document + text for text in texts])

    def embed_query(self, text: str) -> Vectors:
        """See `Embedder.embed_query`."""
        return self._asked([self._prefixes.query + text])

    def _asked(self, texts: list[str]) -> Vectors:
        import httpx
        import ollama

        try:
            self._client = self._client or ollama.Client()
            rows = self._client.embed(model=self.model, input=texts).embeddings
        except ConnectionError as error:
            raise BackendError("Ollama does not answer; start it with `ollama serve`") from error
        except ollama.ResponseError as error:
            if error.status_code == 404:
                raise ModelError(
                    f"Ollama has no model {self.model!r}; get it with `ollama pull {self.model}`"
                ) from error
            raise BackendError(f"Ollama could not embed with {self.model!r}: {error.error}") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise BackendError(f"Ollama could not embed with {self.model!r}: {reason}") from error
        except (ValueError, TypeError) as error:
            raise BackendError(f"Ollama could not embed with {self.model!r}: its answer has no vectors") from error
        try:
            vectors = checked(rows, expected=len(texts))
        except ValueError as error:
            raise BackendError(f"Ollama {error} with {self.model!r}; update Ollama") from error
        self._dim = vectors.shape[1]
        return vectors
