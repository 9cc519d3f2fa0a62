"""Questions that a run has asked before, nearly in the same words.

Two questions are near duplicates if the stems of their telling words overlap by LEAST_LIKE (Jaccard). Candidates come
from prefix filtering (Chaudhuri, Ganti and Kaushik 2006, "A primitive operator for similarity joins"): none is missed.
"""

import math
from collections import defaultdict
from difflib import SequenceMatcher

from preflexor_agents.store.words import NEGATIONS, STOP_WORDS, stem, words
from preflexor_training.forge.gates import ASKING
from preflexor_training.forge.steps import Dropped

LEAST_LIKE = 0.75
MOST_SWAPS = 2
"""A question in which so many names stand for others, and nothing else, asks something else."""
_LONGEST_SWAP = 4
_NOT = "not"
"""Stands for every negation; one that only one of two questions has makes them two."""


class AskedBefore:
    """The questions of a run that were let through so far; told in order of the rows, it always decides alike."""

    def __init__(self) -> None:
        self._questions: dict[int, tuple[str, list[str]]] = {}
        self._by_stem: dict[str, list[int]] = defaultdict(list)

    def take(self, number: int, question: str) -> None:
        """Let the question of a row through, and remember it.

        Raises:
            Dropped: a row before asks nearly the same (`duplicate`); it is not remembered.
        """
        telling = _telling(question)
        prefix = _prefix(telling)
        for earlier in sorted({n for word in prefix for n in self._by_stem[word]}):
            text, known = self._questions[earlier]
            if alike(known, telling):
                raise Dropped("duplicate", f"row {earlier} asks nearly the same: {text[:80]!r}")
        self._questions[number] = (question, telling)
        for word in prefix:
            self._by_stem[word].append(number)


def alike(a: list[str], b: list[str]) -> bool:
    """Whether two lists of stems are near duplicates: mostly the same, and not the same with other names put in."""
    shared, either = len({*a} & {*b}), len({*a} | {*b})
    return shared >= LEAST_LIKE * either and (_NOT in a) == (_NOT in b) and not _swapped(a, b)


def _swapped(a: list[str], b: list[str]) -> bool:
    changes = [op for op in SequenceMatcher(None, a, b, autojunk=False).get_opcodes() if op[0] != "equal"]
    if not changes or any(op[0] != "replace" for op in changes):
        return False
    swaps = {(tuple(a[i:j]), tuple(b[k:n])) for _, i, j, k, n in changes}
    return len(swaps) <= MOST_SWAPS and all(max(len(old), len(new)) <= _LONGEST_SWAP for old, new in swaps)


def _telling(question: str) -> list[str]:
    """Stems in order, without words that any question has; all words, where there are no others."""
    said = words(question)
    found = [_NOT if word in NEGATIONS else stem(word) for word in said if word not in STOP_WORDS]
    return [word for word in found if word not in ASKING] or said


def _prefix(telling: list[str]) -> list[str]:
    """Of the stems in a fixed order so many that two questions which are alike must share one."""
    ordered = sorted(set(telling))
    return ordered[: len(ordered) - math.ceil(LEAST_LIKE * len(ordered)) + 1]
