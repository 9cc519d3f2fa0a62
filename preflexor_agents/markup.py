"""Tells thinking, reflection and answer apart in a model's text, piece by piece, and disarms tags in other text.

Known tags: `<|thinking|>`, `<|reflect|>` and their closings (PRefLexOR), and `<think>`, `</think>`. Any text has a
parse: what is odd about it is said in `Sections.problems`, and no character but the tags is lost.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from preflexor_agents.events import Channel


class Tag(NamedTuple):
    """What a tag does: open or close a section."""

    channel: Channel
    opens: bool


TAGS: dict[str, Tag] = {
    "<|thinking|>": Tag("thinking", opens=True),
    "<|/thinking|>": Tag("thinking", opens=False),
    "<think>": Tag("thinking", opens=True),
    "</think>": Tag("thinking", opens=False),
    "<|reflect|>": Tag("reflection", opens=True),
    "<|/reflect|>": Tag("reflection", opens=False),
}


class Segment(NamedTuple):
    """Text between two tags."""

    channel: Channel
    text: str


@dataclass(frozen=True, slots=True)
class Sections:
    """A parsed reply. `segments` in order are the text without its tags, to the character."""

    segments: tuple[Segment, ...] = ()
    problems: tuple[str, ...] = ()
    """What is odd about the tags, in words; empty for a well-formed reply."""

    @property
    def thinking(self) -> str:
        """The thinking, white space at its ends removed; several sections are joined by a line break."""
        return self._joined("thinking")

    @property
    def reflection(self) -> str:
        """The reflection, likewise."""
        return self._joined("reflection")

    @property
    def answer(self) -> str:
        """What stands outside the sections, likewise."""
        return self._joined("answer")

    def _joined(self, channel: Channel) -> str:
        texts = (s.text.strip() for s in self.segments if s.channel == channel)
        return "\n".join(text for text in texts if text)


class SectionParser:
    """Incremental parser; how the text is cut into pieces makes no difference to `finish()`.

    `feed` must decide at once, `finish` knows the whole: where a closing tag shows that earlier text, given out as
    answer, was inside its section (the model's template opened it, or another section interrupted it), only
    `finish` has it right.
    """

    def __init__(self, *, opened: Channel | None = None, tags: Collection[str] = TAGS.keys()) -> None:
        """Begin before the first character of a reply.

        Args:
            opened: the section that the reply starts in; `answer` if its thinking was put before it; None if
                that is not known, so that a closing tag without an opening one ends thinking that began the text.
            tags: which of TAGS count when spelt in the text; the others only through `tag`.
        """
        self._channel: Channel = opened or "answer"
        self._segments: list[Segment] = []
        self._text: list[str] = []
        self._held = ""
        self._problems: dict[str, None] = {}
        self._claims: dict[Channel, int] = {"thinking": 0} if opened is None else {}
        self._tags = tuple(tag for tag in TAGS if tag in tags)
        self._pattern = re.compile("|".join(map(re.escape, self._tags)) or r"(?!)")

    @property
    def channel(self) -> Channel:
        """The section that the next text belongs to."""
        return self._channel

    def feed(self, text: str) -> list[tuple[Channel, str]]:
        """Take a piece of the reply; return what is certain not to be part of a tag."""
        pieces: list[tuple[Channel, str]] = []
        text, self._held = self._held + text, ""
        at = 0
        for match in self._pattern.finditer(text):
            self._write(text[at : match.start()], pieces)
            self._turn(match.group())
            at = match.end()
        cut = len(text) - _held_back(text[at:], self._tags)
        self._write(text[at:cut], pieces)
        self._held = text[cut:]
        return pieces

    def tag(self, name: str) -> list[tuple[Channel, str]]:
        """Take a tag that came as a token of its own; return the text that waited before it."""
        pieces = self.release()
        self._turn(name)
        return pieces

    def release(self) -> list[tuple[Channel, str]]:
        """The text held back because it looks like the beginning of a tag; called where no more will come."""
        pieces: list[tuple[Channel, str]] = []
        self._write(self._held, pieces)
        self._held = ""
        return pieces

    def finish(self) -> Sections:
        """The whole reply so far."""
        self.release()
        problems = dict(self._problems)
        if self._channel != "answer":
            problems[f"{self._channel} was not closed"] = None
        last = Segment(self._channel, "".join(self._text))
        return Sections(tuple(s for s in (*self._segments, last) if s.text), tuple(problems))

    def _write(self, text: str, pieces: list[tuple[Channel, str]]) -> None:
        if text:
            self._text.append(text)
            pieces.append((self._channel, text))

    def _turn(self, name: str) -> None:
        self._segments.append(Segment(self._channel, "".join(self._text)))
        self._text.clear()
        tag, inside, here = TAGS[name], self._channel, len(self._segments)
        self._channel = tag.channel if tag.opens else "answer"
        if tag.opens:
            self._claims.pop(tag.channel, None)
            if inside != "answer":
                self._problems[f"{name} inside {inside}"] = None
                self._claims[inside] = here
        elif inside == "answer":
            since = self._claims.pop(tag.channel, None)
            self._problems[f"{name} closes nothing" if since is None else f"{name} without an opening tag"] = None
            if since is not None:
                self._claim(tag.channel, since)
        elif inside != tag.channel:
            self._problems[f"{name} closes {inside}"] = None
            self._claims.pop(tag.channel, None)
            self._claims[inside] = here
        elif inside in self._claims:
            self._claims[inside] = here

    def _claim(self, channel: Channel, since: int) -> None:
        """Give a section the answer text that turned out to be its own."""
        self._segments[since:] = [
            Segment(channel, s.text) if s.channel == "answer" else s for s in self._segments[since:]
        ]


def parse(text: str, *, opened: Channel | None = None) -> Sections:
    """The sections of a whole reply; `opened` as in SectionParser."""
    parser = SectionParser(opened=opened)
    parser.feed(text)
    return parser.finish()


def neutralise(text: str, tokens: Collection[str]) -> str:
    """The text with a visible break after the first character of every occurrence of the given strings.

    For endpoints that take control strings anywhere in a text for control tokens. None of `tokens` is left in the
    result; a token of one character becomes a replacement character.
    """
    wanted = sorted((t for t in set(tokens) if t), key=len, reverse=True)
    if not any(token in text for token in wanted):
        return text
    mark = next((c for c in " ·" if not any(c in token for token in wanted)), "\ufffd")
    single = {ord(token): "\ufffd" for token in wanted if len(token) == 1}
    longer = "|".join(re.escape(token) for token in wanted if len(token) > 1)
    broken = re.sub(f"(?=(?:{longer}))(.)", lambda m: m[1] + mark, text, flags=re.DOTALL) if longer else text
    return broken.translate(single)


def _held_back(text: str, tags: Collection[str]) -> int:
    """Length of the longest end of the text that may be the beginning of a tag."""
    start = text.rfind("<", -max(map(len, tags), default=0))
    return len(text) - start if start >= 0 and any(t.startswith(text[start:]) for t in tags) else 0
