"""Embedding models behind an OpenAI-compatible server: `openai:NAME@BASE_URL`."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from preflexor_agents import openai_endpoint
from preflexor_agents.errors import BackendError, ModelError
from preflexor_agents.store.embedders.embedding import Vectors, checked
from preflexor_agents.store.embedders.prefixes import prefixes_of

if TYPE_CHECKING:
    import httpx

_BATCH = 64
"""Texts in one request."""
_ATTEMPTS = 4
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_TIMEOUT_S = 60.0


class OpenAIEmbedder:
    """A model that answers `POST BASE_URL/embeddings`."""

    def __init__(self, model: str, base_url: str) -> None:
        self.model = model
        self.base_url = base_url
        self.spec = f"openai:{model}@{self.base_url}"
        self.name = self.spec
        self._prefixes = prefixes_of(model)
        self._dim = 0
        self._client: httpx.Client | None = None

    @property
    def dim(self) -> int:
        """Length of a vector; asks the server once."""
        return self._dim or self.embed(["dimension"]).shape[1]

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`. What servers refuse because they are busy is asked again a few times."""
        return self._embedded([self._prefixes.document + text for text in texts])

    def embed_query(self, text: str) -> Vectors:
        """See `Embedder.embed_query`."""
        return self._embedded([self._prefixes.query + text])

    def _embedded(self, texts: list[str]) -> Vectors:
        given = [text.encode("utf-8", "replace").decode("utf-8") or " " for text in texts]
        rows: list[Sequence[float]] = []
        for start in range(0, len(given), _BATCH):
            batch = given[start : start + _BATCH]
            answer = self._asked(batch)
            try:
                data = sorted(answer.json()["data"], key=lambda item: item["index"])
                rows += [[float(number) for number in item["embedding"]] for item in data]
            except (ValueError, TypeError, KeyError) as error:
                raise BackendError(f"{self.base_url} could not embed with {self.model!r}: no vectors in it") from error
        try:
            vectors = checked(rows, expected=len(given))
        except ValueError as error:
            raise BackendError(f"{self.base_url} {error} with {self.model!r}; try another server") from error
        self._dim = vectors.shape[1]
        return vectors

    def _asked(self, batch: list[str]) -> "httpx.Response":
        import httpx

        self._client = self._client or httpx.Client(timeout=_TIMEOUT_S)
        headers = openai_endpoint.headers(self.base_url)
        body: dict[str, Any] = {"model": self.model, "input": batch, "encoding_format": "float"}
        for attempt in range(_ATTEMPTS):
            try:
                answer = self._client.post(f"{self.base_url}/embeddings", json=body, headers=headers)
            except httpx.ConnectError as error:
                raise BackendError(
                    f"{self.base_url} does not answer; start the server or correct the address"
                ) from error
            except httpx.HTTPError as error:
                reason = str(error) or type(error).__name__
                raise BackendError(f"{self.base_url} could not embed with {self.model!r}: {reason}") from error
            busy = answer.status_code == 429 or answer.status_code >= 500
            if not busy or attempt == _ATTEMPTS - 1:
                break
            time.sleep(_wait_s(answer, attempt))
        self._refuse(answer)
        return answer

    def _refuse(self, answer: "httpx.Response") -> None:
        """Raise what an answer means that is no success."""
        if answer.is_success:
            return
        reason = openai_endpoint.reason(answer.status_code, answer.text)
        match answer.status_code:
            case 401 | 403:
                remedy = openai_endpoint.key_remedy(self.base_url)
                raise ModelError(f"{self.base_url} refused the key ({reason}); {remedy}")
            case 404:
                raise ModelError(f"{self.base_url} has no embedding model {self.model!r} ({reason}); name another one")
            case 429:
                raise BackendError(f"{self.base_url} has had too many requests ({reason}); try again later")
            case _:
                raise BackendError(f"{self.base_url} could not embed with {self.model!r}: {reason}")


def _wait_s(answer: "httpx.Response", attempt: int) -> float:
    """What the server asks for, else twice as long each time."""
    try:
        asked = float(answer.headers.get("Retry-After", ""))
    except ValueError:
        asked = _FIRST_WAIT_S * 2**attempt
    return min(max(asked, 0.0), _LONGEST_WAIT_S)
