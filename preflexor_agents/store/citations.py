"""Finds, for each sentence of an answer, the words in the passages that it stands on. Pure.

A quote is one sentence of a passage. It must hold every number of the claim with its unit, and with the passage
around it nearly all of the claim's words; where one quote does not hold all numbers, as in a comparison, several
may. This is overlap of words, not entailment: it shows where to look, and says so when there is nowhere.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from preflexor_agents.events import Citation, Cited, Passage
from preflexor_agents.prompts import NOT_IN_PASSAGES
from preflexor_agents.store import quantities, sentences
from preflexor_agents.store.chunks import Span
from preflexor_agents.store.quantities import Quantity
from preflexor_agents.store.words import NEGATIONS, stem, stems, words

_MARK = re.compile(r"\[(\d+(?:\s*[,\u2013-]\s*\d+)*)\]")
_GLUE = frozenset(
    map(
        stem,
        re.findall(
            r"\S+",
            """about according achieve allow answer approximately around based become called cause come contain derive
            document due example exhibit find found generally get give given happen help hence important include
            indicate instance involve known largely lead like mainly make mean mention namely note passage possess
            provide quite rather reach really refer remain report result roughly say seem several show source state
            such text therefore thereby together typically use usually value various via way well yes""",
        ),
    )
)
"""Stems of words with which answers are written, whatever they are about."""
_WORDS_PER_MISS = 5
"""One in so many words of a claim may be missing from the passage; none in a claim of fewer."""
_NEAR_SHARE = 0.5
"""Least share of a claim's words that the quote, the title and the headings must hold."""
_NEAR_WEIGHT = 0.5
_HINT_WEIGHT = 0.75
_LENGTH_PENALTY = 0.01


@dataclass(frozen=True, slots=True)
class _Claim:
    text: str
    plain: str
    stems: frozenset[str]
    quantities: tuple[Quantity, ...]
    is_negated: bool
    hints: frozenset[int]
    """Passage numbers that the answer names."""


@dataclass(frozen=True, slots=True)
class _Quote:
    """A sentence of a passage that may support a claim."""

    number: int
    passage: Passage
    span: Span
    """In the passage's text."""
    stems: frozenset[str]
    quantities: tuple[Quantity, ...]
    is_negated: bool
    near: frozenset[str]
    """Stems of the quote, the title and the headings."""
    wide: frozenset[str]
    """Stems of the whole passage."""


def claims(answer: str) -> tuple[str, ...]:
    """The sentences of an answer that need support."""
    return tuple(claim.text for claim in _claims(answer))


def cite(answer: str, passages: Sequence[Passage]) -> Cited:
    """The quotes that the answer's sentences stand on, and the sentences for which no passage speaks."""
    quotes = [quote for number, passage in enumerate(passages, 1) for quote in _quotes(number, passage)]
    names = frozenset[str]().union(*(stems(passage.title) for passage in passages))
    citations: list[Citation] = []
    unsupported: list[str] = []
    for claim in _claims(answer):
        support = _support(claim, quotes, names)
        citations += [_citation(claim, quote) for quote in support]
        if not support:
            unsupported.append(claim.text)
    return Cited(citations=tuple(citations), unsupported=tuple(unsupported))


def _claims(answer: str) -> list[_Claim]:
    found = []
    for start, end in sentences.split(answer):
        text = answer[start:end]
        plain = quantities.plain(text)
        numbers = quantities.quantities(plain)
        telling = stems(quantities.without(plain, numbers)) - _GLUE
        if (telling or numbers) and words(_MARK.sub("", text)) != words(NOT_IN_PASSAGES):
            hints = frozenset(int(n) for mark in _MARK.findall(text) for n in re.findall(r"\d{1,6}", mark))
            found.append(_Claim(text, plain, telling, tuple(numbers), _is_negated(text), hints))
    return found


def _quotes(number: int, passage: Passage) -> Iterable[_Quote]:
    around = stems(passage.title) | stems(sentences.headings(passage.text))
    wide = around | stems(quantities.plain(passage.text))
    for span in sentences.split(passage.text):
        text = passage.text[span.start : span.end]
        plain = quantities.plain(text)
        numbers = quantities.quantities(plain)
        own = stems(quantities.without(plain, numbers))
        if own or numbers:
            yield _Quote(number, passage, span, own, tuple(numbers), _is_negated(text), own | around, wide)


