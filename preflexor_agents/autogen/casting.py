"""Who plays which role: models named by SPEC, clients, agents. Opened when a run needs them, closed once."""

import asyncio
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autogen_agentchat.base import ChatAgent
from autogen_core import ComponentModel
from autogen_core.models import ChatCompletionClient

from preflexor_agents.autogen.agent_backend import AgentBackend
from preflexor_agents.autogen.client_backend import ClientBackend
from preflexor_agents.autogen.loader import checked, make_component
from preflexor_agents.backends import FORMS
from preflexor_agents.backends.base import Backend
from preflexor_agents.config import ReflectConfig
from preflexor_agents.errors import ConfigError
from preflexor_agents.events import ROLES, Role
from preflexor_agents.reflection.perform import Cast, Library
from preflexor_agents.store import is_store, open_named

Player = str | Backend | ChatCompletionClient | ChatAgent | ComponentModel
"""A model SPEC, an open backend, a client, an agent, or a component that loads as a client or an agent."""

MODEL_ROLES: tuple[Role, ...] = tuple(role for role in ROLES if role != "librarian")
_SPECS = ("nano", "gguf:", "ollama:", "mlx:", "openai:")
_FILES = ("gguf:", "mlx:")


class Casting:
    """The players of a run. SPECs, components and the store are opened by `open`, each once, and closed by `close`;
    what was given open stays open.
    """

    def __init__(
        self, players: Mapping[Role, Player], *, library: Library | None = None, store: str | None = None
    ) -> None:
        """Check the players; nothing is opened yet.

        Args:
            players: who plays each role.
            library: an open knowledge store.
            store: its path, or `bundled` for the bundled notes. Alone, it is opened by `open`.

        Raises:
            ConfigError: a SPEC is unknown or its file is missing, or there is no store at that path.
        """
        for role, player in players.items():
            check_player(role, player)
        if library is None and store is not None and not is_store(store):
            raise ConfigError(f"store: there is no file {store}; make it with: preflexor ingest PATH --store {store}")
        self.players = dict(players)
        self.store = store if store is not None or library is None else str(getattr(library, "path", "library"))
        self._given = library
        self._opened: Any = None
        self._owned: list[Backend] = []
        self._cast: Cast | None = None
        self._opening = asyncio.Lock()

    @property
    def has_library(self) -> bool:
        """Whether there is something to search."""
        return self._given is not None or self.store is not None

    @property
    def library(self) -> Library | None:
        """The knowledge store, once open."""
        return self._opened if self._given is None else self._given

    async def open(self) -> Cast:
        """A backend for every role. Does nothing if all is open.

        Raises:
            ModelError: a model cannot be used.
            StoreFileError: the store cannot be used.
        """
        async with self._opening:
            if self._cast is None:
                try:
                    self._cast = await self._open()
                except BaseException:
                    await self._release()
                    raise
            return self._cast

    async def close(self) -> None:
        """Let go of what was opened; a later run opens it again."""
        async with self._opening:
            await self._release()

    async def _open(self) -> Cast:
        if self._given is None and self.store is not None:
            self._opened = await asyncio.to_thread(open_named, self.store)
        backends: dict[str | int, Backend] = {}
        cast: dict[Role, Backend] = {}
        for role, player in self.players.items():
            key = player if isinstance(player, str) else id(player)
            if key not in backends:
                backends[key] = await self._backend(player)
            cast[role] = backends[key]
        return cast

    async def _backend(self, player: Player) -> Backend:
        if isinstance(player, str):
            from preflexor_agents.backends.shared import open_shared

            backend: Backend = await open_shared(player)
            self._owned.append(backend)
            return backend
        if isinstance(player, ComponentModel):
            backend = _wrapped(make_component(player, expected=object))
            self._owned.append(backend)
            return backend
        return _wrapped(player)

    async def _release(self) -> None:
        self._cast = None
        store, self._opened = self._opened, None
        if store is not None:
            store.close()
        while self._owned:
            await self._owned.pop().aclose()


def check_player(role: str, player: Player) -> None:
    """See that a player can play.

    Raises:
        ConfigError: naming the role and what is wrong.
    """
    if isinstance(player, ComponentModel):
        cls = checked(player, where=role)
        if not issubclass(cls, ChatCompletionClient | ChatAgent):
            raise ConfigError(f"{role}: {player.provider} is neither a chat completion client nor a chat agent")
    if not isinstance(player, str):
        return
    if player != "nano" and not any(player.startswith(kind) and player != kind for kind in _SPECS if kind != "nano"):
        raise ConfigError(f"{role}: {player!r} names no model; use one of: {FORMS}")
    kind, _, path = player.partition(":")
    if f"{kind}:" in _FILES and not Path(path).expanduser().exists():
        raise ConfigError(f"{role}: there is no model file {path}")


def as_role(name: str, *, where: str) -> Role:
    """The role of that name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    for role in ROLES:
        if name == role:
            return role
    near = difflib.get_close_matches(name, ROLES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"roles: {', '.join(ROLES)}"
    raise ConfigError(f"{where}: {name!r} is no role; {hint}")


def everybody(model: Player | None, others: Mapping[Role, Player], *, config: ReflectConfig) -> dict[Role, Player]:
    """Who plays each role: `model`, save where `others` names somebody else.

    Raises:
        ConfigError: a player for the librarian, or nobody for a role that the protocol needs.
    """
    if "librarian" in others:
        raise ConfigError("roles: the librarian searches a knowledge store; give store or library instead")
    players = dict(others) if model is None else {role: others.get(role, model) for role in MODEL_ROLES}
    for role in needed(config):
        if role not in players:
            raise ConfigError(f"roles: nobody plays the {role}; name one, or give a model for all roles")
    return players


def needed(config: ReflectConfig) -> tuple[Role, ...]:
    """The roles that a run of this protocol may call on; a word from the user can always ask for one more round."""
    wanted: dict[Role, bool] = {
        "thinker": True,
        "critic": config.variant == "critic",
        "reviser": True,
        "judge": config.gate or config.candidates > 1 or config.integrate == "or_select",
        "integrator": config.integrate != "never",
    }
    return tuple(role for role, is_needed in wanted.items() if is_needed)


def _wrapped(player: object) -> Backend:
    if isinstance(player, ChatCompletionClient):
        return ClientBackend(player)
    if isinstance(player, ChatAgent):
        return AgentBackend(player)
    return player  # type: ignore[return-value]
