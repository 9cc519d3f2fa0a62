"""Loads components from configs of others: only from allowed namespaces, and with one clear error for a wrong one.

A component's config names the class to import, so loading an untrusted config is running somebody's code. The whole
tree is looked through before anything is imported.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

from autogen_core import ComponentLoader, ComponentModel, is_component_class
from pydantic import ValidationError

from preflexor_agents.errors import ConfigError, PreflexorError

try:
    from autogen_core._component_config import WELL_KNOWN_PROVIDERS
except ImportError:  # private; without it the short names are refused
    WELL_KNOWN_PROVIDERS = {}

NAMESPACES = ("autogen_agentchat", "autogen_core", "autogen_ext", "autogenstudio", "preflexor_agents")
ENV = "AUTOGEN_ALLOWED_PROVIDER_NAMESPACES"
"""Namespaces to add, separated by commas; AutoGen's main branch reads the same variable."""
_RUNS_CODE = ("autogen_core.tools.FunctionTool", "autogen_core.tools._function_tool.FunctionTool")
"""Allowed namespaces hold these, but their configs are source code that loading executes."""

T = TypeVar("T")


class Place(NamedTuple):
    """A component in a config."""

    path: str
    """From the root, as `config.participants[0]`."""
    data: Mapping[str, Any]


def load_component(config: ComponentModel | Mapping[str, Any], *, expected: type[T], allow: Sequence[str] = ()) -> T:
    """The component that a config describes.

    Args:
        config: as `dump_component` gives it, or read from JSON.
        expected: the class it must be of; `object` for any.
        allow: packages or whole provider names to allow besides NAMESPACES and the environment's.

    Raises:
        ConfigError: a provider that is not allowed or does not exist, an unknown or wrong field, a missing file, ...;
            the message names the field.
    """
    check_namespaces(config, allow=allow)
    with _trusted(*(name.split(".")[0] for name in allow)):
        return make_component(config, expected=expected)


def make_component(config: ComponentModel | Mapping[str, Any], *, expected: type[T]) -> T:
    """As `load_component`, for a config whose namespaces have been checked or are AutoGen's to check."""
    data = _as_dict(config)
    _check_fields(data)
    provider = str(data["provider"])
    with _trusted("preflexor_agents"):
        try:
            return ComponentLoader.load_component(data, expected=expected)
        except PreflexorError:
            raise
        except ValidationError as e:
            raise ConfigError(f"{provider}: {_first(e, 'config')}") from e
        except (ValueError, TypeError, RuntimeError, LookupError, AttributeError, ImportError, OSError) as e:
            raise ConfigError(f"{provider} cannot be made from its config: {' '.join(str(e).split())}") from e


def check_namespaces(config: ComponentModel | Mapping[str, Any], *, allow: Sequence[str] = ()) -> None:
    """See that every provider in a config is allowed. Imports nothing.

    Raises:
        ConfigError: naming the first one that is not, and where it stands.
    """
    extra = [part.strip().rstrip(".") for part in os.environ.get(ENV, "").split(",") if part.strip()]
    packages = (*NAMESPACES, *extra, *allow)
    for place in _components(_as_dict(config)):
        provider, field = str(place.data["provider"]), f"{place.path}provider"
        if provider in allow or provider in WELL_KNOWN_PROVIDERS:
            continue
        if provider in _RUNS_CODE:
            raise ConfigError(
                f"{field}: {provider} runs the source code in its config when it is loaded; "
                "make the tool in Python, or name it in allow if you wrote the config"
            )
        if not any(provider.startswith(f"{package}.") for package in packages):
            raise ConfigError(
                f"{field}: {provider} is outside the allowed namespaces ({', '.join(packages)}); "
                f"if you trust it, name its package in {ENV}"
            )


