"""Embedding models in GGUF files, run in this process by llama.cpp: `gguf:PATH`."""

import ctypes
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from preflexor_agents.errors import BackendError, ModelError
from preflexor_agents.store.embedders.embedding import Vectors, normalised
from preflexor_agents.store.embedders.prefixes import prefixes_of
from preflexor_agents.store.paths import shown

if TYPE_CHECKING:
    from llama_cpp import Llama

_CONTEXT_TOK = 2048
_DIGEST_BYTES = 1 << 20
_THREADS = max((os.cpu_count() or 2) // 2, 1)
"""One for each real core: llama.cpp's threads wait for one another by spinning."""


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
        return self._embedded(texts, is_query=False)

    def embed_query(self, text: str) -> Vectors:
        """See `Embedder.embed_query`."""
        return self._embedded([text], is_query=True)

    def _embedded(self, texts: Sequence[str], *, is_query: bool) -> Vectors:
        with self._lock:
            model = self._loaded()
            prefixes = prefixes_of(model.metadata.get("general.name", ""))
            prefix = prefixes.query if is_query else prefixes.document
            try:
                rows = [_embed_one(model, prefix + text if text else "") for text in texts]
            except (RuntimeError, ValueError) as error:
                raise BackendError(f"embedder {shown(self.path)} failed: {error}") from error
            return normalised(np.asarray(rows, dtype=np.float32).reshape(len(texts), model.n_embd()))

    def _loaded(self) -> "Llama":
        if self._model is None:
            self._model = _load_gguf(self.path)
        return self._model


def _digest(path: Path) -> str:
    """What tells one model file from another wherever it lies: its size, its first and its last megabyte."""
    try:
        with path.open("rb") as file:
            head = file.read(_DIGEST_BYTES)
            size_bytes = file.seek(0, 2)
            file.seek(max(0, size_bytes - _DIGEST_BYTES))
            tail = file.read(_DIGEST_BYTES)
    except OSError as error:
        raise ModelError(f"embedder model {shown(path)} cannot be read: {error.strerror}") from error
    if not head.startswith(b"GGUF"):
        raise ModelError(f"embedder model {shown(path)} is no GGUF file")
    return hashlib.sha256(head + tail + size_bytes.to_bytes(8, "little")).hexdigest()[:16]


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
            n_threads_batch=_THREADS,
            embedding=True,
            pooling_type=pooling,
            verbose=False,
        )

    try:
        with _silent():
            model = load(_CONTEXT_TOK, llama_cpp.LLAMA_POOLING_TYPE_UNSPECIFIED)
            trained_tok = model.metadata.get(f"{model.metadata['general.architecture']}.context_length")
            context_tok = min(int(trained_tok or _CONTEXT_TOK), _CONTEXT_TOK)
            pooled = int(model.pooling_type()) != llama_cpp.LLAMA_POOLING_TYPE_NONE
            if context_tok < _CONTEXT_TOK or not pooled:
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
