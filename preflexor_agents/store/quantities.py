"""Numbers with their units in running text, in a form in which equal ones are equal.

`1,200 um`, `1200 micrometres` and `1.2e3 um` are the same quantity; `47` is not part of `147`, of `C47` or of `4.47`.
Units are compared, never converted: a quote must show the number that the claim shows.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

_SUPERSCRIPTS = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b\u207a", "0123456789-+"
)
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\[\d+(?:\s*[,\u2013-]\s*\d+)*\]", " "),
        (r"<sup>\s?([^<\s]{0,20})\s?</sup>", r"^\1"),
        (r"</?\w+[^>]{0,200}>", ""),
        (r"\\(?:mathrm|text|rm|mathbf)\s*\{([^{}]*)\}", r"\1"),
        (r"\\sqrt\s*\{([^{}]*)\}|sqrt\(([^()]*)\)|\u221a\(?(\w+)\)?", r" \1\2\3^0.5"),
        (r"\\times", "\u00d7"),
        (r"\\cdot", "\u00b7"),
        (r"\\mu\b\s*", "u"),
        (r"\\[,;: ]", " "),
        (r"\\%", "%"),
        (r"\$|\*\*|__|`", ""),
        (r"(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)", ""),
        (r"\^\s?[{(]\s?([^{}()\s]{0,20})\s?[})]", r"^\1"),
        ("(?<=[A-Za-z])\u00bd", "^0.5"),
        (r"\^\s*([+-]?)1/2", r"^\g<1>0.5"),
        ("\u2212", "-"),
        ("[\u00b5\u03bc]", "u"),
        ("\u2103", "\u00b0C"),
        ("\u00b0 +C", "\u00b0C"),
        (r"[ \t\r\n]+", " "),
    )
)
_SUPERSCRIPT = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b\u207a]+")

_PREFIX_WORDS = {
    "tera": "T",
    "giga": "G",
    "mega": "M",
    "kilo": "k",
    "centi": "c",
    "milli": "m",
    "micro": "u",
    "nano": "n",
}
_BASE_WORDS = {"pascal": "Pa", "meter": "m", "metre": "m", "gram": "g", "joule": "J", "newton": "N", "watt": "W"} | {
    "second": "s", "volt": "V", "liter": "L", "litre": "L", "hertz": "Hz", "minute": "min", "hour": "h", "day": "d"
}  # fmt: skip
_WHOLE_WORDS = {"percent": "%", "per cent": "%", "degrees celsius": "\u00b0C", "degrees": "\u00b0"}
_SYMBOLS = (
    *(
        "mol",
        "cd",
        "Hz",
        "Pa",
        "J",
        "W",
        "V",
        "\u03a9",
        "\u2126",
        "ohm",
        "T",
        "L",
        "l",
        "min",
        "bar",
        "eV",
        "Da",
        "cal",
    ),
    *("m", "g", "s", "A", "K", "N", "C", "F", "S", "M", "h", "d", "rad", "ppm", "wt%", "vol%", "%", "\u2030"),
    *("\u00b0C", "\u00b0F", "\u00b0", "yr", "rpm", "dB", "psi", "atm"),
)
_ALIASES = {"l": "L", "ohm": "\u03a9", "\u2126": "\u03a9", "wt%": "%", "vol%": "%"}
_WORD_UNIT = rf"(?:{'|'.join(_WHOLE_WORDS)}|(?:{'|'.join(_PREFIX_WORDS)})?(?:{'|'.join(_BASE_WORDS)})s?)"
_SYMBOL_UNIT = rf"(?:da|[TGMkhdcmunpf])?(?:{'|'.join(map(re.escape, sorted(_SYMBOLS, key=len, reverse=True)))})"
_POWER = r"(?:\^[+-]?\d+(?:\.\d+)?|-?\d(?:/\d)?)"
_UNIT = rf"(?:(?i:{_WORD_UNIT})|{_SYMBOL_UNIT})(?![A-Za-z])(?:{_POWER}(?!\w))?"
_JOINED = rf"(?:\s?[\u00b7\u22c5*/.]\s?{_UNIT}|\s+per\s+{_UNIT}|\s(?:m|{_SYMBOL_UNIT}{_POWER})(?!\w))"
_UNITS = rf"(?:{_UNIT}){_JOINED}*"
_INTEGER = r"(?:\d{1,3}(?:[,\u202f\u2009\u00a0]\d{3})+(?!\d)|\d+)"
_NUMBER = rf"(?>{_INTEGER}(?:\.\d+)?|\.\d+)"
_TEN = r"10\^[+-]?\d{1,3}(?!\d)"
_QUANTITY = re.compile(
    rf"(?<![\w.^])(?<![A-Za-z]-)(?P<sign>(?<![\d)%]\s)(?<![)%])-)?"
    rf"(?:(?P<mantissa>{_NUMBER})\s?[\u00d7x\u00b7*]\s?(?P<ten>{_TEN})|(?P<power>{_TEN})"
    rf"|(?P<number>{_NUMBER}(?:[eE][+-]?\d{{1,3}}(?!\d))?))"
    rf"(?!\.?\d|(?:st|nd|rd|th)\b)(?:[\s\u2009\u202f\u00a0]?-?(?P<unit>{_UNITS}))?(?![A-Za-z\d^])"
)
_UNIT_PART = re.compile(
    r"(?P<join>/|\bper\s)?\s*[\u00b7\u22c5*.]?\s*"
    rf"(?P<unit>(?i:{_WORD_UNIT})|{_SYMBOL_UNIT})(?![A-Za-z])(?P<power>{_POWER})?"
)
_SHARES_UNIT = re.compile(
    r"\s*(?:[\u2013\u2014-]|to|and|or|through|\u00b1|\+/-|,|,\s*(?:and|or)|/|\u00d7|x)\s*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and its unit, as they stand in a text that `plain` made."""

    value: Decimal
    unit: str
    """Canonical, as `MPa m^0.5`; empty if there is none."""
    start: int
    end: int


