"""Reads what judges and critics say. Small models say it in many ways; what can not be read is a tie."""

import re

_BETTER = re.compile(r"better\W{0,8}(?:answer\W{1,4})?(a|b|tie|equal|neither|both)\b", re.IGNORECASE)
_VERDICT = re.compile(r"verdict\W{0,8}(sound|revise)\b", re.IGNORECASE)
_WORD = re.compile(r"\w+(?:\.\d+)?")


def points(text: str, *, challenger: str) -> float:
    """What one comparison gives the challenger: 1 won, 0 lost, 0.5 tie or unreadable.

    Args:
        text: the judge's words; the last verdict counts.
        challenger: the letter it stood under, `A` or `B`.
    """
    found = _BETTER.findall(text)
    if not found or found[-1].upper() not in ("A", "B"):
        return 0.5
    return 1.0 if found[-1].upper() == challenger else 0.0


def readable(text: str) -> bool:
    """Whether the judge gave a verdict at all, a tie included."""
    return _BETTER.search(text) is not None


def sound(text: str) -> bool:
    """Whether the critic found nothing to change; the last verdict counts, none means there is something."""
    found = _VERDICT.findall(text)
    return bool(found) and found[-1].lower() == "sound"


def same(a: str, b: str) -> bool:
    """Whether two answers say the same words, whatever their case, punctuation and citation marks."""
    return _words(a) == _words(b)


def _words(text: str) -> list[str]:
    return _WORD.findall(re.sub(r"\[\d+\]", " ", text).lower())
