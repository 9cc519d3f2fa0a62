"""What a model's file says of text: its vocabulary, its chat template, and how it writes its thinking.

Turns a request or a chat into a prompt. Needs no weights, so a file opened for its vocabulary alone will do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from preflexor_agents.backends.base import Request
from preflexor_agents.backends.chat import Chat
from preflexor_agents.backends.chat_template import CALL_MARKS, offers_tools, render_chat
from preflexor_agents.backends.template import ChatTemplate, Span
from preflexor_agents.backends.vocabulary import Words
from preflexor_agents.errors import BackendError
from preflexor_agents.events import Channel
from preflexor_agents.markup import TAGS, neutralise
from preflexor_agents.prompts import Message


class Marks(NamedTuple):
    """How a model writes its thinking."""

    open: str
    close: str


OWN_MARKS = Marks("<|thinking|>\n", "\n<|/thinking|>")
COMMON_MARKS = Marks("<think>\n", "\n</think>\n\n")
_PROBE = (Message("system", "a"), Message("user", "b"))
W = TypeVar("W", bound=Words)


class TextSource(Protocol):
    """What a model's file says of itself."""

    path: Path
    trained_tok: int
    """Context that the model was trained with."""
    chat_template: str
    """Jinja source."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request, ready to be decoded."""

    tokens: list[int]
    opened: Channel | None
    """Section that the reply starts in, as SectionParser wants it."""
    notes: tuple[str, ...] = ()


class ModelText(Generic[W]):
    """Prompts of one model. Safe for threads; the file must stay open."""

    def __init__(self, file: TextSource, vocabulary: W) -> None:
        """Read the template. Raises ModelError if it is broken."""
        self._file = file
        self.vocabulary = vocabulary
        self._template = ChatTemplate(
            file.chat_template,
            bos_token=self.vocabulary.text_of(self.vocabulary.bos),
            eos_token=self.vocabulary.text_of(self.vocabulary.eos),
        )
        ending = _ending(self._template.render(_PROBE))
        tokens = set(self.vocabulary.tags.values())
        own = "<|thinking|>" in tokens or "<|thinking|>" in file.chat_template
        self.native_tags = own or ("<think>" in file.chat_template and not ending.endswith("</think>"))
        """Whether the model opens its thinking by itself."""
        self._marks = OWN_MARKS if own else COMMON_MARKS
        self.spelt_tags = tuple(tag for tag in TAGS if tag not in tokens)
        """Reasoning tags that are no tokens of this model."""

    @property
    def trained_tok(self) -> int:
        """Context that the model was trained with."""
        return self._file.trained_tok

    @cached_property
    def call_marks(self) -> dict[int, bytes]:
        """Control tokens that mark a call, and would leave no trace in a reply."""
        found = ((self.vocabulary.special.get(mark), mark) for mark in CALL_MARKS)
        return {token: mark.encode() for token, mark in found if token is not None}

    def prompt(self, request: Request, *, context_tok: int) -> Prompt:
        """Render and tokenise.

        Raises:
            BackendError: the prompt leaves no room in the context for a reply.
            ModelError: the chat template cannot render such turns.
        """
        constrained = request.json_schema is not None
        messages = tuple(self._disarmed(message) for message in request.messages)
        spans = list(self._template.render(messages, thinking=not constrained))
        thinking = None if request.thinking is None else neutralise(request.thinking, self.spelt_tags)
        broken = messages != request.messages or thinking != request.thinking
        prompt = self._prompt(spans, thinking=thinking, constrained=constrained, context_tok=context_tok)
        return replace(prompt, notes=("reasoning tags in the input were broken up",)) if broken else prompt

    def chat_prompt(self, chat: Chat, *, constrained: bool, context_tok: int) -> Prompt:
        """The same for a chat with tools; `constrained` means that the reply has to follow a grammar.

        Raises:
            BackendError: the prompt leaves no room in the context for a reply.
            ModelError: the chat template cannot render such turns.
        """
        spans = list(self._chat(chat, thinking=not constrained))
        return self._prompt(spans, thinking=None, constrained=constrained, context_tok=context_tok)

    def count_tok(self, messages: Sequence[Message]) -> int:
        """Tokens of the rendered prompt. Raises ModelError like `prompt`."""
        return len(self.vocabulary.encode(self._template.render(tuple(map(self._disarmed, messages)))))

    def count_chat_tok(self, chat: Chat) -> int:
        """Tokens of the rendered chat. Raises ModelError like `chat_prompt`."""
        return len(self.vocabulary.encode(self._chat(chat, thinking=True)))

    @cached_property
    def _offers_tools(self) -> bool:
        return offers_tools(self._template)

    def _chat(self, chat: Chat, *, thinking: bool) -> tuple[Span, ...]:
        return render_chat(
            self._template,
            chat,
            offers_tools=self._offers_tools,
            thinking=thinking,
            control=(*self.vocabulary.special, *TAGS),
            spelt=self.spelt_tags,
        )

    def _prompt(self, spans: list[Span], *, thinking: str | None, constrained: bool, context_tok: int) -> Prompt:
        inside = _ending(spans).endswith(self._marks.open.strip())
        opened: Channel | None = "thinking" if inside else None
        if thinking is not None:
            spans += [] if inside else [Span(self._marks.open, trusted=True)]
            spans += [Span(thinking, trusted=False), Span(self._marks.close, trusted=True)]
            opened = "answer"
        elif constrained:
            spans += [Span(self._marks.close, trusted=True)] if inside else []
            opened = "answer"
        tokens = self.vocabulary.encode(spans)
        if len(tokens) >= context_tok:
            raise BackendError(
                f"the prompt has {len(tokens)} tokens, the context of {self._file.path.name} holds {context_tok}; "
                "shorten the question, or use fewer passages or a model with a larger context"
            )
        return Prompt(tokens, opened)

    def _disarmed(self, message: Message) -> Message:
        """The message with tags broken up that this model can only spell, and would be taken for tags if quoted."""
        if message.role == "system":
            return message
        return replace(message, content=neutralise(message.content, self.spelt_tags))


def _ending(spans: Sequence[Span]) -> str:
    """The template's text just before the reply."""
    return spans[-1].text.rstrip() if spans and spans[-1].trusted else ""
