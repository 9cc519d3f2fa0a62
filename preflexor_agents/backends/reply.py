"""Puts a reply together from the bytes of its tokens: whole characters, stop strings, sections."""

import codecs
from collections.abc import Iterable, Sequence

from preflexor_agents.backends.base import Delta
from preflexor_agents.events import Channel
from preflexor_agents.markup import SectionParser, Sections


class ReplyReader:
    """Reads a reply token by token; gives out text as soon as it can be no part of a tag or stop string."""

    def __init__(self, parser: SectionParser, stop: Sequence[str] = ()) -> None:
        """Begin before the first token; `stop` are strings that end the reply and are no part of it."""
        self._parser = parser
        self._stop = tuple(text for text in stop if text)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False
        """Whether a stop string was seen; whatever comes after it is ignored."""

    def piece(self, data: bytes) -> list[Delta]:
        """Take the bytes of a token."""
        return self._text(self._decoder.decode(data))

    def tag(self, name: str) -> list[Delta]:
        """Take a tag that is one token."""
        deltas = self._rest()
        return deltas if self.stopped else [*deltas, *_deltas(self._parser.tag(name))]

    def finish(self) -> tuple[list[Delta], Sections]:
        """The end of the reply: what was held back, and the whole."""
        return [*self._rest(), *_deltas(self._parser.release())], self._parser.finish()

    def _rest(self) -> list[Delta]:
        deltas = self._text(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return [*deltas, *_deltas(self._parser.feed(held))]

    def _text(self, text: str) -> list[Delta]:
        if self.stopped:
            return []
        text, self._held = self._held + text, ""
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            return _deltas(self._parser.feed(text[: min(found)]))
        cut = len(text) - max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[cut:]
        return _deltas(self._parser.feed(text[:cut]))


def _deltas(pieces: Iterable[tuple[Channel, str]]) -> list[Delta]:
    return [Delta(channel, text) for channel, text in pieces]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that begins the stop string."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
