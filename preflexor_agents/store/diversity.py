"""Choosing passages one by one, each by what those before it leave to say.

Places go to the question's words as seats go to parties: the weight of a word is divided by 2s + 1 once s passages told
of it (PM-2, Dang and Croft 2012, SIGIR, "Diversity by proportionality"). So a question about two things gets both by
turns, and one about a single thing gets what is known of it, however rare the words around its name. Beyond that, a
passage may lose by being like one before it: maximal marginal relevance (Carbonell and Goldstein 1998).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from preflexor_agents.store.coverage import Aspects


def choose(
    relevance: Sequence[float],
    *,
    k: int,
    aspects: Aspects | None = None,
    vectors: npt.NDArray[np.float32] | None = None,
    diversity: float = 0.0,
) -> list[int]:
    """The positions of the k to show, in the order of choice, the most relevant first; ties by position.

    Args:
        relevance: Of each candidate, (n,), not negative; larger is better, on any scale.
        k: How many at most.
        aspects: What the candidates tell of the question, for the first of them at least. None: relevance alone counts.
        vectors: Of each candidate, (n, dim), of length 1; needed for `diversity`.
        diversity: 0 goes by relevance and aspects alone, 1 by difference from what was chosen before alone.
    """
    worth = np.array(relevance, dtype=np.float64) / (max(relevance, default=0.0) or 1.0)
    weights = aspects.weights if aspects else np.zeros(0)
    told = np.zeros((len(worth), len(weights)))
    if aspects:
        told[: len(aspects.told)] = aspects.told
    likeness = None if vectors is None else (vectors @ vectors.T).astype(np.float64)
    said = np.zeros(len(weights))
    nearest = np.zeros(len(worth))
    left = np.ones(len(worth), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(k, len(worth)):
        tells = told @ (weights / (2 * said + 1))
        most = tells[left].max()
        value = (1 - diversity) * worth * (tells / most if most else 1.0) - diversity * nearest
        best = int(np.argmax(np.where(left, value, -np.inf) if chosen else worth))
        chosen.append(best)
        left[best] = False
        said += told[best]
        if likeness is not None:
            nearest = np.maximum(nearest, likeness[best])
    return chosen
