"""What the head of a GGUF file says about a model, read without loading anything.

For lists and model cards, where llama.cpp would take a second for each file; only the values asked for are kept.
"""

import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from preflexor_agents.errors import ModelError
from preflexor_agents.markup import TAGS

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LONGEST_TEXT, _MOST_VALUES, _MOST_ITEMS = 1 << 22, 1 << 14, 1 << 24
_TOKENS = "tokenizer.ggml.tokens"
_TEMPLATE = "tokenizer.chat_template"
_SKIP_BYTES = 1 << 16

FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}
"""llama.cpp's names for `general.file_type` (llama_ftype)."""


class GgufHeader(NamedTuple):
    """A model as its file describes it."""

    architecture: str
    name: str
    level: str
    """Quantisation, as `Q4_K_M`; empty if the file does not say."""
    context_tok: int
    """Trained context; 0 if the file does not say."""
    tags: tuple[str, ...]
    """Reasoning tags among its tokens, or in its chat template."""
    chats: bool
    """Whether it has a chat template."""
    values: dict[str, Any]
    """Its other values, but for arrays and the vocabulary."""


def read_header(path: Path) -> GgufHeader:
    """Read the head of a GGUF file.

    Raises:
        ModelError: the file is missing, damaged, or no GGUF.
    """
    values: dict[str, Any] = {}
    found: set[str] = set()
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{path} is not a GGUF file; give another file")
            version, _, count = _unpack(file, "<IQQ")
            if not 2 <= version <= 16 or count > _MOST_VALUES:
                raise ModelError(f"{path} is damaged, or of a GGUF version that is not known ({version})")
            for _ in range(count):
                key = _text(file)
                value = _value(file, _unpack(file, "<I")[0], found if key == _TOKENS else None)
                if value is not None:
                    values[key] = value
    except OSError as e:
        raise ModelError(f"{path} cannot be read: {e.strerror or e}; give the path of a GGUF file") from None
    except (struct.error, ValueError, MemoryError):
        raise ModelError(f"{path} is cut short or damaged; download or convert it again") from None
    return _described(values, found)


def _described(values: dict[str, Any], found: Collection[str]) -> GgufHeader:
    template = str(values.pop(_TEMPLATE, ""))
    architecture = str(values.get("general.architecture", ""))
    context = values.get(f"{architecture}.context_length", 0)
    kind = values.get("general.file_type")
    return GgufHeader(
        architecture=architecture,
        name=str(values.get("general.name", "")),
        level=FILE_TYPES.get(kind, f"type {kind}") if isinstance(kind, int) else "",
        context_tok=context if isinstance(context, int) else 0,
        tags=tuple(tag for tag in TAGS if tag in found or tag in template),
        chats=bool(template),
        values=values,
    )


def _value(file: BinaryIO, kind: int, seen: set[str] | None) -> Any:
    """One value; None for an array, whose texts are added to `seen` if they are reasoning tags."""
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        return _unpack(file, f"<{_NUMBERS[kind]}" if kind in _NUMBERS else "")[0]
    of, count = _unpack(file, "<IQ")
    if count > _MOST_ITEMS:
        raise ValueError("an array that no model has")
    if of in _NUMBERS:
        _skip(file, count * struct.calcsize(f"<{_NUMBERS[of]}"))
    elif of == _STRING:
        for _ in range(count):
            text = _bytes(file)
            if seen is not None and text[:1] == b"<" and (tag := text.decode("utf-8", "replace")) in TAGS:
                seen.add(tag)
    else:
        raise ValueError("an array of arrays")
    return None


def _text(file: BinaryIO) -> str:
    return _bytes(file).decode("utf-8", errors="replace")


def _bytes(file: BinaryIO) -> bytes:
    size = _unpack(file, "<Q")[0]
    if size > _LONGEST_TEXT:
        raise ValueError("a text that is too long")
    data = file.read(size)
    if len(data) < size:
        raise ValueError("the end of the file")
    return data


def _skip(file: BinaryIO, size: int) -> None:
    """Forwards, by reading where the buffer is near: seeking would throw it away."""
    if size < _SKIP_BYTES:
        file.read(size)
    else:
        file.seek(size, 1)


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    if not form:
        raise ValueError("a value of a kind that is not known")
    return struct.unpack(form, file.read(struct.calcsize(form)))
