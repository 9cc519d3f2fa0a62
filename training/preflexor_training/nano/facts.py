"""The fact base: biological and bio-inspired materials, what is known of them, and where it is written.

The facts stand in TOML files in `materials/`, the prose in the library of `preflexor_agents`. Both are read
together and must agree: every value stands, word for word, in the section of the note that its fact names.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from preflexor_agents.errors import ConfigError
from preflexor_training.nano.attributes import BY_NAME
from preflexor_training.nano.worlds import Fact


@dataclass(frozen=True, slots=True)
class Known:
    """A fact, where its note tells it, and who found it."""

    fact: Fact
    section: str
    """Heading of the note's section; empty for the paragraph below the title."""
    source: str


@dataclass(frozen=True, slots=True)
class Part:
    """A section of a note; `text` is exactly note[start:end], its heading included."""

    heading: str
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Material:
    """A material of the library with its note."""

    name: str
    note: str
    """File name of the note."""
    title: str
    text: str
    parts: tuple[Part, ...]
    known: tuple[Known, ...]
    sources: tuple[str, ...]


_HEADING = re.compile(r"^##? (.+)$", re.MULTILINE)
_NUMBER = re.compile(r"\d+(\.\d+)?")


@cache
def materials() -> tuple[Material, ...]:
    """Every material, checked, in the order of the files.

    Raises:
        ConfigError: a fact has an unknown attribute, a wrong unit or no source, or its note does not tell it.
    """
    found: list[Material] = []
    for path in sorted((files(__package__) / "materials").iterdir(), key=lambda p: p.name):
        if path.name.endswith(".toml"):
            entries = tomllib.loads(path.read_text(encoding="utf-8"))["material"]
            found += [_material(entry) for entry in entries]
    names = [m.name for m in found]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ConfigError(f"materials {sorted(doubled)} are listed twice; keep one entry of each")
    return tuple(found)


def _material(entry: Mapping[str, Any]) -> Material:
    name, note, sources = entry["name"], entry["note"], tuple(entry["sources"])
    text = (files("preflexor_agents") / "data" / "library" / note).read_text(encoding="utf-8")
    parts = split_note(text)
    known = tuple(
        Known(Fact(name, f["attribute"], f["value"]), f["section"], _source(name, sources, f["source"]))
        for f in entry["facts"]
    )
    for k in known:
        _check(k, {part.heading: part.text for part in parts}, note)
    title = text.split("\n", 1)[0].removeprefix("# ")
    return Material(name, note, title, text, parts, known, sources)


def _source(name: str, sources: tuple[str, ...], number: int) -> str:
    if not 1 <= number <= len(sources):
        raise ConfigError(f"{name}: source {number} does not exist; it has sources 1 to {len(sources)}")
    return sources[number - 1]


def _check(known: Known, parts: Mapping[str, str], note: str) -> None:
    fact = known.fact
    attribute = BY_NAME.get(fact.attribute)
    if attribute is None:
        raise ConfigError(f"{fact.entity}: attribute {fact.attribute!r} is unknown; use one of {', '.join(BY_NAME)}")
    unit = fact.value[len(fact.number) :].strip()
    if attribute.numeric and (unit != attribute.unit or not _NUMBER.fullmatch(fact.number)):
        raise ConfigError(f"{fact.entity}: {fact.attribute} is {fact.value!r}; write a number and {attribute.unit}")
    if known.section not in parts or not states(parts[known.section], fact.value):
        raise ConfigError(f"{note}: section {known.section!r} does not say {fact.value!r}; add it or mend the fact")


def states(text: str, value: str) -> bool:
    """Whether the value stands in the text as a whole, not as a piece of a longer number or word."""
    return value_pattern(value).search(text) is not None


@cache
def value_pattern(value: str) -> re.Pattern[str]:
    """Matches the value where it stands as a whole."""
    return re.compile(rf"(?<![\w.]){re.escape(value)}(?!\w|\^|\.\d| m\^)")


def split_note(text: str) -> tuple[Part, ...]:
    """The sections of a note; the first holds title and introduction and has an empty heading."""
    starts = [m.start() for m in _HEADING.finditer(text)]
    headings = ["" if m.group(0).startswith("# ") else m.group(1) for m in _HEADING.finditer(text)]
    parts = []
    for heading, start, end in zip(headings, starts, [*starts[1:], len(text)], strict=True):
        piece = text[start:end].rstrip()
        parts.append(Part(heading, start, start + len(piece), piece))
    return tuple(parts)
