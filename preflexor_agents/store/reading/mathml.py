"""MathML as a line of text: `I_ss = p(s)/p(r)`, `10^-9`."""

import re
from xml.etree.ElementTree import Element

_SPACED = frozenset("=<>+\u2212-\u00b1\u2264\u2265\u2248\u2260\u2261\u2192\u221d\u223c\u2208\u00d7\u2190\u21d2")
_ACCENTS = frozenset("^\u02c6\u02dc~\u00af\u203e\u2192\u02d9.\u00a8\u0302\u0303\u0304")
_SIMPLE = re.compile(r"-?[\w.\u22a4\u2032*]*|\([^()]*\)")
_SIGNED = re.compile(r"\A(-)\s+")
_MINUS = "\u2212"
_MAX_DEPTH = 100


def text(element: Element, *, depth: int = 0) -> str:
    """The formula; what nests too deeply is left out."""
    if depth > _MAX_DEPTH or not isinstance(element.tag, str) or element.tag.startswith("annotation"):
        return ""
    if not len(element):
        return _leaf(element)
    parts = [text(child, depth=depth + 1) for child in element]
    match element.tag, parts:
        case (("msub" | "munder"), [base, low]):
            return f"{base}_{_grouped(low)}"
        case "mover", [base, mark] if mark.strip() in _ACCENTS:
            return base
        case (("msup" | "mover"), [base, high]):
            return f"{base}^{_grouped(high.strip().replace(_MINUS, '-'))}"
        case (("msubsup" | "munderover"), [base, low, high]):
            return f"{base}_{_grouped(low)}^{_grouped(high)}"
        case "mfrac", [top, bottom]:
            return f"{_grouped(top)}/{_grouped(bottom)}"
        case "msqrt", _:
            return f"sqrt({''.join(parts)})"
        case "mfenced", _:
            between = element.get("separators", ",").strip()[:1]
            inner = (f"{between} " if between else "").join(parts)
            return f"{element.get('open', '(')}{inner}{element.get('close', ')')}"
        case "semantics", _:
            return parts[0]
        case "mtable", _:
            return "; ".join(part.strip() for part in parts)
        case _:
            return "".join(parts)


def _leaf(element: Element) -> str:
    if element.tag == "mspace":
        return " "
    words = " ".join((element.text or "").split())
    if element.tag == "mo":
        return f" {words} " if words in _SPACED else f"{words} " if words == "," else words
    return f" {words} " if element.tag == "mtext" else words


def _grouped(words: str) -> str:
    words = _SIGNED.sub(r"\1", words.strip())
    return words if _SIMPLE.fullmatch(words) else f"({words})"
