"""A chat with tools, as data: what a model's own template or plain words make a prompt of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTool:
    """A tool that may be called."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of the arguments, complete."""

    def wire(self) -> dict[str, Any]:
        """In the form of chat endpoints and chat templates."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCall:
    """A call that was made."""

    id: str
    name: str
    arguments: str
    """JSON."""

    def words(self) -> str:
        """As a model without a form of its own is told to write it."""
        return f'<tool_call>{{"name": {json.dumps(self.name)}, "arguments": {self.arguments}}}</tool_call>'


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTurn:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    thinking: str = ""
    """What the assistant thought or said before its calls."""
    calls: tuple[ChatCall, ...] = ()
    name: str = ""
    """Tool that a turn of role `tool` is the result of."""
    call_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """Turns and tools."""

    turns: tuple[ChatTurn, ...]
    tools: tuple[ChatTool, ...] = ()


HOW_TO_CALL = (
    'To call a function, reply with one line for each call: <tool_call>{"name": NAME, "arguments": {...}}</tool_call>'
)


def tools_in_words(tools: Sequence[ChatTool]) -> str:
    """What a system text says of the tools."""
    lines = "\n".join(json.dumps(tool.wire()["function"], ensure_ascii=False) for tool in tools)
    return f"You can call these functions, each given as a JSON schema:\n{lines}"
