"""Source code: kept as it is, cut at definitions, each chunk under the names of what it belongs to."""

import re

from preflexor_agents.store.chunks import Heading
from preflexor_agents.store.reading.decoding import decoded
from preflexor_agents.store.reading.parsed import Parsed, one_line

SUFFIXES = frozenset(
    re.findall(
        r"\S+",
        """.py .pyi .ipy .r .jl .m .c .h .cc .cpp .cxx .hh .hpp .cu .cuh .java .kt .scala .groovy .js .mjs .cjs .jsx .ts
        .tsx .go .rs .swift .rb .php .pl .pm .lua .sh .bash .zsh .ps1 .sql .f .f90 .f95 .for .hs .ml .mli .ex .exs .erl
        .clj .cs .fs .vb .dart .zig .nim .v .sv .vhd .vhdl .tcl .lisp .el .scm .pyx .proto .cmake""",
    )
)
_WORDS = (
    r"class|def|fn|func|function|fun|sub|subroutine|module|namespace|package|struct|enum|union|interface|trait|impl|"
    r"type|record|object|protocol|extension|macro|procedure|program|message|service|defmodule|defp?|data|newtype"
)
_MODIFIERS = (
    r"(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|pub(?:\([^)\n]*\))?|unsafe|"
    r"sealed|virtual|override|inline|constexpr|extern|open|data|partial|recursive|pure|elemental|declare)[ \t]+){0,6}"
)
_DEFINITION = re.compile(
    rf"^(?P<indent>[ \t]{{0,16}}){_MODIFIERS}(?:{_WORDS})[ \t]+[\w.:<>*&$(\[\]\"'][^\n]*(?:\n|\Z)", re.MULTILINE
)
_C_FUNCTION = re.compile(
    r"^(?P<indent>)[A-Za-z_][\w:<>,*& \t]{0,200}[ *&]~?[\w:]{1,100}\([^;{}\n]{0,500}\{?[ \t]*(?:\n|\Z)", re.MULTILINE
)
_C_LIKE = frozenset({".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".cu", ".cuh"})
_ABOVE = re.compile(r"[ \t]*(?:@|#\[|//|/\*|\*|#|--|%|!|;)[^\n]*\n")
"""A decorator or a comment: what stands above a definition and belongs to it."""
_TAIL = re.compile(r"[\s:{=]+$")
_LONGEST_NAME = 100
_TOP_LEVEL, _INNER_LEVEL = 3, 4
"""Of headings: low enough that small neighbours share a chunk."""


def parse(data: bytes, name: str) -> Parsed:
    """A file of source code."""
    text, encoding = decoded(data)
    dot = name.rfind(".")
    is_c = dot >= 0 and name[dot:].lower() in _C_LIKE
    return Parsed(text=text, headings=tuple(_definitions(text, is_c=is_c)), title=name, encoding=encoding)


def _definitions(text: str, *, is_c: bool) -> list[Heading]:
    """Where definitions begin, in order, with the decorators and comments above them."""
    matches = [*_DEFINITION.finditer(text), *(_C_FUNCTION.finditer(text) if is_c else ())]
    found: list[Heading] = []
    for match in sorted(matches, key=re.Match.start):
        floor = found[-1].end if found else 0
        if match.start() < floor:
            continue
        level = _INNER_LEVEL if match["indent"] else _TOP_LEVEL
        label = _TAIL.sub("", one_line(match.group()))[:_LONGEST_NAME]
        found.append(Heading(_with_lines_above(text, match.start(), floor), match.end(), level, label))
    return found


def _with_lines_above(text: str, start: int, floor: int) -> int:
    while start > floor:
        above = text.rfind("\n", floor, start - 1) + 1 or floor
        if above >= start or not _ABOVE.fullmatch(text, above, start):
            return start
        start = above
    return start
