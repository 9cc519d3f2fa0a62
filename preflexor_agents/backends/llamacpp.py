"""GGUF models in this process through llama.cpp: one worker thread per model, which writes several replies at once."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.backends.cancel import CancelFlag
from preflexor_agents.backends.outbox import Outbox
from preflexor_agents.errors import BackendError, ModelError
from preflexor_agents.prompts import Message

if TYPE_CHECKING:
    from preflexor_agents.backends.local_model import LocalModel
    from preflexor_agents.backends.scheduler import Job

T = TypeVar("T")
MakeJob = Callable[["LocalModel", Callable[[Delta], None]], "Job[T]"]
"""Makes work for a model, which is told whom to give text to as it is written."""

CONTEXT_TOK = 8192
"""Most tokens of prompt and reply unless asked otherwise: about 1 GB of cache for a model of 3B parameters."""


class LlamaCppBackend:
    """A backend that computes in this process. Open it with `open`."""

    def __init__(self, spec: str, model: "LocalModel", worker: ThreadPoolExecutor) -> None:
        """Take over a loaded model and the thread that it belongs to."""
        self._spec = spec
        self._model = model
        self._worker = worker
        self._running: dict[CancelFlag, Outbox] = {}
        self._closed = False

    @classmethod
    async def open(
        cls, path: Path, *, spec: str | None = None, context_tok: int = CONTEXT_TOK, threads: int | None = None
    ) -> "LlamaCppBackend":
        """Load a GGUF file, off the event loop.

        Args:
            path: the file.
            spec: what `spec` says; `gguf:PATH` if not given.
            context_tok: most tokens of prompt and reply; a model trained with fewer has fewer.
            threads: to compute with; half of the usable processors if not given, which is their number of cores.

        Raises:
            ModelError: the file is missing or damaged, is no GGUF, generates no text, or has no chat template.
        """
        worker, loading = begin_loading(path, context_tok=context_tok, threads=threads)
        try:
            model = await asyncio.wrap_future(loading)
        except BaseException:
            loading.add_done_callback(discard)
            worker.shutdown(wait=loading.done())
            raise
        return cls(spec or f"gguf:{path}", model, worker)

    @property
    def spec(self) -> str:
        """The model SPEC it was opened from."""
        return self._spec

    @property
    def context_tok(self) -> int:
        """Tokens of prompt and reply together that fit."""
        return self._model.context_tok

    @property
    def native_tags(self) -> bool:
        """Whether the model opens its thinking by itself."""
        return self._model.native_tags

    def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Stream one reply, as `base.Backend.generate` says."""
        return self.run(lambda model, emit: model.answer(request, emit=emit))

    async def run(self, make: "MakeJob[T]") -> AsyncGenerator[Delta | T, None]:
        """Let the model do a job in its thread, beside others: what it emits, then its result.

        Closing the generator or cancelling its task ends the job.

        Raises:
            BackendError: the model is closed, or what the job raises.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[Delta | None] = asyncio.Queue()
        cancel = CancelFlag(self._model.interrupt)

        def end(reply: "asyncio.Future[T | None]") -> None:
            if not reply.cancelled():
                reply.exception()  # or asyncio complains if the reader has left
            outbox.deliver()
            items.put_nowait(None)

        scheduler = self._model.scheduler
        outbox = next((box for box in self._running.values() if box.loop is loop), None) or Outbox(loop)
        emit = outbox.emitter(items.put_nowait)
        reply = asyncio.wrap_future(scheduler.submit(make(self._model, emit), cancel))
        self._worker.submit(scheduler.drive)
        reply.add_done_callback(end)
        self._running[cancel] = outbox
        try:
            while (item := await items.get()) is not None:
                yield item
            result = await reply
            if result is None:
                raise BackendError(f"model {self._spec} was closed while it was writing")
            yield result
        finally:
            if not reply.done():  # else it would interrupt those that are still being written
                cancel.set()
            reply.cancel()
            self._running.pop(cancel, None)

    async def count_tok(self, messages: tuple[Message, ...]) -> int:
        """Tokens of the rendered prompt, exactly."""
        self._check_open()
        return self._model.count_tok(messages)

    async def aclose(self) -> None:
        """Stop what is running and free context, model and thread. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for cancel in self._running:
            cancel.set()
        try:
            await asyncio.get_running_loop().run_in_executor(self._worker, self._model.close)
        finally:
            self._worker.shutdown()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"model {self._spec} is closed; open it again")


class Loading(NamedTuple):
    """A model that is being loaded, and the thread that it will belong to."""

    worker: ThreadPoolExecutor
    model: "Future[LocalModel]"


def begin_loading(path: Path, *, context_tok: int = CONTEXT_TOK, threads: int | None = None) -> Loading:
    """Start to load a model in a thread of its own; arguments and errors as `LlamaCppBackend.open`."""
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"llama.cpp {path.name}")
    return Loading(worker, worker.submit(_load, path, context_tok, threads or max(1, _usable_processors() // 2)))


def nano_path() -> Path:
    """Where the bundled model is. Raises ModelError if the package lacks it."""
    place = resources.files("preflexor_agents").joinpath("data", "nano", "nano.gguf")
    if not isinstance(place, Path) or not place.is_file():
        raise ModelError("the bundled model nano is not in this installation; install preflexor-agents again")
    return place


def _load(path: Path, context_tok: int, threads: int) -> "LocalModel":
    """In the worker thread, since the import loads llama.cpp."""
    from preflexor_agents.backends.local_model import LocalModel

    return LocalModel(path, context_tok=context_tok, threads=threads)


def discard(loading: "Future[LocalModel]") -> None:
    """Free a model that nobody waits for any more."""
    if not loading.cancelled() and loading.exception() is None:
        loading.result().close()


def _usable_processors() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