def checked(config: ComponentModel, *, where: str) -> type[Any]:
    """The class of a component, its config checked against the class's schema; nothing is made.

    Raises:
        ConfigError: as `load_component`, beginning with `where`.
    """
    try:
        return _check_fields(config.model_dump(exclude_none=True))
    except ConfigError as e:
        raise ConfigError(f"{where}: {e}") from e


def _check_fields(config: Mapping[str, Any]) -> type[Any]:
    """Check every component in a config against its class's schema; returns the class of the outermost."""
    classes = []
    for place in _components(config):
        cls = _class_of(place)
        classes.append(cls)
        if (place.data.get("component_version") or cls.component_version) < cls.component_version:
            continue  # the schema of a past version is not known
        here, schema, given = f"{place.path}config", cls.component_config_schema, place.data["config"]
        names = {name for n, f in schema.model_fields.items() for name in (n, f.alias) if name}
        unknown = sorted(given.keys() - names)
        if unknown and schema.model_config.get("extra") != "allow":
            raise ConfigError(
                f"{here}.{unknown[0]}: {cls.__name__} has no such field; it has {', '.join(sorted(names))}"
            )
        try:
            schema.model_validate(given)
        except ValidationError as e:
            raise ConfigError(_first(e, here)) from e
        except PreflexorError as e:
            raise ConfigError(f"{here}: {e}") from e
        _check_names(given.get("participants"), f"{here}.participants")
    return classes[0]


def _check_names(participants: Any, path: str) -> None:
    """See that no two participants have one name."""
    seen: set[str] = set()
    for participant in participants if isinstance(participants, list) else ():
        config = participant.get("config", {})
        name = config.get("name") or config.get("role")
        if name in seen:
            raise ConfigError(f"{path}: two of them are named {name!r}; a name stands for one participant")
        if isinstance(name, str):
            seen.add(name)


def _as_dict(config: ComponentModel | Mapping[str, Any]) -> dict[str, Any]:
    data = config.model_dump(exclude_none=True) if isinstance(config, ComponentModel) else dict(config)
    for name, kind in (("provider", str), ("config", Mapping)):
        if not isinstance(data.get(name), kind):
            raise ConfigError(f"{name}: a component has one, this has {data.get(name)!r}")
    return data


def _components(data: Any, path: str = "") -> Iterator[Place]:
    """Every component in a config, the outer before the inner."""
    if isinstance(data, ComponentModel):
        data = data.model_dump(exclude_none=True)
    if isinstance(data, Mapping):
        if isinstance(data.get("provider"), str) and isinstance(data.get("config"), Mapping):
            yield Place(path, data)
        for name, value in data.items():
            yield from _components(value, f"{path}{name}.")
    elif isinstance(data, list | tuple):
        for number, value in enumerate(data):
            yield from _components(value, f"{path.rstrip('.')}[{number}].")


def _class_of(place: Place) -> type[Any]:
    provider = str(place.data["provider"])
    module, _, name = WELL_KNOWN_PROVIDERS.get(provider, provider).rpartition(".")
    field = f"{place.path}provider"
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as e:
        raise ConfigError(f"{field}: there is no {provider} ({e})") from e
    if not isinstance(cls, type) or not is_component_class(cls) or not hasattr(cls, "component_config_schema"):
        raise ConfigError(f"{field}: {provider} is not a component")
    return cls


def _first(error: ValidationError, path: str) -> str:
    """The first complaint, as `config.name: what is wrong`."""
    problem = error.errors(include_url=False, include_context=False)[0]
    for part in problem["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    given = "" if problem["type"] == "missing" else f" (it is {problem['input']!r})"
    return f"{path}: {problem['msg']}{given}"


@contextmanager
def _trusted(*packages: str) -> Iterator[None]:
    """Let versions of AutoGen that keep a list of their own load what has passed ours."""
    before = os.environ.get(ENV)
    os.environ[ENV] = ",".join([before, *packages] if before else packages)
    try:
        yield
    finally:
        if before is None:
            del os.environ[ENV]
        else:
            os.environ[ENV] = before
