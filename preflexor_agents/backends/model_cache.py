"""GGUF models shared by everyone in this process who names the same file and settings.

A model is loaded for its first user and freed some time after its last one, so a host that builds its team anew for
each run does not load it each time. While a model is held, one thread waits for the moment to free it.
"""

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from preflexor_agents.backends.llamacpp import LlamaCppBackend, Loading, begin_loading, discard
from preflexor_agents.errors import ModelError

LINGER_S = 300.0
"""How long a model that nobody uses stays loaded unless asked otherwise; Ollama's default."""

if TYPE_CHECKING:
    from preflexor_agents.backends.model_file import ModelFile
    from preflexor_agents.backends.model_text import ModelText
    from preflexor_agents.backends.tokens import Vocabulary


class Key(NamedTuple):
    """What makes two users share a model."""

    path: Path
    """Resolved."""
    context_tok: int
    threads: int | None


@dataclass(slots=True, eq=False)
class Shared:
    """A model with its users. The cache's lock guards `users` and `free_at`, its own lock the rest."""

    key: Key
    users: int = 0
    free_at: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    loading: Loading | None = None
    backend: LlamaCppBackend | None = None
    vocabulary: "ModelFile | None" = None
    text: "ModelText[Vocabulary] | None" = None


class Lease:
    """One user's hold on a shared model; nothing is loaded before it is needed."""

    def __init__(self, shared: Shared, messages: "SimpleQueue[Message]") -> None:
        self._shared = shared
        self._messages = messages

    async def backend(self) -> LlamaCppBackend:
        """The loaded model. Raises ModelError if it cannot be loaded; a later call tries again."""
        shared = self._shared
        with shared.lock:
            if shared.loading is None:
                key = shared.key
                shared.loading = begin_loading(key.path, context_tok=key.context_tok, threads=key.threads)
            loading = shared.loading
        try:
            model = await asyncio.shield(asyncio.wrap_future(loading.model))
        except ModelError:
            with shared.lock:
                if shared.loading is loading:
                    shared.loading = None
            loading.worker.shutdown(wait=False)
            raise
        with shared.lock:
            if shared.backend is None:
                shared.backend = LlamaCppBackend(f"gguf:{shared.key.path}", model, loading.worker)
            return shared.backend

    def text(self) -> "ModelText[Vocabulary]":
        """The model's vocabulary and template; read without the weights, now, if it is not loaded yet.

        Raises:
            ModelError: the file cannot be used.
        """
        shared = self._shared
        with shared.lock:
            if shared.backend is not None and shared.loading is not None:
                return shared.loading.model.result().text
            if shared.text is None:
                from preflexor_agents.backends import model_file
                from preflexor_agents.backends.model_text import ModelText
                from preflexor_agents.backends.tokens import Vocabulary

                file = model_file.load(shared.key.path, vocabulary_only=True)
                try:
                    shared.text = ModelText(file, Vocabulary(file.vocabulary))
                except ModelError as e:
                    file.close()
                    raise ModelError(f"{shared.key.path}: {e}") from None
                shared.vocabulary = file
            return shared.text

    def release(self, linger_s: float) -> None:
        """Let go, once; the model stays for so many seconds if nobody else holds it.

        Thread-safe, and takes no lock, so the garbage collector may call it at any moment.
        """
        self._messages.put(Release(self._shared, linger_s))


class Release(NamedTuple):
    """A user that let go."""

    shared: Shared
    linger_s: float


Message = Release | threading.Event
"""What the waiting thread is told: a release, or to free what is idle now and set the event."""


class ModelCache:
    """The models of a process; there is one, MODELS."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shared: dict[Key, Shared] = {}
        self._messages: SimpleQueue[Message] = SimpleQueue()
        self._waiting: threading.Thread | None = None

    def lease(self, path: Path, *, context_tok: int, threads: int | None) -> Lease:
        """Hold a model, loaded or not. The file is not looked at."""
        key = Key(path.resolve(), context_tok, threads)
        with self._lock:
            shared = self._shared.setdefault(key, Shared(key))
            shared.users += 1
            if self._waiting is None:
                self._waiting = threading.Thread(target=self._wait, name="preflexor models", daemon=True)
                self._waiting.start()
        return Lease(shared, self._messages)

    def free_idle(self) -> None:
        """Free the models that nobody holds at once, and wait until that is done."""
        freed = threading.Event()
        with self._lock:
            waiting = self._waiting
            if waiting is None:
                return
            self._messages.put(freed)
        freed.wait()
        with self._lock:
            ended = self._waiting is not waiting
        if ended:
            waiting.join()

    def __len__(self) -> int:
        """Models that are held or linger."""
        return len(self._shared)

    def _wait(self) -> None:
        """Free models when their time has come, until none is left."""
        done = False
        while not done:
            with self._lock:
                idle = [shared.free_at for shared in self._shared.values() if not shared.users]
            try:
                message = self._messages.get(timeout=max(0.0, min(idle) - time.monotonic()) if idle else None)
            except Empty:
                message = None
            with self._lock:
                if isinstance(message, Release):
                    message.shared.users -= 1
                    message.shared.free_at = time.monotonic() + message.linger_s
                now = float("inf") if isinstance(message, threading.Event) else time.monotonic()
                taken = self._taken_out(before=now)
            for shared in taken:
                _free(shared)
            with self._lock:
                done = not self._shared and self._messages.empty()
                if done:
                    self._waiting = None
            if isinstance(message, threading.Event):
                message.set()

    def _taken_out(self, *, before: float) -> list[Shared]:
        taken = [s for s in self._shared.values() if not s.users and s.free_at <= before]
        for shared in taken:
            del self._shared[shared.key]
        return taken


MODELS = ModelCache()


def _free(shared: Shared) -> None:
    with shared.lock:
        if shared.loading is not None:
            with suppress(RuntimeError):  # the interpreter is ending, and the memory with it
                shared.loading.worker.submit(discard, shared.loading.model)
            shared.loading.worker.shutdown()
        if shared.vocabulary is not None:
            shared.vocabulary.close()
