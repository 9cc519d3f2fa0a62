"""The model in training as a backend: requests that wait together are written together, each with its own seed.

Which requests share a forward can change the last bits of the logits, so a drawn reply is repeated exactly only if the
same requests come together again.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module
from transformers import PreTrainedTokenizerFast

from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.backends.hf_tokens import HfVocabulary, template_source
from preflexor_agents.backends.model_text import ModelText
from preflexor_agents.errors import BackendError
from preflexor_agents.prompts import Message
from preflexor_training.torch_backend.decoding import Job, decode

AT_ONCE = 16
"""Most requests of one batch."""
GATHER_S = 0.01
"""How long a batch that has begun to gather waits for one more."""


@dataclass(slots=True)
class _Source:
    """What `ModelText` wants to know of the model."""

    path: Path
    trained_tok: int
    chat_template: str


class TorchBackend:
    """A backend over a model that lies in memory. The model must not be trained meanwhile."""

    def __init__(
        self,
        model: Module,
        tokenizer: PreTrainedTokenizerFast,
        *,
        folder: Path,
        context_tok: int,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        """Take a model in evaluation mode; `folder` is what it is called by."""
        self._model, self._autocast, self._folder = model, autocast, folder
        self.context_tok = context_tok
        """Tokens of prompt and reply together that fit."""
        ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        vocabulary = HfVocabulary(tokenizer, ends=[ends] if isinstance(ends, int) else ends or ())
        self._text = ModelText(_Source(folder, context_tok, template_source(tokenizer)), vocabulary)
        self.native_tags = self._text.native_tags
        """Whether the model opens its thinking by itself."""
        self._waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"torch {folder.name}")
        self._running: set[threading.Event] = set()
        self._closed = False

    @property
    def spec(self) -> str:
        """Not a SPEC that can be opened: the model lives in this process alone."""
        return f"training:{self._folder.name}"

    async def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Stream one reply, as `base.Backend.generate` says; there are no grammars for JSON schemas."""
        if self._closed:
            raise BackendError(f"model {self.spec} is closed; open it again")
        if request.json_schema is not None:
            raise BackendError(f"model {self.spec} is in training and has no grammars; ask a GGUF of it for JSON")
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[Delta | None] = asyncio.Queue()
        stop = threading.Event()
        prompt = self._text.prompt(request, context_tok=self.context_tok)
        job = Job(request, prompt, lambda delta: _put(loop, items, delta), stop.is_set)
        job.reply.add_done_callback(lambda _: _put(loop, items, None))
        self._running.add(stop)
        self._waiting.put(job)
        self._worker.submit(self._drive)
        try:
            while (item := await items.get()) is not None:
                yield item
            if job.reply.cancelled():
                raise BackendError(f"model {self.spec} was closed while it was writing")
            yield job.reply.result()
        finally:
            stop.set()
            self._running.discard(stop)

    async def count_tok(self, messages: tuple[Message, ...]) -> int:
        """Tokens of the rendered prompt, exactly."""
        return self._text.count_tok(messages)

    async def aclose(self) -> None:
        """Stop what is running and end the thread; the model is its owner's. Idempotent."""
        self._closed = True
        for stop in self._running:
            stop.set()
        await asyncio.to_thread(self._worker.shutdown)

    def _drive(self) -> None:
        """Answer all that waits, in the worker; nothing may be left by an earlier call."""
        jobs: list[Job] = []
        while len(jobs) < AT_ONCE:
            try:
                jobs.append(self._waiting.get(timeout=GATHER_S) if jobs else self._waiting.get_nowait())
            except queue.Empty:
                break
        if not jobs:
            return
        try:
            with torch.no_grad(), self._autocast():
                decode(self._model, self._text, jobs, context_tok=self.context_tok)
        except RuntimeError as e:
            words = " ".join(str(e).split())[:200]
            for job in jobs:
                if not job.reply.done():
                    job.reply.set_exception(BackendError(f"model {self.spec} failed: {words}"))
        finally:
            for job in jobs:
                job.reply.cancel()


def _put(loop: asyncio.AbstractEventLoop, items: "asyncio.Queue[Delta | None]", item: Delta | None) -> None:
    """A loop that was closed meanwhile has nobody who listens."""
    try:
        loop.call_soon_threadsafe(items.put_nowait, item)
    except RuntimeError:
        return
