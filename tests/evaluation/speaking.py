"""Stands in for the models of an evaluation."""

from collections.abc import Callable

import pytest

from preflexor_agents import session
from preflexor_agents.backends.base import Request
from preflexor_agents.backends.scripted import Reply, ScriptedBackend
from preflexor_agents.reflection.perform import Cast


def speak(monkeypatch: pytest.MonkeyPatch, script: Callable[[Request], Reply]) -> ScriptedBackend:
    """Let every role of every model that is measured say what the script says."""
    backend = ScriptedBackend(script, spec="nano")

    async def cast(model: str, others: object = None) -> Cast:
        return {role: backend for role in session.MODEL_ROLES}

    async def keep(cast: Cast) -> None:
        """A later run asks the same backend."""

    monkeypatch.setattr("preflexor_agents.evaluation.running.open_cast", cast)
    monkeypatch.setattr("preflexor_agents.evaluation.running.close_cast", keep)
    return backend
