"""Requests for Ollama: text that cannot end a turn, and finished thinking put into the model's mouth.

Ollama takes control strings for control tokens wherever they stand in a message, so what is not ours is broken up
before it is sent. A last message of role `assistant` is continued only if the model's template leaves that turn
open; which way works is found out once, from the prompts that the server renders.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from preflexor_agents.backends.ollama_model import OllamaModel
from preflexor_agents.backends.ollama_server import rendered
from preflexor_agents.markup import TAGS, neutralise
from preflexor_agents.prompts import TAG_HINT, Message

Prefill = Literal["thinking", "content", "raw", "quoted"]
"""How thinking gets into the prompt: a field or the content of a last assistant message, our own raw prompt made of
the server's rendering, or quoted in the user's turn."""

PREFILL_NOTES: Mapping[Prefill, str] = {
    "raw": "the model's template closes a last assistant turn: the prompt was sent raw, as the server rendered it",
    "quoted": "this server cannot continue a turn: the thinking was quoted in the question, not put into the reply",
}
NEUTRALISED = "control strings in the text were broken up"

_PROBE = "zqprobezq"
# DeepSeek's markers are drawn with a full-width bar.
_GENERIC = re.compile("<\\|[^<>|\\s]{1,64}\\|?>|<[^<>|\\s]{1,64}\\|>|<\uff5c[^<>\uff5c]{1,64}\uff5c>")
_MARKER = re.compile(r"</?[^<>\s]{1,64}>|\[/?[A-Za-z_]{3,32}\]")
_KNOWN = """
    <s> </s> <bos> <eos> <pad> <unk> <sop> <eop> <sep> <start_of_turn> <end_of_turn> <end_of_utterance>
    <start_of_image> <end_of_image> <image> [IMG] [img] <__media__>
    [INST] [/INST] <<SYS>> <</SYS>> [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [gMASK]
    [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CONTENT]
    <tool_call> </tool_call> <tool_response> </tool_response>
    [THINK] [/THINK] <think> </think> <thinking> </thinking> <thought> </thought> <seed:think> </seed:think>
    <seed:bos> <seed:eos> <SPECIAL_10> <SPECIAL_11> <SPECIAL_12>
"""
"""Markers of model families that have no bars in them."""


def control_strings(template: str) -> frozenset[str]:
    """Strings that this model's tokenizer may take for control tokens: ours, well-known ones, the template's own."""
    literal = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", " ", template, flags=re.DOTALL)
    return frozenset((*TAGS, *_KNOWN.split(), *_MARKER.findall(literal), *_GENERIC.findall(literal)))


def disarmed(text: str, control: frozenset[str]) -> str:
    """The text without any control string; anything shaped like `<|name|>` counts as one."""
    return neutralise(text, control.union(_GENERIC.findall(text)))


@dataclass(frozen=True, slots=True)
class Turns:
    """Messages as they are sent."""

    messages: tuple[dict[str, str], ...]
    notes: tuple[str, ...]


def turns(messages: Sequence[Message], control: frozenset[str]) -> Turns:
    """The messages with control strings broken up, all but our own hint on tags in a system turn."""
    sent = []
    for message in messages:
        parts = message.content.split(TAG_HINT) if message.role == "system" else [message.content]
        sent.append({"role": message.role, "content": TAG_HINT.join(disarmed(part, control) for part in parts)})
    changed = any(new["content"] != old.content for new, old in zip(sent, messages, strict=True))
    return Turns(tuple(sent), (NEUTRALISED,) if changed else ())


def prefix(tags: tuple[str, str], thinking: str) -> str:
    """The beginning of a reply whose thinking is done, as the models are trained to write it."""
    opening, closing = tags
    return f"{opening}\n{thinking}\n{closing}" + ("\n\n" if opening == "<think>" else "")


def continued(prompt: str, tags: tuple[str, str], thinking: str) -> str:
    """A rendered prompt that ends where the reply begins, with finished thinking behind it."""
    start = prefix(tags, thinking)
    if prompt.rstrip().endswith(tags[0]):
        return prompt.rstrip() + start.removeprefix(tags[0])
    return prompt + start


def with_thinking(
    sent: Sequence[dict[str, str]], tags: tuple[str, str], thinking: str, *, way: Prefill
) -> list[dict[str, str]]:
    """The messages of /api/chat with finished thinking at the end."""
    match way:
        case "thinking":
            return [*sent, {"role": "assistant", "thinking": thinking, "content": ""}]
        case "content":
            return [*sent, {"role": "assistant", "content": prefix(tags, thinking)}]
        case "quoted":
            quoted = f"Your thinking, finished:\n{thinking}\n\nTask: write only the answer that follows from it."
            *before, last = sent
            return [*before, {**last, "content": f"{last['content']}\n\n{quoted}"}]
    return list(sent)


async def prefill_way(http: httpx.AsyncClient, model: OllamaModel, *, options: Mapping[str, Any]) -> Prefill:
    """Find out from rendered prompts how this model can be made to go on after finished thinking.

    Raises:
        BackendError: the server cannot be reached.
    """
    body: dict[str, Any] = {"model": model.name, "options": options}
    if model.thinks:
        body["think"] = True
    question = [{"role": "user", "content": "Question"}]
    ways: tuple[Prefill, ...] = ("thinking", "content") if model.thinks else ("content",)
    for way in ways:
        asked = with_thinking(question, model.tags, _PROBE, way=way)
        prompt = await rendered(http, {**body, "messages": asked})
        if prompt is not None and _left_open(prompt):
            return way
    plain = await rendered(http, {**body, "messages": question})
    return "quoted" if plain is None else "raw"


def _left_open(prompt: str) -> bool:
    """Whether the prompt ends with the probe's closed section and nothing after it."""
    before, probe, after = prompt.rpartition(_PROBE)
    if not probe or "think" not in before[-64:].lower():
        return False
    closing = after.strip()
    return _MARKER.fullmatch(closing) is not None and "think" in closing.lower()
