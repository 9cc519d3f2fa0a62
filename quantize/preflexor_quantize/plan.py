"""What a type will do to each tensor, asked of llama.cpp before it does it, and seen in the file afterwards."""

import re
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from preflexor_agents.errors import ModelError, PreflexorError
from preflexor_quantize.ftypes import FLOATS
from preflexor_quantize.gguf_file import Header, read_gguf, row_bytes
from preflexor_quantize.imatrix import Importance
from preflexor_quantize.llama_quantize import dry_run

_TENSOR = re.compile(r"\[ *\d+/ *\d+\] (\S+) +- \[([\d, ]+)\], type = *(\w+), size = .*?MiB(?: -> .*\((\w+)\))?")
_LONG_BLOCK = 256
"""Elements in a block of the K and IQ types: a row has to be a multiple."""
_SHORT = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL")


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor of the file."""

    name: str
    shape: tuple[int, ...]
    before: str
    after: str
    after_bytes: int
    note: str = ""
    """Why the type is not the one that was asked for; empty otherwise."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a file of a type will hold."""

    type_name: str
    tensors: tuple[PlannedTensor, ...]
    size_bytes: int
    """Of the whole file."""

    @property
    def counts(self) -> dict[str, int]:
        """Type -> how many tensors."""
        return dict(Counter(t.after for t in self.tensors).most_common())

    @property
    def reasons(self) -> dict[str, int]:
        """Why tensors cannot have the type, and what they have instead -> how many."""
        return dict(Counter(f"{t.after}: {t.note}" for t in self.fallbacks))

    @property
    def fallbacks(self) -> tuple[PlannedTensor, ...]:
        """Tensors that cannot have the type."""
        return tuple(t for t in self.tensors if t.note)


def plan(source: Path, type_name: str, *, importance: Importance | None = None) -> Plan:
    """Ask llama.cpp what it would do with each tensor.

    Raises:
        PreflexorError: it would refuse.
        ModelError: the file is quantised already, or damaged.
    """
    header = floats(source)
    types = header.types
    tensors = []
    for line in dry_run(source, type_name, importance=importance):
        if found := _TENSOR.match(line.text):
            name, shape, before, after = found.groups()
            dims = [int(n) for n in shape.split(",")]
            while len(dims) > 1 and dims[-1] == 1:
                dims.pop()
            tensors.append(_planned(name, tuple(dims), before.upper(), (after or before).upper(), type_name))
    if len(tensors) != len(types):
        raise PreflexorError(f"llama.cpp's plan for {source.name} has {len(tensors)} of {len(types)} tensors")
    body = sum(-(-t.after_bytes // 32) * 32 for t in tensors)
    return Plan(type_name, tuple(tensors), header.data_offset + body)


def floats(source: Path) -> Header:
    """The header of a file that can be quantised.

    Raises:
        ModelError: it is quantised already, damaged, or an adapter.
    """
    header = read_gguf(source)
    quantised = sorted({t for t in header.types.values() if t not in FLOATS})
    if quantised:
        raise ModelError(f"{source} is quantised already ({', '.join(quantised)}); give the F16 file or the folder")
    return header


def even(source: Path) -> Importance:
    """All columns alike, for a plan: llama.cpp plans some types only with a matrix at hand. Raises as `plan`."""
    shapes = {t.name: t.shape for t in plan(source, "Q8_0").tensors if len(t.shape) > 1}
    values = {name: np.ones(shape[0] * prod(shape[2:]), dtype=np.float32) for name, shape in shapes.items()}
    return Importance(values=values, windows=0, dataset="")


def check_kept(plan: Plan, file: Path) -> None:
    """See that the file holds what was planned.

    Raises:
        PreflexorError: it does not.
    """
    types = read_gguf(file).types
    for tensor in plan.tensors:
        if types.get(tensor.name) != tensor.after:
            raise PreflexorError(
                f"{file.name}: {tensor.name} is {types.get(tensor.name, 'missing')}, planned was {tensor.after}"
            )


def _planned(name: str, shape: tuple[int, ...], before: str, after: str, type_name: str) -> PlannedTensor:
    note = ""
    if len(shape) > 1 and type_name not in _SHORT and shape[0] % _LONG_BLOCK and after in _SHORT:
        note = f"row of {shape[0]} is no multiple of {_LONG_BLOCK}"
    if len(shape) > 1 and type_name not in FLOATS and shape[0] % 32 and after in FLOATS:
        note = f"row of {shape[0]} is no multiple of 32"
    return PlannedTensor(name, shape, before, after, row_bytes(after, shape[0]) * prod(shape[1:]), note)
