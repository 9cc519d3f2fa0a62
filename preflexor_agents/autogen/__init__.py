"""The AutoGen face: roles as chat agents, and a group chat whose manager asks the reflection protocol who speaks.

AutoGen is imported on first use, so that importing this package costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preflexor_agents.autogen.agents import RoleAgent as RoleAgent
    from preflexor_agents.autogen.group_chat import ReflectionGroupChat as ReflectionGroupChat
    from preflexor_agents.autogen.group_chat import reflection_team as reflection_team

_HOMES = {"RoleAgent": "agents", "ReflectionGroupChat": "group_chat", "reflection_team": "group_chat"}
__all__ = ["ReflectionGroupChat", "RoleAgent", "reflection_team"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
