"""Models by SPEC for hosts that build their teams anew for each run: what is in this process is shared and lingers."""

import weakref
from collections.abc import AsyncGenerator

from preflexor_agents.backends import local_file, open_backend
from preflexor_agents.backends.base import Backend, Completion, Delta, Request
from preflexor_agents.backends.llamacpp import CONTEXT_TOK, LlamaCppBackend
from preflexor_agents.backends.model_cache import LINGER_S, MODELS, Lease
from preflexor_agents.errors import BackendError
from preflexor_agents.prompts import Message


class SharedBackend:
    """A backend on a model that others in this process use as well; closing or forgetting it gives it back."""

    def __init__(self, spec: str, model: LlamaCppBackend, lease: Lease) -> None:
        """Take over a hold on a loaded model."""
        self._spec = spec
        self._model = model
        self._closed = False
        self._release = weakref.finalize(self, lease.release, LINGER_S)
        self._release.atexit = False

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
        """Stream one reply when its turn comes, as `base.Backend.generate` says."""
        self._check_open()
        return self._model.generate(request)

    async def count_tok(self, messages: tuple[Message, ...]) -> int:
        """Tokens of the rendered prompt, exactly."""
        self._check_open()
        return await self._model.count_tok(messages)

    async def aclose(self) -> None:
        """Give the model back. Idempotent."""
        self._closed = True
        self._release()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"model {self._spec} is closed; open it again")


async def open_shared(spec: str) -> Backend:
    """As `open_backend`, but a GGUF file is loaded once for all who open it this way, at one context size.

    Raises:
        ModelError: the SPEC has no known form, or its model cannot be used.
        BackendError: the server that has the model does not answer.
    """
    path = local_file(spec)
    if path is None:
        return await open_backend(spec)
    lease = MODELS.lease(path, context_tok=CONTEXT_TOK, threads=None)
    try:
        return SharedBackend(spec.strip(), await lease.backend(), lease)
    except BaseException:
        lease.release(0.0)
        raise
