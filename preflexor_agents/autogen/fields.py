"""Fields that the configs of our components share."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autogen_agentchat.base import ChatAgent
from autogen_core import ComponentModel
from autogen_core.models import ChatCompletionClient
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from preflexor_agents.autogen.agent_backend import AgentBackend
from preflexor_agents.autogen.casting import Player, check_player
from preflexor_agents.autogen.client_backend import ClientBackend
from preflexor_agents.config import ReflectConfig, preset
from preflexor_agents.errors import ConfigError

PlayerField = str | ComponentModel
"""A model SPEC, or a component that loads as a chat completion client or a chat agent."""


class ComponentConfig(BaseModel):
    """A config that refuses fields it does not know."""

    model_config = ConfigDict(extra="forbid")


def player_field(player: Player, *, where: str) -> PlayerField:
    """A player as a config names it.

    Raises:
        ConfigError: it was given as an object that no config can name.
    """
    if isinstance(player, ClientBackend):
        player = player.client
    elif isinstance(player, AgentBackend):
        player = player.agent
    if isinstance(player, str | ComponentModel):
        return player
    if isinstance(player, ChatCompletionClient | ChatAgent):
        return player.dump_component()
    try:
        check_player(where, player.spec)
    except ConfigError:
        raise ConfigError(f"{where}: the backend {player.spec} has no place in a config; give a model SPEC") from None
    return player.spec


def protocol(data: Mapping[str, Any]) -> ReflectConfig:
    """The protocol that a config's fields describe: those of the `preset` that it names, and its own on top.

    Raises:
        ConfigError: an unknown field, or a value of the wrong type or out of range.
    """
    base = asdict(preset(str(data.get("preset", "default"))))
    try:
        return TypeAdapter(ReflectConfig).validate_python(_over(base, data))
    except ValidationError as e:
        problem = e.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, problem["loc"]))
        raise ConfigError(f"{field} is {problem['input']!r}: {problem['msg']}") from e


def _over(base: Mapping[str, Any], data: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The base with the data's values; where both are mappings, likewise inside."""
    merged = dict(base)
    for name, value in data.items():
        if name not in base:
            raise ConfigError(f"{path}{name} is unknown; known: {', '.join(base)}")
        both = isinstance(base[name], Mapping) and isinstance(value, Mapping)
        merged[name] = _over(base[name], value, f"{path}{name}.") if both else value
    return merged
