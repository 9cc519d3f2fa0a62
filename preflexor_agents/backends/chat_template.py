"""Renders a chat with tools: by the model's own template where that leads to calls we can read, else in plain words.

All texts that are not the template's stay apart from it, as in `template`: also descriptions of tools, arguments of
calls and results.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from preflexor_agents.backends.calls import find_calls
from preflexor_agents.backends.chat import HOW_TO_CALL, Chat, ChatTurn, tools_in_words
from preflexor_agents.backends.template import FAILURES, ChatTemplate, Span, bare, hide, spans_of
from preflexor_agents.markup import neutralise
from preflexor_agents.prompts import Message

CALL_MARKS = ("<tool_call>", "</tool_call>", "<|tool_call|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>")
"""Tokens around calls in the forms that can be read."""
_NAMES = ("type", "role", "id", "tool_call_id", "name", "required")
"""Fields that templates compare."""
_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")
_TOOL, _VALUE, _QUESTION = "zqtoolzq", "zqvaluezq", "zqaskzq"


def offers_tools(template: ChatTemplate) -> bool:
    """Whether the template shows tools to the model, and writes calls in a form that we can read back."""
    properties = {"x": {"type": "string", "description": "d"}}
    schema = {"type": "object", "properties": properties, "required": ["x"]}
    tools = [{"type": "function", "function": {"name": _TOOL, "description": "d", "parameters": schema}}]
    asked = {"role": "user", "content": _QUESTION}
    for arguments in ({"x": _VALUE}, json.dumps({"x": _VALUE})):
        function = {"name": _TOOL, "arguments": arguments}
        calls = [{"type": "function", "id": "abcdefghi", "function": function}]
        called = {"role": "assistant", "content": "", "tool_calls": calls}
        try:
            prompt = template.fill([asked], tools=tools, thinking=True)
            whole = template.fill([asked, called], tools=tools, thinking=True, open_reply=False)
        except FAILURES:
            continue
        if _TOOL in prompt and any(_reads(reply) for reply in _replies(prompt, whole)):
            return True
    return False


def _replies(prompt: str, whole: str) -> Iterator[str]:
    """What the model may have written, with and without what its template puts after it."""
    starts = [whole[len(prompt) :]] if whole.startswith(prompt) else []
    for reply in (*starts, whole.rpartition(_QUESTION)[2]):
        yield reply
        yield from (reply.partition(end)[0] for end in ("<|", "</s>", "<end", "<eo") if end in reply)


def _reads(reply: str) -> bool:
    calls = find_calls(reply.strip(), (_TOOL,)).calls
    return [(c.name, json.loads(c.arguments)) for c in calls] == [(_TOOL, {"x": _VALUE})]


def render_chat(
    template: ChatTemplate,
    chat: Chat,
    *,
    offers_tools: bool,
    thinking: bool,
    control: Collection[str],
    spelt: Collection[str],
) -> tuple[Span, ...]:
    """The prompt up to where the reply begins.

    Args:
        template: of the model.
        chat: what to render.
        offers_tools: whether to try the template's own way with tools.
        thinking: what a template that can switch thinking is told.
        control: strings that may not stand in a name.
        spelt: reasoning tags that the model can only spell; broken up in all turns but those of the system.

    Raises:
        ModelError: the template cannot even render plain turns.
    """
    turns = tuple(_disarmed(turn, spelt) for turn in chat.turns)
    if offers_tools and (chat.tools or any(turn.calls or turn.role == "tool" for turn in turns)):
        for filled in _fillings(template, replace(chat, turns=turns), thinking=thinking, control=control):
            if filled is not None:
                return filled
    return template.render(_plain(turns, chat), thinking=thinking)


def _fillings(
    template: ChatTemplate, chat: Chat, *, thinking: bool, control: Collection[str]
) -> Iterator[tuple[Span, ...] | None]:
    """The chat in the shapes that templates take, most usual first; None where the template refuses."""
    reasons = "reasoning_content" in template.source
    alone = _one_call_each(chat.turns)
    for turns in dict.fromkeys((chat.turns, alone, _folded(chat.turns), _folded(alone))):
        for arguments in (_value, str):
            veil = _Veil([turn.content or ("" if reasons else turn.thinking) for turn in turns], control)
            filled = [_turn(n, turn, veil, arguments=arguments, reasons=reasons) for n, turn in enumerate(turns)]
            tools = [veil.over(tool.wire()) for tool in chat.tools]
            try:
                text = template.fill(filled, tools=tools or None, thinking=thinking)
            except FAILURES:
                continue
            needed = {n for n, turn in enumerate(turns) if not turn.calls}
            yield spans_of(text, veil.texts, optional=set(range(len(veil.texts))) - needed)


class _Veil:
    """Hides texts from a template, and keeps them."""

    def __init__(self, contents: list[str], control: Collection[str]) -> None:
        self.texts = contents
        self._control = control

    def over(self, value: Any, *, name: bool = False) -> Any:
        """The value with placeholders for its texts; names stay, without control strings."""
        match value:
            case str():
                return self._name(value) if name else self._text(value)
            case dict():
                return {self._name(str(key)): self.over(v, name=key in _NAMES) for key, v in value.items()}
            case list() | tuple():
                return [self.over(item, name=name) for item in value]
        return value

    def _text(self, text: str) -> str:
        self.texts.append(text)
        return hide(len(self.texts) - 1, text)

    def _name(self, text: str) -> str:
        return neutralise(bare(text), self._control)


def _turn(
    number: int, turn: ChatTurn, veil: _Veil, *, arguments: Callable[[str], Any], reasons: bool
) -> dict[str, Any]:
    filled: dict[str, Any] = {"role": turn.role, "content": hide(number, veil.texts[number])}
    if turn.calls:
        filled["tool_calls"] = [
            {
                "type": "function",
                "id": _short(call.id),
                "function": {
                    "name": veil.over(call.name, name=True),
                    "arguments": veil.over(arguments(call.arguments)),
                },
            }
            for call in turn.calls
        ]
    if turn.thinking and reasons:
        filled["reasoning_content"] = veil.over(turn.thinking)
    if turn.role == "tool":
        filled |= {"name": veil.over(turn.name, name=True), "tool_call_id": _short(turn.call_id)}
    return filled


def _value(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _short(identity: str) -> str:
    """An id in the form that the strictest templates ask for."""
    return identity if _SHORT_ID.fullmatch(identity) else hashlib.sha256(identity.encode()).hexdigest()[:9]


def _one_call_each(turns: Sequence[ChatTurn]) -> tuple[ChatTurn, ...]:
    """The turns with parallel calls one after the other, each with its result."""
    made: list[ChatTurn] = []
    rest = list(turns)
    while rest:
        turn = rest.pop(0)
        if len(turn.calls) < 2:
            made.append(turn)
            continue
        results: list[ChatTurn] = []
        while rest and rest[0].role == "tool":
            results.append(rest.pop(0))
        for n, call in enumerate(turn.calls):
            first = turn if n == 0 else ChatTurn(role="assistant")
            made.append(replace(first, calls=(call,)))
            made += [result for result in results if result.call_id == call.id]
        known = {call.id for call in turn.calls}
        made += [result for result in results if result.call_id not in known]
    return tuple(made)


def _folded(turns: Sequence[ChatTurn]) -> tuple[ChatTurn, ...]:
    """The turns with the system's text at the head of the first user turn; some templates drop it after a call."""
    if len(turns) < 2 or (turns[0].role, turns[1].role) != ("system", "user"):
        return tuple(turns)
    first = replace(turns[1], content=f"{turns[0].content}\n\n{turns[1].content}")
    return (first, *turns[2:])


def _plain(turns: Sequence[ChatTurn], chat: Chat) -> list[Message]:
    """The chat for a template that knows no tools."""
    messages = []
    if chat.tools:
        told = f"{tools_in_words(chat.tools)}\n{HOW_TO_CALL}"
        system = turns[0].content if turns and turns[0].role == "system" else ""
        messages.append(Message("system", f"{system}\n\n{told}" if system else told))
        turns = turns[1:] if system else turns
    for turn in turns:
        if turn.role == "tool":
            messages.append(Message("user", f"Result of {turn.name}: {turn.content}"))
        else:
            calls = [call.words() for call in turn.calls]
            messages.append(Message(turn.role, "\n".join(t for t in (turn.content or turn.thinking, *calls) if t)))
    return messages


def _disarmed(turn: ChatTurn, spelt: Collection[str]) -> ChatTurn:
    if turn.role == "system":
        return turn
    return replace(turn, content=neutralise(turn.content, spelt), thinking=neutralise(turn.thinking, spelt))
