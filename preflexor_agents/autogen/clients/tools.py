"""Tools as models see them: whole JSON schemas, and schemas that force a call."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from autogen_core.tools import Tool, ToolSchema

from preflexor_agents.backends.chat import ChatTool
from preflexor_agents.errors import ConfigError

MOST_CALLS = 8
"""Calls in one reply that must call; without a limit a small model may not end its list."""
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class CallError(ConfigError, ValueError):
    """A call asks for what the client or the model cannot do; a ValueError too, as AutoGen's own clients raise."""


def functions(tools: Sequence[Tool | ToolSchema]) -> tuple[ChatTool, ...]:
    """The tools with their whole schemas. Raises CallError for a name that models cannot write."""
    found = []
    for tool in tools:
        schema: Mapping[str, Any] = tool if isinstance(tool, dict) else tool.schema
        name = str(schema["name"])
        if not _NAME.fullmatch(name):
            raise CallError(f"tool name {name!r} is not valid; use at most 64 letters, digits, '_' and '-'")
        parameters = schema.get("parameters") or {"type": "object", "properties": {}}
        found.append(ChatTool(name=name, description=str(schema.get("description", "")), parameters=parameters))
    return tuple(found)


MUST_CALL = 'Reply only with the calls, as a JSON list: [{"name": NAME, "arguments": {...}}]'


def calls_schema(functions: Sequence[ChatTool], *, most: int = MOST_CALLS) -> dict[str, Any]:
    """JSON schema of a list of at least one call."""
    definitions: dict[str, Any] = {}
    forms = []
    for function in functions:
        parameters = dict(function.parameters)
        definitions |= parameters.pop("$defs", {})
        forms.append(
            {
                "type": "object",
                "properties": {"name": {"const": function.name}, "arguments": parameters},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    items = forms[0] if len(forms) == 1 else {"anyOf": forms}
    schema: dict[str, Any] = {"type": "array", "items": items, "minItems": 1, "maxItems": most}
    return {**schema, "$defs": definitions} if definitions else schema
