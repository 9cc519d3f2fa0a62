"""What each passage tells of each word of a question, so that the passages chosen for it tell of all that it asks.

The words stand for the aspects of a question: Dang and Croft 2013 (SIGIR, "Term level search result
diversification") found that single words serve as well as whole topics.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preflexor_agents.store.words import stem, stems, words

_NUMBER = re.compile(r"(?<![^\W_])\d+(?:[.,]\d+)*(?![^\W_])")
_LEAST = 0.1
"""Burstiness above 1 that every word counts as having, so that words count where none is said twice."""
_OF_A_NUMBER = 1.0
"""The same for a number, which is in a question for a reason."""


@dataclass(frozen=True, slots=True)
class Aspects:
    """The words of a question that passages have."""

    weights: npt.NDArray[np.float64]
    """What each is worth, (words,)."""
    told: npt.NDArray[np.float64]
    """How much each passage tells of each, 0 to 1, (n, words)."""


def aspects(query: str, texts: Sequence[str]) -> Aspects:
    """The query's numbers, and its words without endings and function words, as the texts have them.

    A word that is said often where it is said at all names what a text is about: its burstiness, the mean count in the
    texts that have it (Church and Gale 1995, "Poisson mixtures"), tells the name of a thing from words around it in a
    question, which may be as rare. It is counted among the texts, as rarity is. Words that stand in the same texts
    share one weight, so that a name of three words is worth no more than a name of one.
    """
    asked = stems(_NUMBER.sub(" ", query)) | frozenset(_NUMBER.findall(query))
    counts = [Counter(term for term in _terms(text) if term in asked) for text in texts]
    said = sorted(frozenset().union(*counts))
    times = np.array([[count[term] for term in said] for count in counts], dtype=np.float64)
    times = times.reshape(len(texts), len(said))
    holding = np.count_nonzero(times, axis=0)
    rarity = 1 - holding / (len(texts) + 1)
    least = np.where([term[0].isdecimal() for term in said], _OF_A_NUMBER, _LEAST)
    burstiness = times.sum(axis=0) / holding - 1 + _LEAST
    told = times / (times + 1)
    directions = told / np.linalg.norm(told, axis=0)
    company = ((directions.T @ directions) ** 2).sum(axis=0)
    return Aspects(weights=rarity * np.maximum(burstiness, least) / company, told=told)


def _terms(text: str) -> list[str]:
    return [*map(stem, words(_NUMBER.sub(" ", text))), *_NUMBER.findall(text)]
