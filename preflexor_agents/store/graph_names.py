"""How the graph writes and compares names: what is one entity, what is one kind of relation."""

import unicodedata

from preflexor_agents.store.words import fold, stem, words

LONGEST_NAME = 300
"""Characters; a longer name is a sentence, no name."""


def clean(text: str) -> str:
    """The text on one line: white space joined, characters that cannot be shown left out."""
    shown = text if text.isprintable() else "".join(c for c in text if c.isprintable() or c.isspace())
    return " ".join(shown.split())


def identity(name: str) -> str:
    """Equal for names of one entity: case, accents, compatibility forms and white space do not count."""
    return " ".join(fold(clean(name)).split())


def kind(text: str) -> str:
    """The relation in words: `PART_OF` is `part of`. Arrows and other signs stay as they are."""
    return " ".join(unicodedata.normalize("NFC", clean(text).replace("_", " ")).lower().split())


def stems_of(identity: str) -> frozenset[str]:
    """The stems of every word of a name, for finding it by words."""
    return frozenset(stem(word) for word in words(identity))
