"""Turns what AutoGen asks for into one or two calls of the model.

Two, where an endpoint cannot do it at once: a call that must be made but was not, and JSON although there are tools
(a schema would keep the model from calling any).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from autogen_core import Image
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResultMessage,
    LLMMessage,
    ModelInfo,
    SystemMessage,
    UserMessage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from preflexor_agents.autogen.clients.tools import (
    MOST_CALLS,
    MUST_CALL,
    CallError,
    calls_schema,
    functions,
)
from preflexor_agents.backends.chat import ChatTool, tools_in_words

ToolChoice = Tool | Literal["auto", "required", "none"]
JsonOutput = bool | type[BaseModel] | None
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
"""Schema of JSON mode."""
_KNOWN = (SystemMessage, UserMessage, AssistantMessage, FunctionExecutionResultMessage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One call of the model."""

    messages: tuple[LLMMessage, ...]
    """At most one system message, and that first."""
    functions: tuple[ChatTool, ...] = ()
    schema: Mapping[str, Any] | None = None
    """What the text must be, from its first character on: the model does not think."""
    must_call: bool = False
    """Whether `schema` is a list of calls."""
    accept: Callable[[str], bool] | None = None
    """Whether a reply without calls will do; None in the last ask."""


def plan(
    messages: Sequence[LLMMessage],
    *,
    tools: Sequence[Tool | ToolSchema],
    tool_choice: ToolChoice,
    json_output: JsonOutput,
    model_info: ModelInfo,
    constrains_calls: bool,
) -> tuple[Ask, ...]:
    """The calls to make: the next one only if the one before is not acceptable.

    Args:
        messages: the conversation.
        tools: offered.
        tool_choice: as AutoGen has it; a tool is the only one offered.
        json_output: as AutoGen has it.
        model_info: what the model can.
        constrains_calls: whether a call can be forced while tools are offered in the model's own way.

    Raises:
        CallError: the model cannot do this, or the arguments are at odds.
    """
    turns = folded(messages)
    schema = _schema(json_output, model_info)
    if not model_info["vision"] and any(_shows_image(m) for m in turns):
        raise CallError("the model takes no images and one was given; remove it, or use a model with vision")
    offered = _offered(tools, tool_choice)
    if not offered:
        return (Ask(messages=turns, schema=schema),)
    if not model_info["function_calling"]:
        raise CallError("the model calls no functions and tools were given; set function_calling in model_info")
    if tool_choice == "auto":
        first = Ask(messages=turns, functions=offered)
        if schema is None:
            return (first,)
        return (replace(first, accept=_fits(json_output)), Ask(messages=turns, schema=schema))
    form = calls_schema(offered, most=MOST_CALLS if tool_choice == "required" else 1)
    if constrains_calls:
        told = with_system(turns, MUST_CALL)
        return (Ask(messages=told, functions=offered, schema=form, must_call=True),)
    told = with_system(turns, f"{tools_in_words(offered)}\n{MUST_CALL}")
    return (
        Ask(messages=turns, functions=offered, accept=lambda _: False),
        Ask(messages=told, schema=form, must_call=True),
    )


def folded(messages: Sequence[LLMMessage]) -> tuple[LLMMessage, ...]:
    """The messages with all system messages in one, at the beginning. Raises CallError for anything else."""
    strange = next((m for m in messages if not isinstance(m, _KNOWN)), None)
    if strange is not None:
        raise CallError(f"Unsupported message type: {type(strange).__name__}; use the classes of autogen_core.models")
    if not messages:
        raise CallError("there are no messages; give at least one")
    system = [m.content for m in messages if isinstance(m, SystemMessage) and m.content]
    rest = tuple(m for m in messages if not isinstance(m, SystemMessage))
    return (SystemMessage(content="\n\n".join(system)), *rest) if system else rest


def with_system(messages: tuple[LLMMessage, ...], text: str) -> tuple[LLMMessage, ...]:
    """Folded messages with more in their system message."""
    return folded((*messages, SystemMessage(content=text)))


def _offered(tools: Sequence[Tool | ToolSchema], choice: ToolChoice) -> tuple[ChatTool, ...]:
    if choice in ("auto", "required", "none"):
        if choice == "required" and not tools:
            raise CallError("tool_choice 'required' specified but no tools provided; give tools, or choose 'auto'")
        return () if choice == "none" else functions(tools)
    if not isinstance(choice, Tool):
        raise CallError(f"tool_choice is {choice!r}; use 'auto', 'required', 'none' or a tool")
    return functions([choice])


def _schema(json_output: JsonOutput, model_info: ModelInfo) -> Mapping[str, Any] | None:
    if json_output is None or json_output is False:
        return None
    if json_output is True:
        if not model_info["json_output"]:
            raise CallError("the model does not support JSON output; set json_output in model_info if it does")
        return ANY_OBJECT
    if isinstance(json_output, type) and issubclass(json_output, BaseModel):
        return json_output.model_json_schema()
    raise CallError(f"json_output is {json_output!r}; use True, False, None or a subclass of pydantic.BaseModel")


def _fits(json_output: JsonOutput) -> Callable[[str], bool]:
    def fits(text: str) -> bool:
        try:
            if isinstance(json_output, type):
                json_output.model_validate_json(text)
                return True
            return isinstance(json.loads(text), dict)
        except ValueError:  # pydantic's too
            return False

    return fits


def _shows_image(message: LLMMessage) -> bool:
    parts = message.content if isinstance(message, UserMessage) and isinstance(message.content, list) else []
    return any(isinstance(part, Image) for part in parts)
