"""The part of Go's text/template that chat templates use, as Ollama fills it in: enough to render a prompt in a test.

A test compares it with the real one where Go is installed.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_ACTION = re.compile(r"\{\{(- )?\s*(.*?)\s*( -)?\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|:=|\$?[\w.]*[\w.$]|[(),=|$]')


class GoError(Exception):
    """The template is none, or does what this part does not know."""


@dataclass
class Text:
    text: str


@dataclass
class Action:
    words: list[str]


@dataclass
class Branch:
    kind: str
    words: list[str]
    then: list[Any] = field(default_factory=list)
    other: list[Any] = field(default_factory=list)


Node = Text | Action | Branch


def parse(source: str) -> list[Node]:
    """The tree of a template. Raises GoError."""
    root: list[Node] = []
    stack: list[tuple[Branch | None, list[Node]]] = [(None, root)]
    for node in _pieces(source):
        if isinstance(node, Text):
            stack[-1][1].append(node)
            continue
        head = node.words[0] if node.words else ""
        if head in ("if", "range"):
            branch = Branch(head, node.words[1:])
            stack[-1][1].append(branch)
            stack.append((branch, branch.then))
        elif head == "else":
            owner = stack.pop()[0]
            if owner is None:
                raise GoError("unexpected {{else}}")
            if node.words[1:2] == ["if"]:
                inner = Branch("if", [*node.words[2:]])
                inner.kind = "else if"
                owner.other.append(inner)
                stack += [(owner, owner.other), (inner, inner.then)]
            else:
                stack.append((owner, owner.other))
        elif head == "end":
            owner = stack.pop()[0]
            while owner is not None and owner.kind == "else if":
                owner = stack.pop()[0]
            if owner is None:
                raise GoError("unexpected {{end}}")
        else:
            stack[-1][1].append(node)
    if len(stack) > 1:
        raise GoError("unexpected EOF")
    return root


def _pieces(source: str) -> Iterator[Text | Action]:
    at, trim = 0, False
    for match in _ACTION.finditer(source):
        text = source[at : match.start()]
        text = text.lstrip(" \t\r\n") if trim else text
        text = text.rstrip(" \t\r\n") if match[1] else text
        if text:
            yield Text(text)
        if not match[2].startswith("/*"):
            yield Action(_WORD.findall(match[2]))
        at, trim = match.end(), bool(match[3])
    rest = source[at:].lstrip(" \t\r\n") if trim else source[at:]
    if "{{" in rest:
        raise GoError("unclosed action")
    if rest:
        yield Text(rest)


def render(source: str, messages: Sequence[Mapping[str, Any]], *, think: bool | None = None) -> str:
    """The prompt that Ollama makes of /api/chat messages."""
    joined = _collated(messages)
    data = {
        "Messages": joined,
        "System": "\n\n".join(m["content"] for m in messages if m["role"] == "system"),
        "Response": "",
        "Think": bool(think),
        "IsThinkSet": think is not None,
    }
    out: list[str] = []
    _run(parse(source), data, {"$": data}, out)
    return "".join(out)


def infer_tags(source: str) -> tuple[str, str]:
    """The tags around thinking, as the server finds them: the text on both sides of `.Thinking`."""
    tags = ["", ""]

    def visit(nodes: Sequence[Node], *, ranged: bool) -> None:
        for node in nodes:
            if isinstance(node, Text):
                continue
            if ranged and any(word.startswith(".Thinking") for word in node.words):
                for n, end in enumerate((nodes[0], nodes[-1])):
                    if isinstance(end, Text):
                        tags[n] = end.text.strip()
            if isinstance(node, Branch):
                inside = ".Messages" in node.words if node.kind == "range" else ranged
                visit(node.then, ranged=inside)
                visit(node.other, ranged=inside)

    visit(parse(source), ranged=False)
    return tags[0], tags[1]


def _collated(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Neighbours of one role become one message."""
    joined: list[dict[str, Any]] = []
    for m in messages:
        if joined and joined[-1]["Role"] == m["role"] != "tool":
            joined[-1]["Content"] += "\n\n" + m.get("content", "")
        else:
            content, thinking = m.get("content", ""), m.get("thinking", "")
            joined.append({"Role": m["role"], "Content": content, "Thinking": thinking})
    return joined


def _run(nodes: Sequence[Node], dot: Any, names: dict[str, Any], out: list[str]) -> None:
    for node in nodes:
        match node:
            case Text(text):
                out.append(text)
            case Action([name, (":=" | "=") as how, *words]):
                if how == "=" and name not in names:
                    raise GoError(f"undefined variable {name}")
                names[name] = _value(words, dot, names)
            case Action(words):
                out.append(_shown(_value(words, dot, names)))
            case Branch("range", [index, ",", item, ":=", *words]):
                for n, value in enumerate(_value(words, dot, names)):
                    names |= {index: n, item: value}
                    _run(node.then, value, names, out)
            case Branch("range", words):
                for value in _value(words, dot, names):
                    _run(node.then, value, names, out)
            case Branch(_, words):
                _run(node.then if _value(words, dot, names) else node.other, dot, names, out)


def _shown(value: Any) -> str:
    return "true" if value is True else "false" if value is False else str(value)


def _and(*values: Any) -> Any:
    return next((v for v in values if not v), values[-1])


def _or(*values: Any) -> Any:
    return next((v for v in values if v), values[-1])


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "eq": lambda a, *others: any(a == b for b in others),
    "ne": lambda a, b: a != b,
    "gt": lambda a, b: a > b,
    "le": lambda a, b: a <= b,
    "and": _and,
    "or": _or,
    "not": lambda a: not a,
    "len": len,
    "slice": lambda value, start=0, end=None: value[start:end],
    "index": lambda value, key: value[key],
}


def _value(words: Sequence[str], dot: Any, names: Mapping[str, Any]) -> Any:
    """The value of a pipeline without pipes: an operand, or a function with its operands."""
    rest = list(words)
    value = _operands(rest, dot, names)
    if rest:
        raise GoError(f"cannot read {' '.join(words)}")
    return value


def _operands(rest: list[str], dot: Any, names: Mapping[str, Any]) -> Any:
    head = rest.pop(0)
    if head not in _FUNCTIONS:
        return _operand(head, rest, dot, names)
    values = []
    while rest and rest[0] != ")":
        values.append(_operand(rest.pop(0), rest, dot, names))
    return _FUNCTIONS[head](*values)


def _operand(word: str, rest: list[str], dot: Any, names: Mapping[str, Any]) -> Any:
    if word == "(":
        value = _operands(rest, dot, names)
        if not rest or rest.pop(0) != ")":
            raise GoError("unclosed left paren")
        return value
    if word.startswith('"'):
        return word[1:-1].encode().decode("unicode_escape")
    if word.isdigit():
        return int(word)
    if word in ("true", "false"):
        return word == "true"
    name, _, path = word.partition(".")
    if name and name not in names:
        raise GoError(f"function or variable {name!r} is not known")
    value = names[name] if name else dot
    for part in path.split("."):
        value = value[part] if part else value
    return value
