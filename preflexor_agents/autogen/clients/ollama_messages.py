"""AutoGen's messages and tools in Ollama's terms, and how many tokens they are."""

import json
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ollama
from autogen_core import Image
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResultMessage,
    LLMMessage,
    ModelFamily,
    ModelInfo,
    SystemMessage,
    UserMessage,
)

from preflexor_agents.autogen.clients.plan import Ask, with_system
from preflexor_agents.autogen.clients.tools import CallError
from preflexor_agents.backends.chat import ChatTool, tools_in_words
from preflexor_agents.backends.ollama import BYTES_PER_TOK, TURN_TOK
from preflexor_agents.backends.ollama_prompt import control_strings, disarmed
from preflexor_agents.errors import ConfigError
from preflexor_agents.markup import TAGS

IMAGE_TOK = 768
"""Prompt tokens of an image: between 256 (Gemma 3) and over 1000 (Qwen 2.5 VL)."""
OPTIONS = frozenset((*ollama.Options.model_fields, "min_p"))
_SEES = re.compile(r"llava|moondream|minicpm-v|pixtral|vision|-vl\b|\dvl\b|gemma-?3:(?!1b|270m)|gemma-?3$|llama-?4\b")
_HOW_TO_CALL = 'To call a function, reply only with JSON, one line for each call: {"name": NAME, "arguments": {...}}'
_CONTROL = control_strings("")
_TAG = re.compile("(" + "|".join(map(re.escape, TAGS)) + ")")


def described(model: str) -> ModelInfo:
    """What a model can, guessed from its name: images only if the name says so, tools and JSON in any case."""
    name = model.lower().rpartition("/")[2]
    return ModelInfo(
        vision=bool(_SEES.search(name)),
        function_calling=True,
        json_output=True,
        structured_output=True,
        family=ModelFamily.R1 if "deepseek-r1" in name else ModelFamily.UNKNOWN,
        multiple_system_messages=False,
    )


