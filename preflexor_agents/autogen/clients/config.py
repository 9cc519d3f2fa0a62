"""Settings of the clients: checked in one line, secrets masked when written."""

import re
from collections.abc import Mapping
from typing import Any, Self

from autogen_core.models import ModelInfo
from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, SecretStr, ValidationError, model_validator

from preflexor_agents.errors import ConfigError

_MASK = str(SecretStr("mask"))
_SECRET = re.compile(r"auth|cookie|key|token|secret|password", re.IGNORECASE)
_REQUIRED = ("vision", "function_calling", "json_output", "family", "structured_output")


class ClientConfig(BaseModel):
    """What `load_component` reads. Unknown fields and wrong values raise a ConfigError that names the field."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @model_validator(mode="wrap")
    @classmethod
    def _one_line(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as e:
            first = e.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"])) or "config"
            if first["type"] == "extra_forbidden":
                known = ", ".join(cls.model_fields)
                raise ConfigError(f"{cls.__name__} field {field!r} is unknown; known: {known}") from None
            if first["type"] == "missing":
                raise ConfigError(f"{cls.__name__} field {field!r} is missing; give it") from None
            said = first["msg"]
            raise ConfigError(f"{cls.__name__} field {field!r} is {first['input']!r:.80}: {said}") from None


def checked(model_info: ModelInfo) -> ModelInfo:
    """The same. Raises ConfigError naming what AutoGen needs and it lacks."""
    missing = next((field for field in _REQUIRED if field not in model_info), None)
    if missing:
        raise ConfigError(f"model_info lacks {missing!r}; it needs: {', '.join(_REQUIRED)}")
    return model_info


def masked(headers: Mapping[str, str | SecretStr]) -> dict[str, str | SecretStr]:
    """HTTP headers for a config: values of those that sound secret are hidden when it is written."""
    return {name: SecretStr(_plain(v)) if _SECRET.search(name) else _plain(v) for name, v in headers.items()}


def revealed(headers: Mapping[str, str | SecretStr]) -> dict[str, str]:
    """HTTP headers as they are sent. Raises ConfigError for one that was lost when its config was written."""
    plain = {name: _plain(value) for name, value in headers.items()}
    lost = next((name for name, value in plain.items() if value == _MASK), None)
    if lost:
        raise ConfigError(f"header {lost!r} was masked when this config was written; put its value back in")
    return plain


def _plain(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value
