"""A reply as a server sends it: thinking in a field of its own or as tags in the text, told apart as it comes in."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from preflexor_agents.backends.base import Completion, Delta, FinishReason
from preflexor_agents.events import Channel, Usage
from preflexor_agents.markup import SectionParser

NOT_JSON = "the answer is not JSON although a schema was asked for"


@dataclass(slots=True, kw_only=True)
class ServedReply:
    """Takes the pieces of one reply."""

    structured: bool
    """Whether the text is JSON, in which tags mean nothing."""
    prefilled: bool
    """Whether finished thinking was put before the reply."""
    arrived: int = 0
    """Characters so far."""
    began: float = 0.0
    """When the first piece came, on the monotonic clock."""
    _thinking: list[str] = field(default_factory=list)
    _json: list[str] = field(default_factory=list)
    _parser: SectionParser | None = None

    def take(self, thinking: str, text: str) -> list[Delta]:
        """What one piece adds."""
        self.began = self.began or time.monotonic()
        self.arrived += len(thinking) + len(text)
        found: list[tuple[Channel, str]] = [("thinking", thinking)] if thinking else []
        if thinking:
            self._thinking.append(thinking)
        if text and self.structured:
            self._json.append(text)
            found.append(("answer", text))
        elif text:
            found += self._sections().feed(text)
        return [Delta(channel, words) for channel, words in found]

    def rest(self) -> list[Delta]:
        """What was held back because it looked like the beginning of a tag."""
        return [Delta(channel, words) for channel, words in self._sections().release()]

    def completion(
        self, usage: Usage, *, reason: FinishReason, seconds: float, problems: Sequence[str] = (), notes: Sequence[str]
    ) -> Completion:
        """The whole reply; what is odd about its text comes before `problems`, and those before `notes`."""
        sections = self._sections().finish()
        thinking = "\n".join(t for t in ("".join(self._thinking).strip(), sections.thinking) if t)
        answer = "".join(self._json).strip() if self.structured else sections.answer
        found = [*sections.problems, *problems]
        if self._thinking and reason == "length" and not answer and not sections.segments:
            found.append("thinking was not closed")
        if self.structured and not is_json(answer):
            found.append(NOT_JSON)
        return Completion(
            thinking=thinking,
            reflection=sections.reflection,
            answer=answer,
            finish_reason=reason,
            usage=usage,
            seconds=seconds,
            notes=(*found, *notes),
        )

    def _sections(self) -> SectionParser:
        """Made with the first text: by then it is known whether thinking came before it."""
        if self._parser is None:
            opened: Literal["answer"] | None = "answer" if self.prefilled or self._thinking else None
            self._parser = SectionParser(opened=opened)
        return self._parser


def is_json(text: str) -> bool:
    """Whether the text is one JSON value."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
