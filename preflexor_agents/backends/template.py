"""Renders a model's chat template so that its own text and the messages' text can be told apart afterwards.

The template (Jinja, itself not trusted: it runs in a sandbox) sees placeholders instead of the contents. So whatever
it writes is its own and may hold control tokens, and whatever stands in a message is plain text.
"""

import json
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from preflexor_agents.errors import ModelError
from preflexor_agents.prompts import Message

FAILURES = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a template may raise when it is filled."""
_OPEN, _CLOSE, _OPEN_IN_JSON = "\ue0f0", "\ue0f1", "\ue0f2"
_PLACEHOLDER = re.compile(f"([{_OPEN}{_OPEN_IN_JSON}]\\d+){_CLOSE}")


class Span(NamedTuple):
    """A piece of a prompt."""

    text: str
    trusted: bool
    """Whether it is the template's own text, in which control tokens count."""


class ChatTemplate:
    """A compiled chat template."""

    def __init__(
        self,
        source: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """Compile.

        Args:
            source: Jinja.
            bos_token: text of the token that begins a text; likewise `eos_token`.
            eos_token: of the token that ends one.
            now: what a template that writes today's date is told.

        Raises:
            ModelError: the source is no valid Jinja.
        """
        env = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension]
        )
        env.filters["tojson"] = _tojson
        env.globals.update(raise_exception=_raise, strftime_now=lambda form: now().strftime(form))
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        try:
            self._template = env.from_string(source)
        except (TemplateError, RecursionError) as e:
            raise ModelError(
                f"the model's chat template is broken: {_line(e)}; use another file of the model"
            ) from None

    def render(self, messages: Sequence[Message], *, thinking: bool = True) -> tuple[Span, ...]:
        """The prompt up to where the reply begins.

        A template that rejects or leaves out a system message gets it at the head of the first user turn; one
        that wants user and assistant to alternate gets neighbouring turns of a role as one.

        Args:
            messages: the turns.
            thinking: what a template that can switch thinking is told.

        Raises:
            ModelError: the template cannot render such turns.
        """
        why = "it leaves out a message"
        for shape in _shapes(messages):
            for form in _FORMS:
                try:
                    text = self._text(shape, form, thinking)
                except FAILURES as e:
                    why = _line(e)
                    continue
                spans = spans_of(text, [m.content for m in shape])
                if spans is not None:
                    return spans
        roles = ", ".join(m.role for m in messages)
        raise ModelError(f"the model's chat template cannot render the turns {roles}: {why}; use another model")

    def fill(
        self,
        turns: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None,
        thinking: bool,
        open_reply: bool = True,
    ) -> str:
        """What the template makes of turns whose texts are hidden. Raises one of FAILURES."""
        return self._template.render(
            messages=turns,
            add_generation_prompt=open_reply,
            enable_thinking=thinking,
            tools=tools,
            documents=None,
            **self._tokens,
        )

    def _text(self, messages: Sequence[Message], form: "_Form", thinking: bool) -> str:
        turns = [{"role": m.role, "content": form.content(hide(n, m.content))} for n, m in enumerate(messages)]
        return self.fill(turns, tools=form.tools, thinking=thinking)


class _Generation(Extension):
    """`{% generation %}` marks what to train on; for a prompt it means nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Form(NamedTuple):
    """How a template may want its variables."""

    content: Callable[[str], Any]
    tools: list[Any] | None


_FORMS = (
    _Form(content=str, tools=None),
    _Form(content=lambda text: [{"type": "text", "text": text}], tools=None),
    _Form(content=str, tools=[]),
)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    if ensure_ascii:
        text = "".join(c if c.isascii() or c in (_OPEN, _CLOSE) else json.dumps(c)[1:-1] for c in text)
    return text.replace(_OPEN, _OPEN_IN_JSON)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def hide(number: int, content: str) -> str:
    """A placeholder with the white space around the content, which many templates trim."""
    core = content.strip()
    if not core:
        return content
    start = content.index(core)
    return f"{content[:start]}{_OPEN}{number}{_CLOSE}{content[start + len(core) :]}"


def bare(text: str) -> str:
    """The text without anything that would be taken for a placeholder."""
    return re.sub(f"[{_OPEN}{_CLOSE}{_OPEN_IN_JSON}]", "", text)


def spans_of(text: str, contents: Sequence[str], *, optional: Container[int] = frozenset()) -> tuple[Span, ...] | None:
    """A filled template with the hidden texts back in place, escaped where the template wrote them as JSON.

    None if one of them is missing that is not optional, by its number.
    """
    parts = _PLACEHOLDER.split(text)
    shown = {int(mark[1:]) for mark in parts[1::2]}
    if any(content.strip() and n not in shown and n not in optional for n, content in enumerate(contents)):
        return None
    spans = []
    for n, part in enumerate(parts):
        if n % 2 == 0:
            spans.append(Span(part, trusted=True))
            continue
        content = contents[int(part[1:])].strip()
        in_json = part[0] == _OPEN_IN_JSON
        spans.append(Span(json.dumps(content, ensure_ascii=False)[1:-1] if in_json else content, trusted=False))
    return tuple(span for span in spans if span.text)


def _shapes(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """The turns as they are, then in shapes that stricter templates take."""
    yield messages
    folded = _folded(messages)
    if folded != list(messages):
        yield folded
    merged = _merged(messages)
    if merged != list(messages):
        yield merged
        yield _merged(folded)


def _folded(messages: Sequence[Message]) -> list[Message]:
    """The system messages at the head of the first user turn."""
    system = [m.content for m in messages if m.role == "system"]
    turns = [m for m in messages if m.role != "system"]
    first = next((n for n, m in enumerate(turns) if m.role == "user"), None)
    if not system:
        return turns
    if first is None:
        return [Message("user", "\n\n".join(system)), *turns]
    turns[first] = Message("user", "\n\n".join([*system, turns[first].content]))
    return turns


def _merged(messages: Sequence[Message]) -> list[Message]:
    """Neighbouring turns of one role as one."""
    turns: list[Message] = []
    for message in messages:
        if turns and turns[-1].role == message.role:
            turns[-1] = Message(message.role, f"{turns[-1].content}\n\n{message.content}")
        else:
            turns.append(message)
    return turns
