"""What each passage says of each word of a question, so that the passages chosen for it speak of all that it asks.

The words stand for the aspects of a question: Dang and Croft 2013 (SIGIR, "Term level search result
diversification") found that single words serve as well as whole topics.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preflexor_agents.store.words import stem, stems, words

_LEAST = 0.1
"""Of the weight of a word that no passage says twice: enough to count where no word is said twice."""


@dataclass(frozen=True, slots=True)
class Aspects:
    """The words of a question that passages have."""

    weights: npt.NDArray[np.float64]
    """What each is worth, (words,)."""
    told: npt.NDArray[np.float64]
    """How much each passage tells of each, 0 to 1, (n, words)."""


def aspects(query: str, texts: Sequence[str]) -> Aspects:
    """The query's words, endings and function words taken off, as the texts have them.

    A word that is said often where it is said at all names what the texts are about, one that is said once here and
    there does not: burstiness (Church and Gale 1995, "Poisson mixtures") tells a thing's name from the words around
    it in a question, which may be as rare. Rarity and burstiness are counted among the texts.
    """
    asked = stems(query)
    counts = [Counter(found for word in words(text) if (found := stem(word)) in asked) for text in texts]
    said = sorted(set().union(*counts))
    times = np.array([[count[word] for word in said] for count in counts], dtype=np.float64)
    times = times.reshape(len(texts), len(said))
    holding = np.count_nonzero(times, axis=0)
    rarity = 1 - holding / (len(texts) + 1)
    burstiness = times.sum(axis=0) / holding - 1 + _LEAST
    return Aspects(weights=rarity * burstiness, told=times / (times + 1))
