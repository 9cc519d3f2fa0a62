"""Which entities may be one: alike in spelling, or alike to the store's embedder. People decide; nothing is merged."""

import re

import numpy as np
from sqlite_utils import Database

from preflexor_agents.graph import chains
from preflexor_agents.graph.values import Entity, MergeSuggestion
from preflexor_agents.store import graph_names, graph_view, graph_walk
from preflexor_agents.store.embedders import Embedder

MOST_COMPARED = 5000
"""Entities that are compared with one another: the best connected."""
LEAST_SCORE = 0.85
"""Cosine of two names from which on they may mean one thing; the same bound as graph-preflexor's ideation engine."""
_BLOCK = 512
_SAME_STEMS = 0.95
_ARTICLES = frozenset({"the", "of", "a", "an"})
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_TELLING = re.compile(r"\d+(?:\.\d+)?|\b\w\b|\b[ivx]+\b|[*'+\u2032\u2033\u00b0%#]")
_NEGATION = re.compile(r"\b(?:not|no|without)\b|\b(?:non|anti)")


def candidates(db: Database) -> list[Entity]:
    """The entities that are compared, best connected first."""
    roots = graph_walk.best_connected(db, limit=MOST_COMPARED)
    return list(graph_view.entities(db, roots).values())


def suggest(entities: list[Entity], embedder: Embedder, *, k: int) -> list[MergeSuggestion]:
    """At most `k` pairs, most alike first, ties by name.

    Names that differ in a number, a single letter, a sign or a negation are different things, however alike they look.
    The same letters are spelling with a score of 1, the same stems in any order with one of 0.95.

    Raises:
        BackendError: the embedder failed.
    """
    if len(entities) < 2:
        return []
    names = [_CAMEL.sub(" ", entity.name).replace("_", " ") for entity in entities]
    found = _spelled_alike(entities, names)
    vectors = embedder.embed(names)
    for start in range(0, len(names), _BLOCK):
        scores = vectors[start : start + _BLOCK] @ vectors.T
        for row, column in zip(*np.nonzero(scores >= LEAST_SCORE), strict=True):
            keep, gone = start + int(row), int(column)
            if keep < gone and (keep, gone) not in found and _telling(names[keep]) == _telling(names[gone]):
                score = min(1.0, float(scores[row, column]))
                found[keep, gone] = MergeSuggestion(
                    keep=entities[keep], gone=entities[gone], score=score, reason="embedding"
                )
    return sorted(found.values(), key=lambda s: (-round(s.score, 4), s.keep.name, s.gone.name))[:k]


def _spelled_alike(entities: list[Entity], names: list[str]) -> dict[tuple[int, int], MergeSuggestion]:
    groups: dict[tuple[frozenset[str], tuple[str, ...]], list[int]] = {}
    for n, name in enumerate(names):
        stems = graph_names.stems_of(graph_names.identity(name)) - _ARTICLES
        if stems:
            groups.setdefault((stems, _telling(name)), []).append(n)
    found = {}
    for first, *others in groups.values():
        for n in others:
            score = 1.0 if chains.key(names[first]) == chains.key(names[n]) else _SAME_STEMS
            keep, gone = entities[first], entities[n]
            found[first, n] = MergeSuggestion(keep=keep, gone=gone, score=score, reason="spelling")
    return found


def _telling(name: str) -> tuple[str, ...]:
    """What makes names of different things of names that look alike."""
    plain = graph_names.identity(name)
    return tuple(sorted(_TELLING.findall(plain))) + tuple(_NEGATION.findall(plain))
