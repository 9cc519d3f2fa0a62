"""The knowledge store as AutoGen tools: a model searches it, and keeps what it found out.

A failure is raised as one clear line; hosts hand it to the model as the result of its call.
"""

from typing import Any, Self

from autogen_core import CancellationToken, Component
from autogen_core.tools import BaseTool
from pydantic import BaseModel, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from preflexor_agents.autogen.fields import ComponentConfig
from preflexor_agents.autogen.knowledge import Shelf, StoreLike, check_count, look_up, quoted
from preflexor_agents.errors import ConfigError, InputError


class Arguments(BaseModel):
    """Arguments that a model gives; what is wrong with them is said in one line."""

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(given)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_context=False)[0]
            name = ".".join(map(str, problem["loc"])) or "arguments"
            raise InputError(f"{name}: {problem['msg']}; arguments: {', '.join(cls.model_fields)}") from error


class SearchKnowledgeArguments(Arguments):
    """Arguments of `search_knowledge`."""

    query: str = Field(description="What to look for, in words that the documents may use.")


class SearchKnowledgeConfig(ComponentConfig):
    """Config of a `SearchKnowledgeTool`."""

    store: str
    """Path of a knowledge store."""
    k: int = 5
    """Most passages for a call."""


class SearchKnowledgeTool(BaseTool[SearchKnowledgeArguments, Any], Component[SearchKnowledgeConfig]):
    """`search_knowledge(query)`: numbered passages with their source, page and words."""

    component_config_schema = SearchKnowledgeConfig
    component_provider_override = "preflexor_agents.autogen.SearchKnowledgeTool"

    def __init__(self, store: StoreLike, *, k: int = 5) -> None:
        """Take a store.

        Args:
            store: an open store, which stays open; or its path, opened at the first call and closed by `close`.
            k: most passages for a call.

        Raises:
            ConfigError: there is no store at that path, or `k` is out of range.
        """
        check_count(k)
        super().__init__(
            SearchKnowledgeArguments,
            str,
            "search_knowledge",
            "Search the knowledge store. Returns numbered passages, each with its source and page, to quote and to "
            "cite as [1].",
        )
        self._shelf = Shelf(store)
        self._k = k

    async def run(self, args: SearchKnowledgeArguments, cancellation_token: CancellationToken) -> str:
        """The passages as one block of quoted text.

        Raises:
            asyncio.CancelledError: the token was cancelled.
            InputError: the query is empty.
            StoreError: the store could not be read.
        """
        if not args.query.strip():
            raise InputError("query: it is empty; say what to look for")
        found = await self._shelf.ask(lambda store: look_up(store, args.query, k=self._k), cancellation_token)
        return quoted(found) if found else "No passage fits this query; try other words."

    async def close(self) -> None:
        """Close the store if it was opened here; another call opens it again."""
        await self._shelf.close()

    def _to_config(self) -> SearchKnowledgeConfig:
        return SearchKnowledgeConfig(store=self._shelf.path, k=self._k)

    @classmethod
    def _from_config(cls, config: SearchKnowledgeConfig) -> Self:
        return cls(config.store, k=config.k)


class AddFindingArguments(Arguments):
    """Arguments of `add_finding`."""

    text: str = Field(description="What was found out, in sentences that can be understood alone.")
    basis: str = Field(default="", description="What it stands on: the sources of the passages, or how it was found.")


class AddFindingConfig(ComponentConfig):
    """Config of an `AddFindingTool`."""

    store: str
    """Path of a knowledge store."""
    author: str = "agent"
    """Whose the findings are."""


class AddFindingTool(BaseTool[AddFindingArguments, Any], Component[AddFindingConfig]):
    """`add_finding(text, basis)`: keeps a text in the store, where searches find it, marked as noted by its author."""

    component_config_schema = AddFindingConfig
    component_provider_override = "preflexor_agents.autogen.AddFindingTool"

    def __init__(self, store: StoreLike, *, author: str = "agent") -> None:
        """Take a store.

        Args:
            store: an open store, which stays open; or its path, opened at the first call and closed by `close`.
            author: `Store.clear_findings(author)` removes what was added; so does `clear` of a `KnowledgeMemory` of
                that name.

        Raises:
            ConfigError: there is no store at that path, or the author is empty.
        """
        if not author.strip():
            raise ConfigError("author is empty; name who adds the findings")
        super().__init__(
            AddFindingArguments,
            str,
            "add_finding",
            "Keep a finding in the knowledge store, so that later searches return it as noted by you.",
        )
        self._shelf = Shelf(store)
        self._author = author

    async def run(self, args: AddFindingArguments, cancellation_token: CancellationToken) -> str:
        """The source by which the finding is cited. The same text is kept once.

        Raises:
            asyncio.CancelledError: the token was cancelled.
            InputError: the text is empty.
            StoreError: the store could not be written.
        """
        metadata = {"basis": args.basis} if args.basis.strip() else {}
        finding = await self._shelf.ask(
            lambda store: store.add_finding(args.text, owner=self._author, author=self._author, metadata=metadata),
            cancellation_token,
        )
        return f"Kept; its source is {finding.source}."

    async def close(self) -> None:
        """Close the store if it was opened here; another call opens it again."""
        await self._shelf.close()

    def _to_config(self) -> AddFindingConfig:
        return AddFindingConfig(store=self._shelf.path, author=self._author)

    @classmethod
    def _from_config(cls, config: AddFindingConfig) -> Self:
        return cls(config.store, author=config.author)
