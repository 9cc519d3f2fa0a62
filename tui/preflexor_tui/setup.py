"""What the next run is done with: models, protocol, store. Changed from the screen, one value at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from preflexor_agents.config import ReflectConfig, Variant
from preflexor_agents.errors import ConfigError
from preflexor_agents.events import Role
from preflexor_agents.session import MODEL_ROLES
from preflexor_agents.settings import Given, Settings, checked, reflect_config

NAMES = ("model", "rounds", "candidates", "temperature", "store", "preset", "seed", "budget_tokens", "budget_seconds")
"""Settings that a run may be given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the next run is done with."""

    settings: Settings
    roles: Mapping[Role, str] = field(default_factory=dict)
    """Other models for single roles."""
    variant: Variant | None = None
    """None leaves the preset's own."""
    searches: bool = True
    """Whether the store is searched."""

    @property
    def model(self) -> str:
        """The model SPEC for every other role."""
        return self.settings.model

    @property
    def config(self) -> ReflectConfig:
        """The protocol and its budgets."""
        config = reflect_config(self.settings)
        return config if self.variant is None else replace(config, variant=self.variant)


def changed(setup: Setup, name: str, text: str) -> Setup:
    """The setup with one value given as text.

    Raises:
        ConfigError: there is no such value, or it does not take this; one line that names the remedy.
    """
    text = text.strip()
    if not text:
        raise ConfigError(f"/{name} needs a value, as: /{name} {_example(name)}")
    if name == "role":
        return _with_role(setup, text)
    if name == "variant":
        if text not in ("critic", "self"):
            raise ConfigError(f"/variant {text!r} must be critic or self")
        return replace(setup, variant="self" if text == "self" else "critic")
    if name == "store" and text == "none":
        return replace(setup, searches=False)
    if name not in NAMES:
        raise ConfigError(f"{name!r} can not be set here; what can be: {', '.join((*NAMES, 'role', 'variant'))}")
    if name == "store" and text != "bundled" and not Path(text).expanduser().is_file():
        raise ConfigError(f"/store {text!r} is no file; name a store, bundled, or none")
    given = {key: Given(value, f"/{key}") for key, value in setup.settings.model_dump().items()}
    settings = checked(given | {name: Given(text, f"/{name}")})
    return replace(setup, settings=settings, searches=setup.searches or name == "store")


def _with_role(setup: Setup, text: str) -> Setup:
    role, _, spec = text.partition("=")
    for known in MODEL_ROLES:
        if role.strip() == known and spec.strip():
            return replace(setup, roles={**setup.roles, known: spec.strip()})
    raise ConfigError(f"/role {text!r} must be ROLE=SPEC with a role of: {', '.join(MODEL_ROLES)}")


def _example(name: str) -> str:
    examples = {"model": "ollama:qwen3:4b", "store": "papers.db", "role": "critic=ollama:qwen3:4b", "variant": "self"}
    return examples.get(name, "0.7" if name == "temperature" else "paper" if name == "preset" else "3")
