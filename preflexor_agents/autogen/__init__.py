"""The AutoGen face: agents, teams and conditions that run the reflection protocol in anybody's AutoGen workflow.

AutoGen is imported on first use, so that importing this package costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preflexor_agents.autogen.agents import RoleAgent as RoleAgent
    from preflexor_agents.autogen.client_backend import ClientBackend as ClientBackend
    from preflexor_agents.autogen.clients.llamacpp import LlamaCppClient as LlamaCppClient
    from preflexor_agents.autogen.clients.ollama import OllamaClient as OllamaClient
    from preflexor_agents.autogen.group_chat import ReflectionGroupChat as ReflectionGroupChat
    from preflexor_agents.autogen.group_chat import reflection_team as reflection_team
    from preflexor_agents.autogen.loader import load_component as load_component
    from preflexor_agents.autogen.memory import KnowledgeMemory as KnowledgeMemory
    from preflexor_agents.autogen.reflect_agent import ReflectAgent as ReflectAgent
    from preflexor_agents.autogen.terminations import BudgetTermination as BudgetTermination
    from preflexor_agents.autogen.terminations import ConvergenceTermination as ConvergenceTermination
    from preflexor_agents.autogen.terminations import ScoreTermination as ScoreTermination
    from preflexor_agents.autogen.tools import AddFindingTool as AddFindingTool
    from preflexor_agents.autogen.tools import SearchKnowledgeTool as SearchKnowledgeTool
    from preflexor_agents.autogen.transcript import watched as watched

_HOMES = {
    "AddFindingTool": "tools",
    "BudgetTermination": "terminations",
    "ClientBackend": "client_backend",
    "ConvergenceTermination": "terminations",
    "KnowledgeMemory": "memory",
    "LlamaCppClient": "clients.llamacpp",
    "OllamaClient": "clients.ollama",
    "ReflectAgent": "reflect_agent",
    "ReflectionGroupChat": "group_chat",
    "RoleAgent": "agents",
    "ScoreTermination": "terminations",
    "SearchKnowledgeTool": "tools",
    "load_component": "loader",
    "reflection_team": "group_chat",
    "watched": "transcript",
}
__all__ = [
    "AddFindingTool",
    "BudgetTermination",
    "ClientBackend",
    "ConvergenceTermination",
    "KnowledgeMemory",
    "LlamaCppClient",
    "OllamaClient",
    "ReflectAgent",
    "ReflectionGroupChat",
    "RoleAgent",
    "ScoreTermination",
    "SearchKnowledgeTool",
    "load_component",
    "reflection_team",
    "watched",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
