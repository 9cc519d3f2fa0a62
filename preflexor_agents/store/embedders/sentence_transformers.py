"""Models of the sentence-transformers package, by name or folder: `sentence-transformers:NAME_OR_PATH`."""

import hashlib
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from preflexor_agents.errors import BackendError, ModelError
from preflexor_agents.store.embedders.embedding import Vectors, normalised
from preflexor_agents.store.embedders.prefixes import Prefixes, prefixes_of
from preflexor_agents.store.paths import printable

_INSTALL = "pip install sentence-transformers"
_DIGEST_BYTES = 1 << 20


class SentenceTransformerEmbedder:
    """A model run in this process by PyTorch. A name that is no folder is fetched from Hugging Face once."""

    def __init__(self, model: str) -> None:
        folder = Path(model).expanduser()
        local = folder.is_dir()
        if not local and (model.startswith((".", "/", "~")) or model.count("/") > 1):
            raise ModelError(f"embedder folder {model!r} does not exist; name a folder or a model on Hugging Face")
        self.model = str(folder.absolute()) if local else model
        self.spec = f"sentence-transformers:{self.model}"
        self.name = f"sentence-transformers:{_digest(folder)}" if local else self.spec
        self._lock = threading.Lock()
        self._loaded: Any = None

    @property
    def dim(self) -> int:
        """Length of a vector; loads the model."""
        return int(self.embed(["dimension"]).shape[1])

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`. Texts longer than the model's context are cut."""
        return self._embedded(texts, is_query=False)

    def embed_query(self, text: str) -> Vectors:
        """See `Embedder.embed_query`."""
        return self._embedded([text], is_query=True)

    def _embedded(self, texts: Sequence[str], *, is_query: bool) -> Vectors:
        with self._lock:
            self._loaded = self._loaded or _load(self.model)
            prefixes = _prefixes(self._loaded, self.model)
            prefix = prefixes.query if is_query else prefixes.document
            given = [prefix + text.encode("utf-8", "replace").decode("utf-8") for text in texts]
            try:
                rows = self._loaded.encode(given, prompt="", convert_to_numpy=True, show_progress_bar=False)
            except (RuntimeError, ValueError) as error:
                reason = printable(" ".join(str(error).split()))
                raise BackendError(f"embedder {printable(self.spec)} failed: {reason}") from error
        return normalised(np.asarray(rows, dtype=np.float32).reshape(len(given), -1))


def _load(model: str) -> Any:
    """The package's model; untyped, since the package need not be installed."""
    try:
        package = import_module("sentence_transformers")
    except ImportError as error:
        raise ModelError(
            f"embedder sentence-transformers:{printable(model)} needs a package ({error}); {_INSTALL}"
        ) from error
    try:
        return package.SentenceTransformer(model)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"embedder sentence-transformers:{printable(model)} cannot be loaded: {printable(reason)}"
        ) from error


def _prefixes(model: Any, name: str) -> Prefixes:
    """What the model's own configuration says, else what is known of its name."""
    prompts = model.prompts
    if prompts.get("query") or prompts.get("document"):
        return Prefixes(prompts.get("query") or "", prompts.get("document") or "")
    return prefixes_of(Path(name).name)


def _digest(folder: Path) -> str:
    """What tells one model from another wherever it lies: names, sizes and beginnings of its files."""
    found = hashlib.sha256()
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in (".json", ".safetensors"))
    if not files:
        raise ModelError(
            f"embedder folder {str(folder)!r} holds no model; name a folder that sentence-transformers saved"
        )
    try:
        for path in files:
            found.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                found.update(file.read(_DIGEST_BYTES))
    except OSError as error:
        raise ModelError(f"embedder folder {str(folder)!r} cannot be read: {error.strerror}") from error
    return found.hexdigest()[:16]
