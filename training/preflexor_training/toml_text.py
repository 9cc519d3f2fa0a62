"""Writes a pydantic model as a TOML file, with what each key means before it."""

import json
import textwrap
import types
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

_WIDTH = 116


def written(model: BaseModel) -> str:
    """The file; fields that are None are left out. Raises TypeError for a value that TOML has no word for."""
    return "\n".join(_table(model, (), set())).strip() + "\n"


def table_of(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as `Phase`, `Mask | None` or `tuple[Phase, ...]`; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        return next((found for part in typing.get_args(annotation) if (found := table_of(part))), None)
    return None


def _table(model: BaseModel, place: tuple[str, ...], told: set[str]) -> Iterator[str]:
    """Plain keys first: TOML takes what follows a table's head for its own. What was `told` is not said again."""

    def comment(name: str) -> list[str]:
        words = " ".join((type(model).model_fields[name].description or "").split())
        if words in told:
            return []
        told.add(words)
        return textwrap.wrap(words, _WIDTH, initial_indent="# ", subsequent_indent="# ")

    values = {name: getattr(model, name) for name in type(model).model_fields}
    later = {name: value for name, value in values.items() if _is_table(value)}
    for name, value in values.items():
        if value is not None and name not in later:
            yield from comment(name)
            yield f"{name} = {word(value)}"
    for name, value in later.items():
        path = ".".join((*place, name))
        for item in value if isinstance(value, tuple) else (value,):
            yield ""
            yield from comment(name)
            yield f"[[{path}]]" if isinstance(value, tuple) else f"[{path}]"
            yield from _table(item, (*place, name), told)


def _is_table(value: Any) -> bool:
    return isinstance(value, BaseModel) or (isinstance(value, tuple) and any(isinstance(v, BaseModel) for v in value))


def word(value: Any) -> str:
    """A plain value as TOML writes it. Raises TypeError if it has no word for it."""
    match value:
        case bool():
            return "true" if value else "false"
        case Enum():
            return word(value.value)
        case int():
            return str(value)
        case float():
            return repr(value)
        case str() | Path():
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
        case tuple() | list():
            return f"[{', '.join(map(word, value))}]"
    raise TypeError(f"TOML has no word for {type(value).__name__}")
