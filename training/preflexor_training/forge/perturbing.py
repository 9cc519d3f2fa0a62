"""Makes a wrong answer of a good one, without a model: other numbers, a negation, other names, the opposite.

The same answer and seed give the same result, and never the answer itself.
"""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from random import Random

from preflexor_agents.reflection.verdicts import same

_NUMBER = re.compile(r"(?<![\w.^\[,])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\w\]])|(?<![\w.^\[,])\d+(?:\.\d+)?(?![\w\]]|\.\d)")
_FACTORS = tuple(map(Decimal, ("0.1", "0.5", "2", "3", "5", "10")))
_VERB = re.compile(
    r"\b(?P<verb>is|are|was|were|can|could|will|would|should|must|does|do|did)(?P<not>\s+not\b|not\b|n?['\u2019]t\b)?",
    re.IGNORECASE,
)
_NAME = re.compile(r"\b[A-Z][a-z]{3,}(?:[ -][A-Z][a-z]{2,})*\b")
_OPPOSITES = re.findall(
    r"(\S+)/(\S+)",
    """increases/decreases increase/decrease increased/decreased increasing/decreasing higher/lower high/low
    stronger/weaker strong/weak strength/weakness stiffer/softer stiff/soft harder/softer hard/soft tough/brittle
    more/less most/least larger/smaller large/small longer/shorter long/short thicker/thinner thick/thin
    faster/slower fast/slow before/after above/below inner/outer inside/outside always/never all/none many/few
    tension/compression tensile/compressive hydrophobic/hydrophilic parallel/perpendicular
    prevents/causes enables/prevents improves/worsens wet/dry hot/cold rough/smooth heavy/light dense/sparse
    positive/negative first/last early/late better/worse same/different yes/no true/false""",
)
_FLIP = {a: b for a, b in _OPPOSITES} | {b: a for a, b in _OPPOSITES}
_FLIPPED = re.compile(rf"\b(?:{'|'.join(sorted(map(re.escape, _FLIP), key=len, reverse=True))})\b", re.IGNORECASE)


def perturbed(answer: str, *, seed: int, names: Sequence[str] = ()) -> str:
    """A wrong answer that looks like the good one.

    Args:
        answer: the good one.
        seed: decides what is changed and how, where there is a choice.
        names: of things that the answer may be about, as titles of passages; one in it is exchanged for another.
    """
    draw = Random(seed)
    ways: list[Callable[[], str]] = [
        lambda: _numbers(answer, draw),
        lambda: _negated(answer, draw),
        lambda: _renamed(answer, names, draw),
        lambda: _flipped(answer, draw),
    ]
    for _ in range(len(ways)):
        found = ways.pop(_below(draw, len(ways)))()
        if not same(found, answer):
            return found
    start = answer.lstrip()
    return f"It is not true that {start[:1].lower()}{start[1:]}" if start else "Nothing of the kind is true."


def _numbers(text: str, draw: Random) -> str:
    """All numbers times the same factor, so that ranges stay ranges; `[1]` and years such as 1998 are no numbers."""
    factor = _FACTORS[_below(draw, len(_FACTORS))]
    return _NUMBER.sub(lambda match: _times(match.group(), factor), text)


def _times(number: str, factor: Decimal) -> str:
    if re.fullmatch(r"(?:1[6-9]|20)\d\d", number):
        return number
    value = (Decimal(number.replace(",", "")) * factor).normalize()
    return f"{value:,f}" if "," in number else f"{value:f}"


def _negated(text: str, draw: Random) -> str:
    """One statement turned into its contrary."""
    found = list(_VERB.finditer(text))
    if not found:
        return text
    match = found[_below(draw, len(found))]
    verb = match["verb"] if match["not"] else f"{match['verb']} not"
    return text[: match.start()] + verb + text[match.end() :]


def _renamed(text: str, names: Sequence[str], draw: Random) -> str:
    """One name exchanged for another: two that are both there change places, else one from without comes in."""
    known = [name for name in dict.fromkeys(names) if name.strip()]
    here = [name for name in known if _name(name).search(text)]
    inside = [match.group() for match in _NAME.finditer(text) if not _begins(text, match.start())]
    here = list(dict.fromkeys(here)) or list(dict.fromkeys(inside))
    if len(here) > 1:
        first = here.pop(_below(draw, len(here)))
        second = here[_below(draw, len(here))]
    else:
        others = [name for name in known if name not in here]
        if not here or not others:
            return text
        first, second = here[0], others[_below(draw, len(others))]
    exchange = {first.casefold(): second, second.casefold(): first}
    return re.sub(
        rf"{_name(first).pattern}|{_name(second).pattern}",
        lambda match: _cased(exchange[match.group().casefold()], like=match.group()),
        text,
        flags=re.IGNORECASE,
    )


def _flipped(text: str, draw: Random) -> str:
    """One word turned into its opposite."""
    found = list(_FLIPPED.finditer(text))
    if not found:
        return text
    match = found[_below(draw, len(found))]
    word = _cased(_FLIP[match.group().lower()], like=match.group())
    return text[: match.start()] + word + text[match.end() :]


def _begins(text: str, start: int) -> bool:
    """Whether a sentence or a line begins there, so that a capital says nothing."""
    before = text[:start]
    said = before.rstrip()
    return not said or said[-1] in ".!?:" or "\n" in before[len(said) :]


def _name(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)


def _cased(word: str, *, like: str) -> str:
    """The word with its first letter as large or small as that of the word in whose place it comes."""
    first = word[:1].upper() if like[:1].isupper() else word[:1].lower()
    return first + word[1:] if word[1:] == word[1:].lower() else word


def _below(draw: Random, n: int) -> int:
    """A number from 0 to below n; the same in every version of Python, as `random()` is."""
    return int(draw.random() * n)
