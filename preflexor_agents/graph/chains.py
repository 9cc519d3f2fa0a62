"""Reads chains such as `A → B → C` as abstract patterns with what their symbols stand for. Pure.

A pattern is what is left of a chain when its concepts are replaced by symbols, Greek letters where it is shown. Two
chains about different things that leave the same pattern are analogous; that is the abstraction of Graph-PRefLexOR
(arXiv 2501.08120, "abstract pattern").
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from preflexor_agents.graph.values import PatternStep

_NAMED = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|"
    "nu|xi|omicron|pi|rho|sigma|tau|upsilon|phi|chi|psi|omega"
)
_GREEK = re.findall(r"\w+", _NAMED)
_LETTERS = "αβγδεζηθικλμνξοπρστυφχψω"
_SYMBOL = re.compile(rf"\$?\\?(?:{_NAMED}|[{_LETTERS}])(?:_?[\d₀-₉]+|'+)?\$?", re.IGNORECASE)
_ARROW = re.compile(r"→|⇒|⟶|={1,3}>|-{1,3}>|\\(?:long)?[rR]ightarrow|\\to\b|∝|\\propto")
_PROPORTIONAL = re.compile(r"∝|\\propto")
_SEGMENT = re.compile(r"[^\n;()]+")
_CLAUSE = re.compile(r"(?<=\w)[.,:]\s+|[.,:]\s*$")
_NUMBER = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s+")
_SIGN = re.compile(r"\s*[↑↓]+\s*|^(?:high|low|higher|lower|more|less|increased|decreased)\s+", re.IGNORECASE)
_MEANING = re.compile(
    rf"^[^\S\n]*(?:[-*\u2022]\s+)?[*_]*(?P<symbol>{_SYMBOL.pattern})[*_]*"
    r"\s*(?:[:=\u2013\u2014(]|-|(?:represents|denotes|is|stands for|means)\b)[*_\s]*(?P<name>[^\n;.)(→]+)",
    re.MULTILINE | re.IGNORECASE,
)
_LONGEST_TERM = 60
_MOST_STEPS = 24
_LONGEST_SEGMENT = 4000
_LEAST_KNOWN = 0.5
"""Share of a chain's terms that must be nodes of the graph, else it is prose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedPattern:
    """A chain in a text: its steps between symbols, what these stand for, and where it is written."""

    steps: tuple[PatternStep, ...]
    names: tuple[str, ...]
    """For each symbol the concept it stands for; empty where the text does not say."""
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Relations:
    """What a graph says of the concepts that its chains run through."""

    names: Mapping[str, str] = field(default_factory=dict)
    """Name of a node by the key of each way of writing it."""
    kinds: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Relation between two nodes by the keys of their names."""


def key(name: str) -> str:
    """Equal for `EnergyAbsorption`, `energy absorption` and `Energy_Absorption`; case counts for single letters."""
    letters = "".join(c for c in unicodedata.normalize("NFKC", name) if c.isalnum())
    return letters.casefold() if len(letters) > 1 else letters or name.strip()


def patterns(
    text: str, start: int, end: int, *, relations: Relations, symbols: tuple[int, int]
) -> Iterator[TaggedPattern]:
    """The chains in text[start:end].

    Args:
        text: What offsets refer to.
        start: Where the patterns begin.
        end: Where they end.
        relations: The graph beside them; chains of its nodes take the kinds of its edges.
        symbols: Where Greek letters stand for concepts that other lines name.
    """
    meanings = {_symbol(m["symbol"]): m["name"].strip(" *_$") for m in _MEANING.finditer(text, *symbols)}
    for segment in _SEGMENT.finditer(text, start, end):
        if len(segment[0]) > _LONGEST_SEGMENT:
            continue
        for left, right in _clauses(text, *segment.span()):
            pattern = _chain(text, left, right, relations, meanings)
            if pattern is not None:
                yield pattern


def _clauses(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a segment between punctuation, without numbering and surrounding white space."""
    number = _NUMBER.match(text, start, end) or re.compile(r"^").match(text, start)
    at = number.end() if number and number.end() > start and number.end() <= end else start
    for stop in [*_CLAUSE.finditer(text, at, end), None]:
        left, right = at, stop.start() if stop else end
        at = stop.end() if stop else end
        part = text[left:right]
        if _ARROW.search(part):
            yield left + len(part) - len(part.lstrip(" \t,")), left + len(part.rstrip(" \t,"))


def _chain(text: str, start: int, end: int, relations: Relations, meanings: Mapping[str, str]) -> TaggedPattern | None:
    part = text[start:end]
    terms = [_term(term) for term in _ARROW.split(part)]
    arrows = ["∝" if _PROPORTIONAL.search(arrow) else "" for arrow in _ARROW.findall(part)]
    if not 2 <= len(terms) <= _MOST_STEPS or any(not 0 < len(term) <= _LONGEST_TERM for term in terms):
        return None
    is_abstract = bool(meanings) or not relations.names
    if is_abstract and all(_SYMBOL.fullmatch(term) for term in terms):
        keys = [_symbol(term) for term in terms]
        names = {symbol: meanings.get(symbol, "") for symbol in keys}
    else:
        keys = [key(term) for term in terms]
        known = [k in relations.names for k in keys]
        if relations.names and sum(known) < _LEAST_KNOWN * len(keys):
            return None
        names = {k: relations.names.get(k, term) for k, term in zip(keys, terms, strict=True)}
    numbers = {k: n for n, k in enumerate(dict.fromkeys(keys))}
    ends = {k: key(names[k]) for k in numbers}
    steps = tuple(
        PatternStep(source=numbers[a], kind=arrow or relations.kinds.get((ends[a], ends[b]), ""), target=numbers[b])
        for a, arrow, b in zip(keys, arrows, keys[1:], strict=False)
    )
    return TaggedPattern(steps=steps, names=tuple(names[k] for k in numbers), start=start, end=end)


def _term(term: str) -> str:
    """A link of a chain without emphasis and signs of growth: `**Stress ↑**` is `Stress`."""
    return _SIGN.sub("", re.sub(r"[*`]+", "", term).strip()).strip(" .,:[]")


def _symbol(written: str) -> str:
    """The Greek letter, whether it was written as such, by its name or as TeX."""
    bare = written.strip("$").lstrip("\\").casefold()
    for name, letter in zip(_GREEK, _LETTERS, strict=True):
        if bare.startswith(name):
            return letter + bare.removeprefix(name)
    return bare


def shown(steps: tuple[PatternStep, ...]) -> str:
    """The pattern as people write it, in Greek letters; a step that does not follow on begins after a semicolon."""
    said = ""
    last = -1
    for step in steps:
        joint = "" if step.source == last else f"{'; ' if said else ''}{letter(step.source)}"
        arrow = f" -{step.kind}→ " if step.kind else " → "
        said += f"{joint}{arrow}{letter(step.target)}"
        last = step.target
    return said


def letter(symbol: int) -> str:
    """The Greek letter of a symbol; numbered from the 25th on."""
    turn, place = divmod(symbol, len(_LETTERS))
    return _LETTERS[place] + (str(turn) if turn else "")
