"""Models in this process through MLX, on Apple's GPUs (or, for tests, a CPU): one worker thread per model."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.errors import BackendError, ModelError
from preflexor_agents.prompts import Message

if TYPE_CHECKING:
    from preflexor_agents.backends.mlx_decoder import MlxDecoder

CONTEXT_TOK = 8192
"""Most tokens of prompt and reply unless asked otherwise: about 1 GB of cache for a model of 3B parameters."""


class MlxBackend:
    """A backend that computes in this process, one reply after the other. Open it with `open`."""

    def __init__(self, spec: str, decoder: "MlxDecoder", worker: ThreadPoolExecutor) -> None:
        """Take over a decoder and the thread that it belongs to."""
        self._spec = spec
        self._decoder: MlxDecoder | None = decoder
        self._worker = worker
        self._running: set[threading.Event] = set()
        self.context_tok = decoder.context_tok
        """Tokens of prompt and reply together that fit."""
        self.native_tags = decoder.native_tags
        """Whether the model opens its thinking by itself."""

    @classmethod
    async def open(
        cls, path: Path, *, adapter: Path | None = None, spec: str | None = None, context_tok: int = CONTEXT_TOK
    ) -> "MlxBackend":
        """Load a model folder, off the event loop.

        Args:
            path: of a model, or of an adapter that names its base.
            adapter: LoRA adapter of the model, PEFT's or mlx-lm's.
            spec: what `spec` says; `mlx:PATH` if not given.
            context_tok: most tokens of prompt and reply; a model trained with fewer has fewer.

        Raises:
            ModelError: mlx-lm is missing, the folder is no model that it can open, or has no chat template.
        """
        from preflexor_agents.backends.mlx_model import check_installed

        check_installed()
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"mlx {path.name}")
        loading = asyncio.get_running_loop().run_in_executor(worker, _load, path, adapter, context_tok)
        try:
            decoder = await loading
        except BaseException:
            worker.shutdown(wait=loading.done())
            raise
        return cls(spec or f"mlx:{path}", decoder, worker)

    @property
    def spec(self) -> str:
        """The model SPEC it was opened from."""
        return self._spec

    async def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Stream one reply when its turn comes, as `base.Backend.generate` says.

        Raises:
            BackendError: the model is closed, the prompt does not fit, or a JSON schema is asked for.
        """
        decoder = self._open()
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[Delta | None] = asyncio.Queue()
        stop = threading.Event()

        def emit(delta: Delta) -> None:
            loop.call_soon_threadsafe(items.put_nowait, delta)

        def end(reply: "asyncio.Future[Completion]") -> None:
            if not reply.cancelled():
                reply.exception()  # or asyncio complains if the reader has left
            items.put_nowait(None)

        reply = asyncio.wrap_future(
            self._worker.submit(lambda: decoder.answer(request, emit=emit, cancelled=stop.is_set))
        )
        reply.add_done_callback(end)
        self._running.add(stop)
        try:
            while (item := await items.get()) is not None:
                yield item
            if stop.is_set():
                raise BackendError(f"model {self._spec} was closed while it was writing")
            yield await reply
        finally:
            stop.set()
            reply.cancel()
            self._running.discard(stop)

    async def count_tok(self, messages: tuple[Message, ...]) -> int:
        """Tokens of the rendered prompt, exactly."""
        return self._open().text.count_tok(messages)

    async def aclose(self) -> None:
        """Stop what is running, and free model and thread. Idempotent."""
        for stop in self._running:
            stop.set()
        self._decoder = None
        await asyncio.to_thread(self._worker.shutdown)

    def _open(self) -> "MlxDecoder":
        if self._decoder is None:
            raise BackendError(f"model {self._spec} is closed; open it again")
        return self._decoder


def _load(path: Path, adapter: Path | None, context_tok: int) -> "MlxDecoder":
    """In the worker thread, since MLX ties its work to threads, and the import takes seconds."""
    from preflexor_agents.backends.hf_tokens import HfVocabulary
    from preflexor_agents.backends.mlx_decoder import MlxDecoder
    from preflexor_agents.backends.mlx_model import check_template, keep_resident, load
    from preflexor_agents.backends.model_text import ModelText

    folder = load(path.expanduser(), adapter=adapter)
    check_template(folder)
    keep_resident()
    try:
        text = ModelText(folder, HfVocabulary(folder.tokenizer, ends=folder.ends))
    except ModelError as e:
        raise ModelError(f"{path}: {e}") from None
    return MlxDecoder(folder.model, text, context_tok=min(context_tok, folder.trained_tok), name=path.name)
