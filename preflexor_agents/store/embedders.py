"""Embedders: what turns text into vectors, named by a SPEC: `hash`, `ollama:NAME` or `gguf:PATH`."""

import ctypes
import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from preflexor_agents.errors import BackendError, InputError, ModelError
from preflexor_agents.store import hashing
from preflexor_agents.store.paths import shown

if TYPE_CHECKING:
    import ollama
    from llama_cpp import Llama

Vectors = npt.NDArray[np.float32]
"""(n, dim), rows of length 1 (or 0 where the text has nothing to embed)."""
SPECS = "hash, ollama:NAME or gguf:PATH"
_GGUF_CONTEXT_TOK = 2048
_DIGEST_BYTES = 1 << 20


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
        """The normalised vectors of the texts, (len(texts), dim).

        Raises:
            BackendError: the model could not embed; ModelError if it cannot be used at all.
        """


def open_embedder(spec: str) -> Embedder:
    """The embedder that SPEC names. Models are loaded and servers asked at the first use.

    Raises:
        InputError: the SPEC is none, or a GGUF file does not exist (ModelError).
    """
    kind, _, rest = spec.partition(":")
    match kind:
        case "hash" if not rest:
            return HashEmbedder()
        case "ollama" if rest:
            return OllamaEmbedder(rest)
        case "gguf" if rest:
            return GgufEmbedder(Path(rest))
        case _:
            raise InputError(f"embedder {spec!r} is unknown; use {SPECS}")


class HashEmbedder:
    """Hashed words and character n-grams: no model, no meaning, only likeness of spelling; always there and fast.

    It finds a text that shares words, word parts and inflections with the query, but no synonyms.
    """

    spec = "hash"
    name = f"hash/{hashing.VERSION}"
    dim = hashing.DIM

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`."""
        return _normalised(hashing.features(texts))


class OllamaEmbedder:
    """An embedding model served by Ollama (`/api/embed`)."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.spec = f"ollama:{model}"
        self.name = self.spec if ":" in model else f"{self.spec}:latest"
        self._dim = 0
        self._client: ollama.Client | None = None

    @property
    def dim(self) -> int:
        """Length of a vector; asks the server once."""
        return self._dim or self.embed(["dimension"]).shape[1]

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`. Texts longer than the model's context are cut by the server."""
        import httpx
        import ollama

        try:
            self._client = self._client or ollama.Client()
            rows = self._client.embed(model=self.model, input=list(texts)).embeddings
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
        return self._checked(rows, len(texts))

    def _checked(self, rows: Sequence[Sequence[float]], expected: int) -> Vectors:
        lengths = {len(row) for row in rows}
        if len(rows) != expected or len(lengths) > 1 or 0 in lengths:
            raise BackendError(
                f"Ollama gave {len(rows)} vectors for {expected} texts with {self.model!r}; update Ollama"
            )
        self._dim = lengths.pop() if lengths else self._dim
        return _normalised(np.asarray(rows, dtype=np.float32).reshape(expected, -1))


class GgufEmbedder:
    """An embedding model in a GGUF file, run in this process by llama.cpp, one text at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = f"gguf:{path.absolute()}"
        self.name = f"gguf:{_digest(path)}"
        self._lock = threading.Lock()
        self._model: Llama | None = None

    @property
    def dim(self) -> int:
        """Length of a vector; loads the model."""
        with self._lock:
            return int(self._loaded().n_embd())

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`. Texts longer than the model's context are cut."""
        with self._lock:
            model = self._loaded()
            try:
                rows = [_embed_one(model, text) for text in texts]
            except (RuntimeError, ValueError) as error:
                raise BackendError(f"embedder {shown(self.path)} failed: {error}") from error
            return _normalised(np.asarray(rows, dtype=np.float32).reshape(len(texts), model.n_embd()))

    def _loaded(self) -> "Llama":
        if self._model is None:
            self._model = _load_gguf(self.path)
        return self._model


def _digest(path: Path) -> str:
    """What tells one model file from another wherever it lies: its size and its first megabyte."""
    try:
        with path.open("rb") as file:
            head = file.read(_DIGEST_BYTES)
            size_bytes = file.seek(0, 2)
    except OSError as error:
        raise ModelError(f"embedder model {shown(path)} cannot be read: {error.strerror}") from error
    if not head.startswith(b"GGUF"):
        raise ModelError(f"embedder model {shown(path)} is no GGUF file")
    return hashlib.sha256(head + size_bytes.to_bytes(8, "little")).hexdigest()[:16]


def _embed_one(model: "Llama", text: str) -> list[float]:
    """One text's vector; zeros for a text without tokens, which llama.cpp must not be given."""
    data = text.encode("utf-8", "replace")
    if not model.tokenize(data):
        return [0.0] * model.n_embd()
    vector: list[float] = model.embed(data.decode("utf-8"))
    return vector


def _load_gguf(path: Path) -> "Llama":
    """The model with a context no longer than it was trained for and one vector per text."""
    import llama_cpp

    def load(context_tok: int, pooling: int) -> "Llama":
        return llama_cpp.Llama(
            str(path),
            n_ctx=context_tok,
            n_batch=context_tok,
            n_ubatch=context_tok,
            embedding=True,
            pooling_type=pooling,
            verbose=False,
        )

    try:
        with _silent():
            model = load(_GGUF_CONTEXT_TOK, llama_cpp.LLAMA_POOLING_TYPE_UNSPECIFIED)
            trained_tok = model.metadata.get(f"{model.metadata['general.architecture']}.context_length")
            context_tok = min(int(trained_tok or _GGUF_CONTEXT_TOK), _GGUF_CONTEXT_TOK)
            pooled = int(model.pooling_type()) != llama_cpp.LLAMA_POOLING_TYPE_NONE
            if context_tok < _GGUF_CONTEXT_TOK or not pooled:
                pooling = llama_cpp.LLAMA_POOLING_TYPE_UNSPECIFIED if pooled else llama_cpp.LLAMA_POOLING_TYPE_MEAN
                model.close()
                model = load(context_tok, pooling)
    except ValueError as error:
        raise ModelError(f"embedder model {shown(path)} cannot be loaded: {error}") from error
    return model


@contextmanager
def _silent() -> Iterator[None]:
    """Keep llama.cpp's own lines about context sizes and pooling off the terminal."""
    import llama_cpp

    before, data = llama_cpp.llama_log_callback(), ctypes.c_void_p()
    nothing = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_get(ctypes.byref(before), ctypes.byref(data))
    llama_cpp.llama_log_set(nothing, None)
    try:
        yield
    finally:
        llama_cpp.llama_log_set(before, data)


def _normalised(rows: Vectors) -> Vectors:
    finite = np.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)
    lengths: Vectors = np.linalg.norm(finite, axis=1, keepdims=True)
    lengths[lengths == 0] = 1.0
    return np.asarray(finite / lengths, dtype=np.float32)
