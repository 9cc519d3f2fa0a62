"""Finds tool calls that a model wrote as text.

Known are `<tool_call>{…}</tool_call>` (Hermes, Qwen), also `<tool_calls>` and `<TOOLCALL>`; `<function=NAME>` with JSON
or `<parameter=…>` inside (Llama 3.1, Qwen-Coder); `<arg_key>…` (GLM); `[TOOL_CALLS][{…}]` and
`[TOOL_CALLS]NAME[ARGS]{…}` (Mistral); `<|tool_call|>[{…}]` (Granite, Phi); `<|python_tag|>{…}` and bare `{"name": …,
"parameters": …}` (Llama 3.x); bare lists, and JSON in a code fence. Text that turns out to be no call is kept.
"""

import json
import re
import secrets
import string
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from preflexor_agents.backends.chat import ChatCall

_TAGS = ("<tool_call>", "<tool_calls>", "<TOOLCALL>")
_PREFIXES = ("[TOOL_CALLS]", "<|python_tag|>", "<|tool_call|>")
MARKERS = (*_TAGS, *_PREFIXES, "<function=")
"""Strings that begin a call anywhere in a reply."""
_FENCES = ("", "json", "tool_call", "tool_code")
"""Languages of a code fence that may hold calls."""
_TAGGED = re.compile(r"<(tool_calls?|TOOLCALL)>\s*(.*?)\s*(?:</\1>|$)", re.DOTALL)
_FUNCTION = re.compile(r"<function=([^>\s]+)>\s*(.*?)\s*(?:</function>|$)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_ARGUMENT = re.compile(r"<arg_key>\s*(.*?)\s*</arg_key>\s*<arg_value>\n?(.*?)\n?</arg_value>", re.DOTALL)
_FENCE = re.compile(r"\s*```(?:json|tool_call|tool_code)?[ \t]*\n(.*?)\s*```\s*", re.DOTALL)
_NAMED = re.compile(r"([\w-]{1,64})\s*(?:\[CALL_ID\][\w-]*)?(?:\[ARGS\])?\s*(?=\{)")
_NAME = re.compile(r"[\w.-]{1,64}")
_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_ID_LETTERS = string.ascii_letters + string.digits
_DECODER = json.JSONDecoder()


class Found(NamedTuple):
    """What a reply comes to."""

    text: str
    """What is not part of a call."""
    calls: tuple[ChatCall, ...]


class CallGuard:
    """Takes a reply piece by piece; gives out what is certain to be no part of a call."""

    def __init__(self) -> None:
        """Begin before the first piece."""
        self._held = ""
        self._begun = False
        self._holding = False

    def feed(self, text: str) -> str:
        """Take a piece; return text that can be shown at once."""
        self._held += text
        if not self._begun:
            bare = _bare(self._held.lstrip())
            if bare is None:
                return ""
            self._begun, self._holding = True, bare
        if self._holding:
            return ""
        marks = [at for at in (self._held.find(marker) for marker in MARKERS) if at >= 0]
        self._holding = bool(marks)
        cut = min(marks) if marks else len(self._held) - _overlap(self._held)
        ready, self._held = self._held[:cut], self._held[cut:]
        return ready


def call(name: str, arguments: Mapping[str, Any] | str) -> ChatCall:
    """A call with an id of its own. Nine letters or digits: what the strictest chat templates ask of an id."""
    text = arguments if isinstance(arguments, str) else json.dumps(dict(arguments), ensure_ascii=False)
    number = "".join(secrets.choice(_ID_LETTERS) for _ in range(9))
    return ChatCall(id=number, name=_NOT_IN_NAME.sub("_", name)[:64], arguments=text)


def find_calls(text: str, names: Collection[str]) -> Found:
    """The calls in a text. One that carries a marker may name any tool, bare JSON only one of `names`."""
    for pattern, read in ((_TAGGED, partial(_tagged, names=names)), (_FUNCTION, _function)):
        matches = [(match, calls) for match in pattern.finditer(text) if (calls := tuple(read(match)))]
        if matches:
            return _without(text, matches)
    for marker in _PREFIXES:
        before, found, after = text.partition(marker)
        if found and (calls := tuple(_sequence(after.replace(marker, ";").removesuffix("<|/tool_call|>")))):
            return Found(before, calls)
    fenced = _FENCE.fullmatch(text)
    calls = tuple(_sequence(fenced[1] if fenced else text))
    if calls and all(c.name in names for c in calls):
        return Found("", calls)
    return Found(text, ())


def calls_in(value: Any) -> Iterator[ChatCall]:
    """The calls that a JSON value describes; none if it is something else."""
    if isinstance(value, list):
        found = [list(calls_in(item)) for item in value]
        if all(found):
            yield from (c for calls in found for c in calls)
        return
    if not isinstance(value, Mapping):
        return
    if isinstance(value.get("tool_calls"), list):
        yield from calls_in(value["tool_calls"])
        return
    inner = value.get("function")
    described = inner if isinstance(inner, Mapping) else value
    name = described.get("name", inner if isinstance(inner, str) else None)
    arguments = next((described[key] for key in ("arguments", "parameters", "args") if key in described), None)
    if isinstance(arguments, str):
        arguments = _loaded(arguments)
    if isinstance(name, str) and name and isinstance(arguments, Mapping):
        yield call(name, arguments)


def _bare(start: str) -> bool | None:
    """Whether a reply that begins so may be nothing but calls; None if that is not clear yet."""
    if start.startswith("```"):
        line, ended, _ = start.partition("\n")
        return line[3:].strip() in _FENCES if ended else None
    if "```".startswith(start):
        return None
    if start[0] not in "{[":
        return False
    inside = start[1:].lstrip()
    return inside[0] == ('"' if start[0] == "{" else "{") if inside else None


def _tagged(match: re.Match[str], names: Collection[str]) -> Iterator[ChatCall]:
    inside = match[2]
    function, name = _FUNCTION.search(inside), _NAME.match(inside)
    if function:
        yield from _function(function)
    elif inside in names or (name and inside[name.end() :].lstrip().startswith("<arg_key>")):
        yield call(name[0] if name else inside, {key: _value(text) for key, text in _ARGUMENT.findall(inside)})
    else:
        yield from calls_in(_loaded(inside))


def _function(match: re.Match[str]) -> Iterator[ChatCall]:
    values = {name: _value(text) for name, text in _PARAMETER.findall(match[2])}
    arguments = values or _loaded(match[2] or "{}")
    if isinstance(arguments, Mapping):
        yield call(match[1], arguments)


def _sequence(text: str) -> Iterator[ChatCall]:
    """Calls one after the other, apart by semicolons, commas or white space; none if anything else is there."""
    found: list[ChatCall] = []
    at = 0
    while at < len(text):
        if text[at] in "; ,\t\r\n":
            at += 1
            continue
        named = _NAMED.match(text, at)
        try:
            value, at = _DECODER.raw_decode(text, named.end() if named else at)
        except (ValueError, RecursionError):
            return
        calls = [call(named[1], value)] if named else list(calls_in(value))
        if not calls:
            return
        found += calls
    yield from found


def _without(text: str, matches: list[tuple[re.Match[str], tuple[ChatCall, ...]]]) -> Found:
    rest, at = "", 0
    for match, _ in matches:
        rest += text[at : match.start()]
        at = match.end()
    return Found((rest + text[at:]).rstrip(), tuple(c for _, calls in matches for c in calls))


def _loaded(text: str) -> Any:
    """The JSON value at the beginning of a text; None if there is none. Small models add a brace too many."""
    try:
        return _DECODER.raw_decode(text.lstrip())[0]
    except (ValueError, RecursionError):
        return None


def _value(text: str) -> Any:
    """A parameter that may be JSON or plain text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _overlap(text: str) -> int:
    """Length of the longest end of the text that may begin a marker."""
    longest = max(map(len, MARKERS)) - 1
    tails = (text[-n:] for n in range(min(longest, len(text)), 0, -1))
    return next((len(tail) for tail in tails if any(m.startswith(tail) for m in MARKERS)), 0)
