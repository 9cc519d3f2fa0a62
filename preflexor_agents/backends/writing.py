"""A reply as it is written token by token, whichever library draws the tokens."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from preflexor_agents.backends.base import Completion, Delta, FinishReason
from preflexor_agents.backends.loops import is_loop
from preflexor_agents.backends.model_text import Prompt
from preflexor_agents.backends.reply import ReplyReader
from preflexor_agents.backends.vocabulary import Words
from preflexor_agents.events import Usage
from preflexor_agents.markup import SectionParser, Sections


class Written(NamedTuple):
    """What a model wrote."""

    sections: Sections
    finish_reason: FinishReason
    usage: Usage
    notes: tuple[str, ...]

    def completion(self, *, seconds: float) -> Completion:
        """The reply as a backend gives it out."""
        return Completion(
            thinking=self.sections.thinking,
            reflection=self.sections.reflection,
            answer=self.sections.answer,
            finish_reason=self.finish_reason,
            usage=self.usage,
            seconds=seconds,
            notes=self.notes,
        )


class Writing:
    """Takes the tokens of a reply, gives out its text, and says when it is at its end."""

    def __init__(
        self,
        prompt: Prompt,
        vocabulary: Words,
        *,
        tags: tuple[str, ...],
        context_tok: int,
        max_tok: int,
        stop: tuple[str, ...],
        emit: Callable[[Delta], None],
        shown: Mapping[int, bytes] = MappingProxyType({}),
    ) -> None:
        """Begin before the first token.

        Args:
            prompt: that is continued.
            vocabulary: of the model.
            tags: reasoning tags that count when they are spelt.
            context_tok: tokens of prompt and reply that fit.
            max_tok: most tokens wanted.
            stop: strings that end the reply and are no part of it.
            emit: takes the text as it is written.
            shown: control tokens that are to be seen in the text, with their spelling.
        """
        self._prompt, self._vocabulary, self._emit, self._shown = prompt, vocabulary, emit, shown
        self._context_tok, self._max_tok = context_tok, max_tok
        self._room = context_tok - len(prompt.tokens)
        self._reader = ReplyReader(SectionParser(opened=prompt.opened, tags=tags), stop)
        self._finish: FinishReason = "length"
        self._loops = False
        self.most = min(self._room, max_tok)
        """Tokens that may be taken."""
        self.tokens: list[int] = []

    def take(self, token: int) -> bool:
        """Take a token; True if it is the last."""
        self.tokens.append(token)
        if self._vocabulary.ends(token):
            self._finish = "stop"
            return True
        tag = self._vocabulary.tags.get(token)
        piece = self._shown.get(token) or self._vocabulary.piece(token)
        for delta in self._reader.tag(tag) if tag else self._reader.piece(piece):
            self._emit(delta)
        if self._reader.stopped:
            self._finish = "stop"
            return True
        self._loops = is_loop(self.tokens)
        return self._loops or len(self.tokens) == self.most

    def finish(self, *, cached: int) -> Written:
        """The whole reply; `cached` are tokens of the prompt that were not computed again."""
        last, sections = self._reader.finish()
        for delta in last:
            self._emit(delta)
        notes: tuple[str, ...] = ()
        if self._loops:
            notes = ("the reply was cut: it only repeated itself",)
        elif self._finish == "length" and self._room < self._max_tok:
            notes = (f"the reply was cut where the context of {self._context_tok} tokens was full",)
        usage = Usage(prompt=len(self._prompt.tokens), cached=cached, generated=len(self.tokens))
        return Written(sections, self._finish, usage, (*self._prompt.notes, *notes, *sections.problems))
