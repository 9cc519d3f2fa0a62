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
            """about above according achieve allow amount answer approximately around based become below called cause
            come compare comparison component consist constituent contain content derive document due
            equal example exhibit find found function generally get give given great happen help hence
            high important include indicate instance involve known large largely lead like low made main
            mainly make mean mention namely note part passage possess primary provide purpose quite
            rather reach really refer remain report result role roughly say seem several share show
            small source state such text thereby therefore together typically use usually value various
            via way well yes""",
        ),
    )
)
"""Stems of words with which answers are written, whatever they are about."""
_CLAUSE_END = re.compile(r"[,;:\u2013\u2014]\s|\bbut\b")
_WORDS_PER_MISS = 5
"""One in so many of a claim's words, names left out, may be missing from the passage; none of fewer."""
_NEAR_SHARE = 0.6
"""Least share of a claim's words, names left out, that the quote, the title and the headings must hold."""
_NEAR_WEIGHT = 0.5
_HINT_WEIGHT = 0.75
_LENGTH_PENALTY = 0.01


@dataclass(frozen=True, slots=True)
class _Claim:
    text: str
    stems: frozenset[str]
    quantities: tuple[Quantity, ...]
    around: tuple[frozenset[str], ...]
    """For each quantity the stems of the words that it belongs to."""
    denied: frozenset[str]
    """Stems of the clauses that hold a negation."""
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
    around: tuple[frozenset[str], ...]
    """As in a claim."""
    denied: frozenset[str]
    """As in a claim."""
    subject: frozenset[str]
    """Stems of the title: every number in the passage may belong to it."""
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
            around = _around(plain, numbers)
            found.append(_Claim(text, telling, tuple(numbers), around, _denied(plain), hints))
    return found


def _quotes(number: int, passage: Passage) -> Iterable[_Quote]:
    subject = stems(passage.title)
    heading = subject | stems(sentences.headings(passage.text))
    wide = heading | stems(quantities.plain(passage.text))
    for span in sentences.split(passage.text):
        text = passage.text[span.start : span.end]
        plain = quantities.plain(text)
        numbers = quantities.quantities(plain)
        own = stems(quantities.without(plain, numbers))
        if own or numbers:
            yield _Quote(
                number=number,
                passage=passage,
                span=span,
                stems=own,
                quantities=tuple(numbers),
                around=_around(plain, numbers),
                denied=_denied(plain),
                subject=subject,
                near=own | heading,
                wide=wide,
            )


def _around(plain: str, numbers: Sequence[Quantity]) -> tuple[frozenset[str], ...]:
    """For each quantity the stems between it and the one before; after it, where the sentence begins with a number.

    Quantities with nothing between them, as in a range, have the same.
    """
    if not numbers:
        return ()
    starts = [0, *(q.end for q in numbers)]
    ends = [*(q.start for q in numbers), len(plain)]
    between = [stems(plain[start:end]) - _GLUE for start, end in zip(starts, ends, strict=True)]
    parts = between[:-1] if between[0] else between[:0:-1]
    for n in range(1, len(parts)):
        parts[n] = parts[n] or parts[n - 1]
    return tuple(parts if between[0] else parts[::-1])


def _denied(plain: str) -> frozenset[str]:
    clauses = _CLAUSE_END.split(plain)
    return frozenset[str]().union(*(stems(c) for c in clauses if not NEGATIONS.isdisjoint(words(c))))


def _agrees(claim: _Claim, quote: _Quote, names: frozenset[str]) -> bool:
    """Whether the quote denies what the claim denies, and nothing that the claim says."""
    said, denied = claim.stems - claim.denied - names, claim.stems & claim.denied - names
    return not said & quote.denied and (not denied or bool(denied & quote.denied))


def _support(claim: _Claim, quotes: Sequence[_Quote], names: frozenset[str]) -> list[_Quote]:
    """The fewest quotes that together support the claim, best first; none if there are none."""
    fitting = [q for q in quotes if _agrees(claim, q, names)]
    ranked = sorted(fitting, key=lambda q: (-_score(claim, q), q.number, q.span.start))
    for quote in ranked:
        if _holds_all(claim, quote) and _is_enough(claim, [quote], names):
            return [quote]
    several = _one_per_quantity(claim, ranked, names) if len(claim.quantities) > 1 else _best_pair(claim, ranked)
    return several if _is_enough(claim, several, names) else []


def _score(claim: _Claim, quote: _Quote) -> float:
    own, near = len(claim.stems & quote.stems), len(claim.stems & quote.near)
    hint = _HINT_WEIGHT if quote.number in claim.hints else 0.0
    return own + _NEAR_WEIGHT * (near - own) + hint - _LENGTH_PENALTY * len(quote.stems)


def _holds_all(claim: _Claim, quote: _Quote) -> bool:
    return all(_holds(claim, n, quote) for n in range(len(claim.quantities)))


def _holds(claim: _Claim, n: int, quote: _Quote) -> bool:
    """Whether the claim's n-th quantity stands in the quote, beside words that fit it as well as any there."""
    about = (claim.around[n] if len(claim.quantities) > 1 else claim.stems) - quote.subject
    fits = [len(about & around) for around in quote.around]
    equal = [quantities.is_same(claim.quantities[n], found) for found in quote.quantities]
    return any(same and fit == max(fits) for same, fit in zip(equal, fits, strict=True))


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
        and len(claim.stems - wide) <= len(claim.stems - names) // _WORDS_PER_MISS
        and len(near - names) >= _NEAR_SHARE * len(claim.stems - names)
        and bool(own or claim.quantities)
    )


def _one_per_quantity(claim: _Claim, ranked: Sequence[_Quote], names: frozenset[str]) -> list[_Quote]:
    """For each quantity the best quote that holds it, from a passage about what the claim gives it to."""
    chosen: list[_Quote] = []
    owner = frozenset[str]()
    for n, around in enumerate(claim.around):
        owner = around & names or owner
        holding = [quote for quote in ranked if _holds(claim, n, quote)]
        is_told_apart = any(owner <= quote.wide for quote in ranked)
        best = next((quote for quote in holding if owner <= quote.wide or not is_told_apart), None)
        if best is None:
            return []
        if best not in chosen:
            chosen.append(best)
    return chosen


def _best_pair(claim: _Claim, ranked: Sequence[_Quote]) -> list[_Quote]:
    """The best quote with the one that adds most words of the claim to it; none if no two may be put together."""
    first = next((quote for quote in ranked if _holds_all(claim, quote)), None)
    if first is None:
        return []
    rest = claim.stems - first.near
    others = [quote for quote in ranked if rest & quote.stems and _may_join(claim, first, quote)]
    return [first, max(others, key=lambda quote: len(rest & quote.near))] if others else []


def _may_join(claim: _Claim, first: _Quote, second: _Quote) -> bool:
    """Two sentences of one passage may tell of one thing, not give a number to it.

    Two passages must both be about what the claim names, else one would lend its subject to the other's facts.
    """
    if first.number == second.number:
        return not claim.quantities
    return first.subject != second.subject and first.subject | second.subject <= claim.stems


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