def plain(text: str) -> str:
    """The text with one spelling of exponents, roots, signs and micro, without `[1]` marks and emphasis."""
    text = _SUPERSCRIPT.sub(lambda match: "^" + match.group().translate(_SUPERSCRIPTS), text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text


def quantities(text: str) -> list[Quantity]:
    """The quantities of a text that `plain` made, in order; in `43-70 GPa` both ends have the unit."""
    found: list[Quantity] = []
    for match in reversed(list(_QUANTITY.finditer(text))):
        unit = _canonical(match["unit"]) if match["unit"] else ""
        if not unit and found and _SHARES_UNIT.fullmatch(text, match.end(), found[-1].start):
            unit = found[-1].unit
        found.append(Quantity(_value(match), unit, match.start(), match.end()))
    return found[::-1]


def without(text: str, found: list[Quantity]) -> str:
    """The text without its quantities."""
    starts = [0, *(q.end for q in found)]
    ends = [*(q.start for q in found), len(text)]
    return " ".join(text[start:end] for start, end in zip(starts, ends, strict=True))


def is_same(claimed: Quantity, found: Quantity) -> bool:
    """Whether the number found is the one claimed, and in the claimed unit if the claim has one."""
    return found.value == claimed.value and claimed.unit in ("", found.unit)


def _value(match: re.Match[str]) -> Decimal:
    power = match["ten"] or match["power"]
    digits = match["mantissa"] or match["number"] or "1"
    value = Decimal(re.sub("[,\u202f\u2009\u00a0]", "", digits))
    if power:
        value = value.scaleb(int(power.removeprefix("10^")))
    return value.copy_negate() if match["sign"] else value


def _canonical(unit: str) -> str:
    """Units with their powers, sorted; `kJ/m2` and `kJ m^-2` are one."""
    powers: dict[str, Decimal] = {}
    for part in _UNIT_PART.finditer(unit):
        name = _symbol(part["unit"])
        power = _power(part["power"]) if part["power"] else Decimal(1)
        powers[name] = powers.get(name, Decimal(0)) + (-power if part["join"] else power)
    return " ".join(f"{name}^{power.normalize():f}" if power != 1 else name for name, power in sorted(powers.items()))


def _power(text: str) -> Decimal:
    above, _, below = text.removeprefix("^").partition("/")
    return Decimal(above) / Decimal(below) if below and Decimal(below) else Decimal(above)


def _symbol(unit: str) -> str:
    word = unit.lower()
    if word in _WHOLE_WORDS:
        return _WHOLE_WORDS[word]
    for name in (word, word.removesuffix("s")):
        prefix = next((p for p in _PREFIX_WORDS if name.startswith(p)), "")
        if name.removeprefix(prefix) in _BASE_WORDS:
            return _PREFIX_WORDS.get(prefix, "") + _BASE_WORDS[name.removeprefix(prefix)]
    return _ALIASES.get(unit, unit)
