"""Words as search, hashing and citing see them: folded, without function words, cut to a stem."""

import re
import unicodedata
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")

STOP_WORDS = frozenset(
    re.findall(
        r"\S+",
        """a about above according after again against all also am among an and any are as at be because been before
        being below between both but by can could did do does doing down during each either few for from
        further had has have having he her here hers him his how however i if in into is it its itself just
        many may me might more most much must my near of off on once one only or other our out over own per
        same shall she should so some such than that the their them then there these they this those through
        thus to too under until up upon us very was we were what when where whether which while who whom
        whose why will with within would you your s t re ve ll d m""",
    )
)
"""English words that say nothing about a subject; negations are not among them."""

NEGATIONS = frozenset(
    re.findall(
        r"\S+",
        """no not never none neither nor cannot nothing lack lacks lacking don't doesn't didn't isn't aren't
        wasn't weren't can't won't couldn't wouldn't hasn't haven't""",
    )
)

_SUFFIXES = (
    *("alisation", "alization", "alised", "alized", "alising", "alizing"),
    *("fulness", "ousness", "iveness", "isation", "ization", "ation", "ness", "ment", "ised", "ized", "ising", "izing"),
    *("ion", "ing", "edly", "iest", "ier", "ied", "ily", "ally", "est", "er", "ed", "ly", "al", "ise", "ize", "y", "e"),
)
_SHORTEST_STEM = 3


def fold(text: str) -> str:
    """Lower case without accents and with compatibility forms resolved, so that `Fibre` and `ﬁbré` meet."""
    return _NOT_ASCII.sub(_folded, text.lower() if text.isascii() else text.casefold())


def _folded(found: re.Match[str]) -> str:
    """Normal forms leave ASCII as it is, so what stands between may be folded by itself."""
    decomposed = unicodedata.normalize("NFKD", found.group().replace("\u2019", "'"))
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def words(text: str) -> list[str]:
    """Every word of the text, folded, in order."""
    return _WORD.findall(fold(text))


def content_words(text: str) -> list[str]:
    """The words that carry the subject, folded, in order; negations are left out too."""
    return [word for word in words(text) if word not in STOP_WORDS and word not in NEGATIONS]


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """The folded word without its endings: `stiffness`, `stiffer` and `stiff` are one, so are `layer` and `layers`."""
    word = _singular(word.removesuffix("'s"))
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _SHORTEST_STEM:
            word = word.removesuffix(suffix)
            break
    if len(word) > _SHORTEST_STEM and word[-1] == word[-2]:
        word = word[:-1]
    return word


def _singular(word: str) -> str:
    if len(word) <= _SHORTEST_STEM or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "zes", "ches", "shes")):
        return word[:-2]
    return word[:-1]


def stems(text: str) -> frozenset[str]:
    """The stems of the text's content words."""
    return frozenset(stem(word) for word in content_words(text))
