"""Opens what a run needs, keeps it open between runs, and starts or resumes runs. No Textual here."""

import asyncio
import importlib
import io
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from preflexor_agents import session
from preflexor_agents.events import Event, Role
from preflexor_agents.reflection.perform import Cast, Control
from preflexor_agents.settings import Settings
from preflexor_tui.setup import Setup

if TYPE_CHECKING:
    from preflexor_agents.store import Store

Tell = Callable[[str], None]
OpenCast = Callable[[str, Mapping[Role, str]], Awaitable[Cast]]
OpenStore = Callable[[Settings, Tell], "Store | None"]


def open_store(settings: Settings, tell: Tell) -> "Store | None":
    """The store to search, if any; blocks. What is done to it is told in one line."""
    from rich.console import Console

    from preflexor_agents.cli.library import bundled_library, open_library

    said = io.StringIO()
    console = Console(file=said, width=200, highlight=False)
    is_bundled = str(settings.store) == "bundled" and not settings.store.exists()
    store = bundled_library(console) if is_bundled else open_library(settings, console)
    for line in said.getvalue().splitlines():
        tell(line)
    return store


class Engine:
    """The open models and the open store. One run at a time."""

    def __init__(self, *, open_cast: OpenCast = session.open_cast, open_store: OpenStore = open_store) -> None:
        """Open nothing yet.

        Args:
            open_cast: opens the models.
            open_store: opens the store; called in a thread.
        """
        self._open_cast = open_cast
        self._open_store = open_store
        self._cast: Cast | None = None
        self._cast_for: object = None
        self._store_for: object = None
        self._opening = asyncio.Lock()
        self.store: Store | None = None
        """The knowledge store, once open."""

    async def open(self, setup: Setup, tell: Tell) -> Cast:
        """Open what a run with this setup needs, if it is not open yet; lets go of what it does not need.

        Raises:
            PreflexorError: a model or the store cannot be used.
        """
        async with self._opening:
            await self._open_library(setup, tell)
            wanted = (setup.model, tuple(sorted(setup.roles.items())))
            if self._cast is None or self._cast_for != wanted:
                tell(f"loading {setup.model} …")
                await self._let_go()
                self._cast = await self._open_cast(setup.model, setup.roles)
                self._cast_for = wanted
            await asyncio.to_thread(importlib.import_module, "preflexor_agents.autogen.group_chat")
            tell("")
            return self._cast

    async def ask(
        self,
        question: str,
        setup: Setup,
        control: Control,
        tell: Tell,
        *,
        before: Sequence[tuple[str, str]] = (),
    ) -> AsyncGenerator[Event, None]:
        """The events of a new run; `before` are the questions and answers before it in the conversation.

        Raises as `open` and `session.check_question` do.
        """
        cast = await self.open(setup, tell)
        question = await session.check_question(question, cast)
        path = None if self.store is None else str(self.store.path)
        async for event in session.ask(
            question,
            cast=cast,
            config=setup.config,
            library=self.store,
            store=path,
            control=control,
            earlier=session.remembered(before, cast),
        ):
            yield event

    async def resume(
        self, before: Sequence[Event], setup: Setup, control: Control, tell: Tell
    ) -> AsyncGenerator[Event, None]:
        """The further events of a run that has ended or was cut. Raises as `open` does."""
        cast = await self.open(setup, tell)
        path = None if self.store is None else str(self.store.path)
        async for event in session.resume(
            before, cast=cast, config=setup.config, library=self.store, store=path, control=control
        ):
            yield event

    @property
    def held(self) -> tuple[str, ...]:
        """SPECs of the open models."""
        return tuple(dict.fromkeys(backend.spec for backend in (self._cast or {}).values()))

    async def let_go(self) -> None:
        """Close the models; the next run opens what it needs."""
        async with self._opening:
            await self._let_go()

    def forget_store(self) -> None:
        """Look anew which store there is before the next run."""
        self._store_for = None

    async def close(self) -> None:
        """Let go of everything."""
        async with self._opening:
            await self._let_go()
            self._close_store()

    async def _open_library(self, setup: Setup, tell: Tell) -> None:
        wanted = (setup.settings.store, setup.model == "nano", setup.searches)
        if self._store_for == wanted:
            return
        tell("opening the store …")
        opened = await asyncio.to_thread(self._open_store, setup.settings, tell) if setup.searches else None
        self._close_store()
        self.store, self._store_for = opened, wanted

    async def _let_go(self) -> None:
        cast, self._cast, self._cast_for = self._cast, None, None
        if cast is not None:
            await session.close_cast(cast)

    def _close_store(self) -> None:
        store, self.store, self._store_for = self.store, None, None
        if store is not None:
            store.close()
