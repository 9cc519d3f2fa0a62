"""What a preference row says, as turns: the prompt, the preferred answer, the other one; whatever the row's shape.

Shapes: TRL (plain and conversational, with the prompt apart, inside or both, pairs or labelled answers), Anthropic's
transcripts, instruction/input/history with system (Alpaca), ShareGPT, LLaMA-Factory's messages, OpenAI's preferred and
non-preferred outputs, and answers whose sections are kept apart (this project's own logs).
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

UNPAIRED = re.compile("[\ud800-\udfff]")
"""Half a character: JSON can spell it, no file and no tokenizer can hold it. What is read has none."""
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant"}
_SPEAKER = re.compile(r"\n\n(Human|Assistant): ?")
_NO = frozenset(("false", "no", "0", "undesirable", "rejected", "bad"))
_GOOD = ("chosen", "chosen_messages", "preferred_output")
_BAD = ("rejected", "rejected_messages", "non_preferred_output")
_ONE = ("completion", "output", "response", "answer")
KNOWN = frozenset(("prompt", "question", "instruction", "input", "system", "history", "messages", "conversations")) | {
    *("label", "kto_tag"),
    *_GOOD,
    *_BAD,
}


class Turn(NamedTuple):
    """One turn."""

    role: str
    """`system`, `user`, `assistant`, or what else the row calls it."""
    text: str
    """All of it, tags included, unless `apart`."""
    apart: bool = False
    """Whether the row keeps the sections apart; `text` is the answer alone then, and tags in it are only spelt."""
    thinking: str | None = None
    """None if there is no such section, or if it is in the text; likewise `reflection`."""
    reflection: str | None = None

    def whole(self) -> str:
        """The text with its sections between tags."""
        sections = (("thinking", self.thinking), ("reflect", self.reflection))
        tagged = [f"<|{tag}|>\n{text}\n<|/{tag}|>" for tag, text in sections if text is not None]
        return "\n".join((*tagged, self.text))


class Turns(NamedTuple):
    """What was asked, and the answers; what the row does not have is empty."""

    prompt: tuple[Turn, ...]
    chosen: tuple[Turn, ...]
    rejected: tuple[Turn, ...]
    only: tuple[Turn, ...] = ()
    """An answer of which the row does not say whether it is good."""


def turns_of(data: Mapping[str, Any]) -> Turns:
    """The turns of a row."""
    prompt = _asked(data)
    good, bad = (_answer(data, keys) for keys in (_GOOD, _BAD))
    output = data.get("output")
    if not good and not bad and isinstance(output, list) and len(output) == 2:
        good, bad = _reply(output[0]), _reply(output[1])
    if not good and not bad:
        return _labelled(data, prompt)
    if good and bad and (not prompt or "assistant" not in (good[0].role, bad[0].role)):
        shared = _shared(good, bad)
        prompt, good, bad = good[:shared] or prompt, good[shared:], bad[shared:]
    return Turns(prompt, good, bad)


def text_of(value: Any) -> str:
    """The words in a value: a text, a message, parts of a message, or a list of those."""
    if isinstance(value, str):
        return UNPAIRED.sub("\ufffd", value)
    if isinstance(value, dict):
        return text_of(next((value[key] for key in ("content", "value", "text") if key in value), ""))
    if isinstance(value, list):
        return "\n\n".join(text for item in value if (text := text_of(item)))
    return "" if value is None else str(value)


def _asked(data: Mapping[str, Any]) -> tuple[Turn, ...]:
    turns: tuple[Turn, ...] = ()
    given = data.get("input")
    for value in (data.get("prompt"), data.get("question"), data.get("conversations"), data.get("messages")):
        if value:
            turns = _turns(value, role="user")
            break
    else:
        if data.get("instruction"):
            parts = (text_of(data["instruction"]), text_of(given))
            turns = (Turn("user", "\n\n".join(part for part in parts if part)),)
        elif isinstance(given, dict):
            turns = _turns(given.get("messages"), role="user")
    history = data.get("history")
    for pair in reversed(history) if isinstance(history, list) else ():
        if isinstance(pair, list) and len(pair) == 2:
            turns = (Turn("user", text_of(pair[0])), Turn("assistant", text_of(pair[1])), *turns)
    system = data.get("system")
    if isinstance(system, str) and system.strip() and turns and turns[0].role != "system":
        turns = (Turn("system", system), *turns)
    return turns


def _answer(data: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Turn, ...]:
    return _reply(next((data[key] for key in keys if data.get(key)), None))


def _reply(value: Any) -> tuple[Turn, ...]:
    turns = _turns(value, role="assistant")
    return turns if any(turn.whole().strip() for turn in turns) else ()


def _labelled(data: Mapping[str, Any], prompt: tuple[Turn, ...]) -> Turns:
    """A row with one answer: the last turn of a conversation that has no other place for it, or a text of its own."""
    said = _answer(data, _ONE)
    if not said and prompt and prompt[-1].role == "assistant":
        prompt, said = prompt[:-1], prompt[-1:]
    label = data.get("label", data.get("kto_tag"))
    if label is None:
        return Turns(prompt, (), (), said)
    is_good = label.strip().lower() not in _NO if isinstance(label, str) else bool(label)
    return Turns(prompt, said, ()) if is_good else Turns(prompt, (), said)


def _shared(chosen: tuple[Turn, ...], rejected: tuple[Turn, ...]) -> int:
    """Turns that both conversations begin with; the last turn is the answer, shared or not."""
    pairs = enumerate(zip(chosen[:-1], rejected[:-1], strict=False))
    return next((i for i, (a, b) in pairs if a != b), max(0, min(len(chosen), len(rejected)) - 1))


def _turns(value: Any, *, role: str) -> tuple[Turn, ...]:
    """The turns in a value; what does not say who speaks is said by `role`."""
    if isinstance(value, str):
        text = text_of(value)
        return _transcript(text) or ((Turn(role, text),) if text.strip() else ())
    if isinstance(value, list):
        return tuple(_turn(item, role) for item in value if item)
    return (_turn(value, role),) if value else ()


def _turn(value: Any, role: str) -> Turn:
    if not isinstance(value, dict):
        return Turn(role, text_of(value))
    said = value.get("role") or value.get("from")
    role = _ROLES.get(said, said) if isinstance(said, str) else role
    thinking, reflection = value.get("thinking"), value.get("reflection")
    if "answer" in value and not value.keys() & {"content", "value", "text"}:
        return Turn(role, text_of(value["answer"]), True, _section(thinking), _section(reflection))
    return Turn(role, text_of(value), False, _section(value.get("reasoning_content") or thinking), None)


def _section(value: Any) -> str | None:
    return text_of(value) if isinstance(value, str) else None


def _transcript(text: str) -> tuple[Turn, ...]:
    """`Human: … Assistant: …` after blank lines, as turns; none if the text is not of that form."""
    if not _SPEAKER.match(text):
        return ()
    _, *pieces = _SPEAKER.split(text)
    roles = ("user" if name == "Human" else "assistant" for name in pieces[::2])
    return tuple(Turn(role, words.strip()) for role, words in zip(roles, pieces[1::2], strict=True) if words.strip())
