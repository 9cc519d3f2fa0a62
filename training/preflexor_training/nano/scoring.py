"""A reply taken apart, to be scored."""

import re
from dataclasses import dataclass

OPEN, CLOSE = "<|thinking|>", "<|/thinking|>"
_WORDS = r"(?!\s*<\|)(?:(?!<\|).)+"
_WELL_FORMED = re.compile(re.escape(OPEN) + "\n" + _WORDS + re.escape(CLOSE) + _WORDS, re.DOTALL)
_CITED = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, taken apart."""

    text: str
    ended: bool
    """The model ended its turn by itself."""

    @property
    def well_formed(self) -> bool:
        """One thinking section, then an answer, neither empty, no other tag, and an end."""
        return self.ended and _WELL_FORMED.fullmatch(self.text) is not None

    @property
    def answer(self) -> str:
        """What stands after the thinking."""
        return self.text.rsplit(CLOSE, 1)[-1].strip()

    @property
    def cited(self) -> tuple[int, ...]:
        """The passage numbers that the answer cites."""
        return tuple(int(n) for n in _CITED.findall(self.answer))