def _is_negated(text: str) -> bool:
    return not NEGATIONS.isdisjoint(words(text))


def _support(claim: _Claim, quotes: Sequence[_Quote], names: frozenset[str]) -> list[_Quote]:
    """The fewest quotes that together support the claim, best first; none if there are none."""
    fitting = [q for q in quotes if q.is_negated == claim.is_negated]
    ranked = sorted(fitting, key=lambda q: (-_score(claim, q), q.number, q.span.start))
    for quote in ranked:
        if _holds(claim.quantities, quote) and _is_enough(claim, [quote], names):
            return [quote]
    several = _one_per_quantity(claim, ranked, names) if len(claim.quantities) > 1 else _best_pair(claim, ranked)
    return several if _is_enough(claim, several, names) else []


def _score(claim: _Claim, quote: _Quote) -> float:
    own, near = len(claim.stems & quote.stems), len(claim.stems & quote.near)
    hint = _HINT_WEIGHT if quote.number in claim.hints else 0.0
    return own + _NEAR_WEIGHT * (near - own) + hint - _LENGTH_PENALTY * len(quote.stems)


def _holds(numbers: Iterable[Quantity], quote: _Quote) -> bool:
    return all(quantities.stands_in(number, list(quote.quantities)) for number in numbers)


def _is_enough(claim: _Claim, quotes: Sequence[_Quote], names: frozenset[str]) -> bool:
    """Whether the quotes, with the passages around them, speak of what the claim speaks of."""
    if not quotes:
        return False
    own, near, wide = (
        claim.stems & frozenset[str]().union(*sets)
        for sets in ([q.stems for q in quotes], [q.near for q in quotes], [q.wide for q in quotes])
    )
    return (
        (claim.stems & names) <= wide
        and len(claim.stems - wide) <= len(claim.stems) // _WORDS_PER_MISS
        and len(near) >= _NEAR_SHARE * len(claim.stems)
        and bool(own or claim.quantities)
    )


def _one_per_quantity(claim: _Claim, ranked: Sequence[_Quote], names: frozenset[str]) -> list[_Quote]:
    """For each quantity the best quote that holds it, from a passage about what the claim gives it to."""
    chosen: list[_Quote] = []
    for number, owner in zip(claim.quantities, _owners(claim, names), strict=True):
        holding = [quote for quote in ranked if _holds([number], quote)]
        about = [quote for quote in holding if owner <= quote.wide]
        is_told_apart = any(owner <= quote.wide for quote in ranked)
        best = next(iter(about if is_told_apart else holding), None)
        if best is None:
            return []
        if best not in chosen:
            chosen.append(best)
    return chosen


def _owners(claim: _Claim, names: frozenset[str]) -> list[frozenset[str]]:
    """The words of titles that stand with each quantity: before it, or after it if the claim begins with a number."""
    numbers = claim.quantities
    starts = [0, *(q.end for q in numbers)]
    ends = [*(q.start for q in numbers), len(claim.plain)]
    between = [stems(claim.plain[start:end]) & names for start, end in zip(starts, ends, strict=True)]
    return between[:-1] if between[0] else between[1:]


def _best_pair(claim: _Claim, ranked: Sequence[_Quote]) -> list[_Quote]:
    """The best quote that holds the claim's numbers and, from another passage, the one that adds most words to it."""
    first = next((quote for quote in ranked if _holds(claim.quantities, quote)), None)
    if first is None:
        return []
    rest = claim.stems - first.near
    others = [quote for quote in ranked if quote.number != first.number and rest & quote.stems]
    return [first, max(others, key=lambda quote: len(rest & quote.near))] if others else []


def _citation(claim: _Claim, quote: _Quote) -> Citation:
    passage, (start, end) = quote.passage, quote.span
    return Citation(
        number=quote.number,
        chunk_id=passage.chunk_id,
        source=passage.source,
        title=passage.title,
        page=passage.page,
        start=passage.start + start,
        end=passage.start + end,
        quote=passage.text[start:end],
        claim=claim.text,
    )