def known(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options. Raises ConfigError for one that Ollama would ignore without a word."""
    strange = next((name for name in options if name not in OPTIONS), None)
    if strange:
        raise ConfigError(f"{where} has no option {strange!r}; Ollama knows: {', '.join(sorted(OPTIONS))}")
    return dict(options)


def broken_up(sent: Sequence[Mapping[str, Any]], messages: Sequence[LLMMessage]) -> bool:
    """Whether `wire` had to break up control strings."""
    given = [text for message in messages for text in _texts(message)]
    return any(text and text not in given for m in sent for text in (m.get("content"), m.get("thinking")))


def wire(messages: Sequence[LLMMessage], *, thinks: bool) -> list[dict[str, Any]]:
    """The messages of /api/chat.

    Args:
        messages: folded.
        thinks: whether thoughts beside calls go back as thinking; else they are the call's text.
    """
    sent: list[dict[str, Any]] = []
    for message in messages:
        match message:
            case SystemMessage():
                sent.append({"role": "system", "content": _instructions(message.content)})
            case UserMessage():
                sent.append(_user(message))
            case AssistantMessage():
                sent.append(_assistant(message, thinks=thinks))
            case FunctionExecutionResultMessage():
                sent += [
                    {"role": "tool", "tool_name": result.name, "content": disarmed(result.content, _CONTROL)}
                    for result in message.content
                ]
    return sent


def in_words(ask: Ask) -> Ask:
    """The same for a model whose template on the server knows no tools: they and their calls become text."""
    turns: list[LLMMessage] = []
    for message in ask.messages:
        match message:
            case AssistantMessage(content=list(calls)):
                made = [{"name": c.name, "arguments": _arguments(c.arguments)} for c in calls]
                lines = [message.thought or "", *(json.dumps(call, ensure_ascii=False) for call in made)]
                turns.append(AssistantMessage(content="\n".join(filter(None, lines)), source=message.source))
            case FunctionExecutionResultMessage():
                results = "\n".join(f"Result of {r.name}: {r.content}" for r in message.content)
                turns.append(UserMessage(content=results, source="tools"))
            case _:
                turns.append(message)
    told = with_system(tuple(turns), f"{tools_in_words(ask.functions)}\n{_HOW_TO_CALL}")
    return replace(ask, messages=told, functions=())


def estimate_tok(sent: Sequence[Mapping[str, Any]], functions: Sequence[ChatTool]) -> int:
    """About how many tokens a prompt has, before any correction."""
    total = 0
    for message in sent:
        rest = {key: value for key, value in message.items() if key not in ("role", "images") and value}
        size = sum(_size(v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)) for v in rest.values())
        total += TURN_TOK + -(-size // BYTES_PER_TOK) + IMAGE_TOK * len(message.get("images", ()))
    return total + sum(_size(json.dumps(f.wire(), ensure_ascii=False)) // BYTES_PER_TOK for f in functions)


@dataclass(slots=True)
class Correction:
    """How the estimates compare with what the server counted."""

    estimated: int = 0
    counted: int = 0

    def apply(self, estimate: int) -> int:
        """A corrected estimate."""
        if not self.estimated:
            return estimate
        return round(estimate * min(4.0, max(0.25, self.counted / self.estimated)))

    def learn(self, estimate: int, counted: int, *, context_tok: int) -> None:
        """Take in a prompt that the server counted, unless it seems to have cut it or taken it from its cache."""
        if estimate / 4 < counted < context_tok - 1:
            self.estimated += estimate
            self.counted += counted


class FullSchemas(ollama.AsyncClient):
    """Another client's connection, for one call with tools.

    `ollama.Tool` knows no defaults, bounds or nested objects and drops them, so the request gets its tools as they
    are. Were the method below no longer called, only that would be lost.
    """

    def __init__(self, client: ollama.AsyncClient, tools: list[dict[str, Any]]) -> None:
        self._client = client._client
        self._tools = tools

    async def _request(self, *args: Any, **request: Any) -> Any:
        request["json"] = {**request["json"], "tools": self._tools}
        return await super()._request(*args, **request)


def _texts(message: LLMMessage) -> list[str]:
    match message:
        case AssistantMessage():
            return [message.thought or "", message.content if isinstance(message.content, str) else ""]
        case FunctionExecutionResultMessage():
            return [result.content for result in message.content]
        case UserMessage() if not isinstance(message.content, str):
            return ["\n".join(part for part in message.content if isinstance(part, str))]
    return [str(message.content)]


def _instructions(text: str) -> str:
    """System text, which may speak of reasoning tags but must not end its turn."""
    parts = _TAG.split(text)
    return "".join(part if n % 2 else disarmed(part, _CONTROL) for n, part in enumerate(parts))


def _user(message: UserMessage) -> dict[str, Any]:
    parts = [message.content] if isinstance(message.content, str) else message.content
    text = "\n".join(part for part in parts if isinstance(part, str))
    sent: dict[str, Any] = {"role": "user", "content": disarmed(text, _CONTROL)}
    images = [b64decode(part.to_base64()) for part in parts if isinstance(part, Image)]
    return {**sent, "images": images} if images else sent


def _assistant(message: AssistantMessage, *, thinks: bool) -> dict[str, Any]:
    if isinstance(message.content, str):
        return {"role": "assistant", "content": disarmed(message.content, _CONTROL)}
    thought = disarmed(message.thought or "", _CONTROL)
    calls = [{"function": {"name": c.name, "arguments": _arguments(c.arguments)}} for c in message.content]
    sent: dict[str, Any] = {"role": "assistant", "content": "" if thinks else thought, "tool_calls": calls}
    return {**sent, "thinking": thought} if thinks and thought else sent


def _arguments(text: str) -> dict[str, Any]:
    """Arguments as Ollama wants them. Raises CallError if they are no JSON object."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise CallError(f"the arguments of a call are {text!r:.80}; Ollama takes only a JSON object")
    return value


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
