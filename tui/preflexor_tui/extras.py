"""Which extras are installed, and the command that installs one."""

import importlib.util

from preflexor_agents.cli.doctor import EXTRAS, is_checkout, pip_install


def missing_extra(name: str) -> str:
    """The command that installs an extra; empty if it is installed. Nothing is imported."""
    if all(importlib.util.find_spec(module) is not None for module in EXTRAS[name]):
        return ""
    return pip_install(f".[{name}]" if is_checkout() else f"preflexor-agents[{name}]")
