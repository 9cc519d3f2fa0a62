"""The knowledge store as AutoGen's `Memory`: passages for the question at hand, and findings kept for later ones."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal, Self
from uuid import uuid4

from autogen_core import CancellationToken, Component
from autogen_core.memory import (
    Memory,
    MemoryContent,
    MemoryMimeType,
    MemoryQueryResult,
    UpdateContextResult,
)
from autogen_core.model_context import ChatCompletionContext
from autogen_core.models import LLMMessage, UserMessage

from preflexor_agents.autogen.fields import ComponentConfig
from preflexor_agents.autogen.knowledge import Found, Shelf, StoreLike, check_count, fitted, look_up, quoted
from preflexor_agents.errors import ConfigError, InputError

LEAST_BUDGET_TOK = 128
_NO_TEXT = ("image/", "audio/", "video/", MemoryMimeType.BINARY.value)
_KINDS: dict[str, str] = {"user": "UserMessage", "assistant": "AssistantMessage"}


class KnowledgeMemoryConfig(ComponentConfig):
    """Config of a `KnowledgeMemory`."""

    store: str
    """Path of a knowledge store."""
    name: str | None = None
    """Whose findings `clear` removes. Default: a name of its own, which a dump keeps."""
    k: int = 5
    """Most passages for a question."""
    budget_tok: int = 1500
    """Most tokens of the block in the model's context, estimated; five passages seldom need more."""
    role: Literal["user", "assistant"] = "user"
    """Who says the block."""


