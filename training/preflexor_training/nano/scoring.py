"""What counts as right in a reply, and how sure a count is."""

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

OPEN, CLOSE = "<|thinking|>", "<|/thinking|>"
_WORDS = r"(?!\s*<\|)(?:(?!<\|).)+"
_WELL_FORMED = re.compile(re.escape(OPEN) + "\n" + _WORDS + re.escape(CLOSE) + _WORDS, re.DOTALL)
_CITED = re.compile(r"\[(\d+)\]")


class Interval(NamedTuple):
    """A share with its Wilson 95 % interval."""

    share: float
    low: float
    high: float


def wilson(right: int, of: int) -> Interval:
    """Wilson score interval at 95 %; of nothing, everything is possible."""
    if of == 0:
        return Interval(0.0, 0.0, 1.0)
    z, p = 1.959964, right / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half))


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


def states(text: str, value: str) -> bool:
    """Whether the value stands in the text as a whole: 47 does not stand in 147, 4.75 or 0.47."""
    return re.search(rf"(?<![\w.]){re.escape(value)}(?!\w|\.\d)", text, re.IGNORECASE) is not None


def names_first(text: str, winner: str, loser: str) -> bool:
    """Whether the winner is named, and before the loser, as the answer to a comparison does."""
    at, other = _find(text, winner, not_in=loser), _find(text, loser, not_in=winner)
    return at >= 0 and (other < 0 or at < other)


def _find(text: str, name: str, *, not_in: str) -> int:
    """Where the name stands by itself and not as a part of the longer other name."""
    if name.lower() in not_in.lower():
        text = re.sub(re.escape(not_in), lambda m: "\0" * len(m.group()), text, flags=re.IGNORECASE)
    found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)
    return found.start() if found else -1
