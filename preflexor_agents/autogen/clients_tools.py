"""Tools as models see them: whole JSON schemas, a section of the system text, and schemas that force a call."""

import json
import re
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autogen_core import FunctionCall
from autogen_core.tools import Tool, ToolSchema

from preflexor_agents.errors import ConfigError

MOST_CALLS = 8
"""Calls in one reply that must call; without a limit a small model may not end its list."""
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_ID_LETTERS = string.ascii_letters + string.digits


class CallError(ConfigError, ValueError):
    """A call asks for what the client or the model cannot do; a ValueError too, as AutoGen's own clients raise."""


@dataclass(frozen=True, slots=True)
class Function:
    """A tool, as a model is told of it."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of the arguments, complete."""

    def wire(self) -> dict[str, Any]:
        """In the form of chat endpoints and chat templates."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


def functions(tools: Sequence[Tool | ToolSchema]) -> tuple[Function, ...]:
    """The tools with their whole schemas. Raises CallError for a name that models cannot write."""
    found = []
    for tool in tools:
        schema: Mapping[str, Any] = tool if isinstance(tool, dict) else tool.schema
        name = str(schema["name"])
        if not _NAME.fullmatch(name):
            raise CallError(f"tool name {name!r} is not valid; use at most 64 letters, digits, '_' and '-'")
        parameters = schema.get("parameters") or {"type": "object", "properties": {}}
        found.append(Function(name, str(schema.get("description", "")), parameters))
    return tuple(found)


def section(functions: Sequence[Function]) -> str:
    """What the system text says of the tools, where the model's own template cannot."""
    lines = "\n".join(json.dumps(f.wire()["function"], ensure_ascii=False) for f in functions)
    return f"You can call these functions, each given as a JSON schema:\n{lines}"


HOW_TO_CALL = (
    'To call a function, reply with one line for each call: <tool_call>{"name": NAME, "arguments": {...}}</tool_call>'
)
MUST_CALL = 'Reply only with the calls, as a JSON list: [{"name": NAME, "arguments": {...}}]'


def calls_schema(functions: Sequence[Function], *, most: int = MOST_CALLS) -> dict[str, Any]:
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


def call(name: str, arguments: Mapping[str, Any] | str) -> FunctionCall:
    """A call with an id of its own. Nine letters or digits: what the strictest chat templates ask of an id."""
    text = arguments if isinstance(arguments, str) else json.dumps(dict(arguments), ensure_ascii=False)
    number = "".join(secrets.choice(_ID_LETTERS) for _ in range(9))
    return FunctionCall(id=number, name=_NOT_IN_NAME.sub("_", name)[:64], arguments=text)