class KnowledgeMemory(Memory, Component[KnowledgeMemoryConfig]):
    """Passages of a knowledge store in a model's context, in one block that each turn replaces.

    Every result has metadata: `score`, `number`, `chunk_id`, `source`, `title`, `page`, `start`, `end` and the ranks
    of both searches; what was added through a memory or tool also has `finding`, and the metadata given with it.
    """

    component_config_schema = KnowledgeMemoryConfig
    component_provider_override = "preflexor_agents.autogen.KnowledgeMemory"

    def __init__(
        self,
        store: StoreLike,
        *,
        name: str | None = None,
        k: int = 5,
        budget_tok: int = 1500,
        role: Literal["user", "assistant"] = "user",
    ) -> None:
        """Take a store; see `KnowledgeMemoryConfig` for the rest.

        Args:
            store: an open store, which stays open; or its path, opened at the first use and closed by `close`.
            name: memories of one name are one: they clear each other's findings.
            k: most passages for a question.
            budget_tok: of the block; what does not fit is left out.
            role: who says the block.

        Raises:
            ConfigError: there is no store at that path, or a value is out of range.
        """
        check_count(k)
        if budget_tok < LEAST_BUDGET_TOK:
            raise ConfigError(f"budget_tok is {budget_tok!r}; it must be at least {LEAST_BUDGET_TOK}")
        if role not in _KINDS:
            raise ConfigError(
                f"role is {role!r}; it must be user or assistant: quoted text gives no orders, and many models "
                "take one system message only"
            )
        if name is not None and not name.strip():
            raise ConfigError("name is empty; leave it out, or give one")
        self._shelf = Shelf(store)
        self.name = name or f"memory-{uuid4().hex[:12]}"
        self._k, self._budget_tok, self._role = k, budget_tok, role

    async def query(
        self, query: str | MemoryContent, cancellation_token: CancellationToken | None = None, **kwargs: Any
    ) -> MemoryQueryResult:
        """The passages that fit a query best, best first, each text once.

        Args:
            query: words, or content that is text.
            cancellation_token: ends the waiting at once.
            **kwargs: `k`, for another number of passages.

        Raises:
            asyncio.CancelledError: the token was cancelled.
            InputError: the query has no text, or there is no such argument.
            StoreError: the store could not be read.
        """
        k = kwargs.pop("k", self._k)
        if kwargs:
            raise InputError(f"query takes no argument {next(iter(kwargs))!r}; it takes k")
        text = _text(query) if isinstance(query, MemoryContent) else query
        found = await self._shelf.ask(lambda store: look_up(store, text, k=k), cancellation_token)
        return MemoryQueryResult(results=_contents(found))

    async def update_context(self, model_context: ChatCompletionContext) -> UpdateContextResult:
        """Put what the store knows about the last user message before that message, in place of the block before.

        The context has at most one block of a store, however many turns it has; without passages it has none.

        Raises:
            ConfigError: the context does not show its messages in its state.
            StoreError: the store could not be read.
        """
        query = self._question(await model_context.get_messages())
        found: list[Found] = []
        if query.strip():
            found = await self._shelf.ask(lambda store: look_up(store, query, k=self._k))
            found = fitted(found, budget_tok=self._budget_tok)
        state = dict(await model_context.save_state())
        messages = state.get("messages")
        if not isinstance(messages, list):
            raise ConfigError(f"{type(model_context).__name__} has no messages in its state; use one of autogen_core")
        state["messages"] = self._with_block(messages, quoted(found) if found else None)
        if state["messages"] != messages:
            await model_context.load_state(state)
        return UpdateContextResult(memories=MemoryQueryResult(results=_contents(found)))

    async def add(self, content: MemoryContent, cancellation_token: CancellationToken | None = None) -> None:
        """Keep a text in the store, with who added it and when; searches find it like a document.

        Of the metadata, `author` and `title` are used as such. The same text is kept once, so a call that was
        cancelled may be made again, whether or not it had stored the text by then.

        Raises:
            asyncio.CancelledError: the token was cancelled.
            InputError: the content has no text, or its metadata is no JSON.
            StoreError: the store could not be written.
        """
        text, known = _text(content), content.metadata or {}
        author, title = str(known.get("author") or self.name), str(known.get("title") or "Finding")
        mime_type = _mime_type(content)
        await self._shelf.ask(
            lambda store: store.add_finding(
                text, owner=self.name, author=author, title=title, mime_type=mime_type, metadata=known
            ),
            cancellation_token,
        )

    async def clear(self) -> None:
        """Remove what memories of this name have added, and nothing else."""
        await self._shelf.ask(lambda store: store.clear_findings(self.name))

    async def close(self) -> None:
        """Close the store if it was opened here; another call opens it again."""
        await self._shelf.close()

    @property
    def _source(self) -> str:
        """Who says the block, in letters that every client takes for a name: one for each store."""
        return f"knowledge-{hashlib.sha256(self._shelf.address.encode('utf-8', 'replace')).hexdigest()[:8]}"

    def _question(self, messages: Sequence[LLMMessage]) -> str:
        for message in reversed(messages):
            if isinstance(message, UserMessage) and message.source != self._source:
                content = message.content
                return content if isinstance(content, str) else " ".join(p for p in content if isinstance(p, str))
        return ""

    def _with_block(self, messages: Sequence[Any], block: str | None) -> list[Any]:
        """The messages of a context's state with this block, and no other of ours, before the last user message."""
        kept = [m for m in messages if m.get("source") != self._source]
        if block is not None:
            users = [place for place, message in enumerate(kept) if message.get("type") == "UserMessage"]
            message = {"type": _KINDS[self._role], "content": block, "source": self._source}
            kept.insert(users[-1] if users else len(kept), message)
        return kept

    def _to_config(self) -> KnowledgeMemoryConfig:
        return KnowledgeMemoryConfig(
            store=self._shelf.path, name=self.name, k=self._k, budget_tok=self._budget_tok, role=self._role
        )

    @classmethod
    def _from_config(cls, config: KnowledgeMemoryConfig) -> Self:
        return cls(config.store, name=config.name, k=config.k, budget_tok=config.budget_tok, role=config.role)


def _contents(found: Sequence[Found]) -> list[MemoryContent]:
    return [_content(number, item) for number, item in enumerate(found, 1)]


def _content(number: int, item: Found) -> MemoryContent:
    where = dataclasses.asdict(item.passage)
    text = where.pop("text")
    metadata: dict[str, Any] = {**where, "number": number}
    if item.finding is not None:
        origin = dataclasses.asdict(item.finding)
        names = ("author", "owner", "added_at", "mime_type", "metadata")
        metadata = {**origin["metadata"], **metadata, "finding": {name: origin[name] for name in names}}
    return MemoryContent(content=text, mime_type=MemoryMimeType.TEXT, metadata=metadata)


def _mime_type(content: MemoryContent) -> str:
    return content.mime_type.value if isinstance(content.mime_type, MemoryMimeType) else content.mime_type


def _text(content: MemoryContent) -> str:
    """The text of a content.

    Raises:
        InputError: it has none.
    """
    value, mime_type = content.content, _mime_type(content)
    try:
        if isinstance(value, dict):
            return json.dumps(value, ensure_ascii=False)
        if not mime_type.startswith(_NO_TEXT):
            if isinstance(value, bytes):
                return value.decode("utf-8")
            if isinstance(value, str):
                return value
    except (TypeError, ValueError) as error:
        raise InputError(f"memory content of type {mime_type} cannot be read as text: {error}") from error
    raise InputError(f"memory content of type {mime_type} has no text to search; give text that describes it")
