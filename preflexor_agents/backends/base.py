"""What every backend offers: a stream of text told apart into thinking, reflection and answer.

A backend turns one `Request` into `Delta`s and, last, one `Completion`. Everything in a request is
untrusted text; only the backend's own template may emit control tokens.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from preflexor_agents.config import Sampling
from preflexor_agents.errors import BackendError
from preflexor_agents.events import Channel, Usage
from preflexor_agents.prompts import Message

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of a model."""

    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    thinking: str | None = None
    """Finished thinking put into the model's mouth, between the model's own tags; it writes only what follows."""
    stop: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None
    """JSON schema that the answer must follow (grammar-constrained); thinking is off then."""


@dataclass(frozen=True, slots=True)
class Delta:
    """Text as it is written."""

    channel: Channel
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The whole reply; always the last item of a stream that was not cancelled."""

    thinking: str = ""
    reflection: str = ""
    answer: str = ""
    finish_reason: FinishReason = "stop"
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """What the caller should know: a section not closed, tags neutralised, a seed that could not be honoured."""


class Backend(Protocol):
    """A model that can be asked. Opened by `backends.open_backend(spec)`."""

    @property
    def spec(self) -> str:
        """The model SPEC it was opened from, as `nano` or `ollama:qwen3:4b`."""

    @property
    def context_tok(self) -> int:
        """Tokens of prompt and reply together that fit."""

    @property
    def native_tags(self) -> bool:
        """Whether the model was trained to open its thinking by itself (else the prompt must ask for it)."""

    def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Stream one reply. Closing the generator or cancelling its task stops the decode within 100 ms.

        Raises:
            BackendError: the server is gone, the prompt does not fit, the decode failed.
        """

    async def count_tok(self, messages: tuple[Message, ...]) -> int:
        """Tokens of the rendered prompt (an estimate where the backend has no tokenizer at hand)."""

    async def aclose(self) -> None:
        """Let the model go. Idempotent."""


async def complete(backend: Backend, request: Request) -> Completion:
    """The whole reply, for callers that do not watch it being written. Raises as `Backend.generate`."""
    async with aclosing(backend.generate(request)) as items:
        async for item in items:
            if isinstance(item, Completion):
                return item
    raise BackendError(f"{backend.spec} ended without a reply")
