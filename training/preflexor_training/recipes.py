"""Training recipes: one complete TOML file that decides a run, apart from where it is written.

`paper`, `laptop` and `tiny` come with the package. A file is read once, checked whole, and passed on as a value.
"""

import difflib
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from preflexor_agents.errors import ConfigError
from preflexor_training import toml_text
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.recipe_parts import (
    REFERENCE_FREE,
    SMOOTHED,
    TRL_ONLY,
    Adapter,
    Data,
    EarlyStop,
    Loss,
    Mask,
    Phase,
    StepSettings,
    Strict,
    Tags,
)

__all__ = [
    "REFERENCE_FREE",
    "SMOOTHED",
    "TRL_ONLY",
    "Adapter",
    "Data",
    "EarlyStop",
    "Loss",
    "Mask",
    "Phase",
    "Recipe",
    "StepSettings",
    "Tags",
    "about",
    "dump",
    "load",
    "names",
]

MOST_BYTES = 200_000
"""A recipe is a page of text; a larger file is another one by mistake."""
_FOLDER = "recipes"


class Recipe(Strict):
    """Everything that decides a training run."""

    about: Annotated[str, Field(max_length=400)] = ""
    """What the recipe is for, in a sentence."""
    base: Annotated[str, Field(min_length=1, max_length=1000)]
    """Model to start from: a folder or a Hugging Face id. Published: Llama-3.2-3B-Instruct."""
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 0
    """Seeds the order of rows, masks, dropout, new weights and what forge draws. Chosen: 0; published: unseeded."""
    tags: Tags = Tags()
    """How the model marks its thinking."""
    data: Data = Data()
    """Rows and masks."""
    adapter: Adapter = Adapter()
    """What is trained."""
    phases: Annotated[tuple[Phase, ...], Field(min_length=1, max_length=20)]
    """The stages, each from the merged model of the one before. Published: two."""
    step: StepSettings = StepSettings()
    """How a step is computed."""
    forge: ForgeSettings | None = None
    """How rows are made on the fly; rows, phase, round and seed follow from the phase. Published: on the fly."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        double = [a for n, a in enumerate(p.name for p in self.phases) if a in {p.name for p in self.phases[:n]}]
        if double:
            raise ValueError(f"phases has two of the name {double[0]!r}; give each its own")
        if self.data.pairs and self.forge is not None:
            raise ValueError(f"data.pairs is {self.data.pairs!r} and there is a [forge] table; keep one of them")
        if self.forge is not None and self.tags.thinking == "<think>" and "<|thinking|>" in self.forge.trigger:
            raise ValueError(f'forge.trigger is {self.forge.trigger!r} and tags.thinking "<think>"; name the same tag')
        silent = self.forge.rejected if self.forge is not None else None
        if silent in ("student", "teacher_wrong", "teacher_shallow"):
            masked = [p.name for p in self.phases if self.mask(p).kind == "answer_only"]
            if masked:
                raise ValueError(
                    f"forge.rejected is {silent!r}, whose replies do not think, and the mask of {masked[0]} needs it; "
                    'use "student_thinking"'
                )
        foreign = [p.loss for p in self.phases if p.loss in TRL_ONLY]
        if foreign and self.step.engine != "trl":
            raise ValueError(f'loss {foreign[0]!r} is one of TRL\'s own trainers; set step.engine = "trl"')
        return self

    def mask(self, phase: Phase) -> Mask:
        """The mask of a phase."""
        return phase.mask or self.data.mask


def names() -> tuple[str, ...]:
    """The recipes of the package."""
    files = resources.files("preflexor_training").joinpath(_FOLDER).iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def about(name: str) -> str:
    """What a recipe of the package is for, in a sentence."""
    return load(name).about


def load(recipe: str | Path, *, changes: Sequence[str] = ()) -> Recipe:
    """A recipe of the package by its name, or the one in a TOML file.

    Args:
        recipe: name or path.
        changes: `key=value` each, as `phases.0.rounds=3`; the value as in TOML, or words as they are.

    Raises:
        ConfigError: there is none, or the file is none; names file, key, value and remedy.
    """
    if isinstance(recipe, str) and recipe in names():
        source = resources.files("preflexor_training").joinpath(_FOLDER, f"{recipe}.toml")
        return _checked(_parsed(source.read_text(encoding="utf-8"), recipe), recipe, changes)
    path = Path(recipe).expanduser()
    if path.suffix != ".toml":
        raise ConfigError(f"recipe {str(recipe)!r} is unknown; use {', '.join(names())}, or the path of a .toml file")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"recipe {str(path)!r} cannot be read: {why}; use {', '.join(names())}, or another file"
        ) from (None)
    if len(data) > MOST_BYTES:
        raise ConfigError(f"recipe {path} has more than {MOST_BYTES} bytes; name a recipe, not data")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"recipe {path} is not UTF-8 text; save it as UTF-8") from None
    return _checked(_parsed(text, str(path)), str(path), changes)


def dump(recipe: Recipe) -> str:
    """The recipe as a complete TOML file that `load` reads back as the same value; each key after what it means."""
    return toml_text.written(recipe)


def _parsed(text: str, place: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text.replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"recipe {place} is not TOML: {_line(error)}; correct that line") from None


def _checked(values: dict[str, Any], place: str, changes: Sequence[str]) -> Recipe:
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"change {change!r} is no key=value, as in phases.0.rounds=3")
        _set(values, key.strip().split("."), _value(value.strip()), change)
        place = f"{place.removesuffix(' with changes')} with changes"
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"recipe {place}: {_said(error)}") from None


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _set(values: Any, keys: list[str], value: Any, change: str) -> None:
    for n, key in enumerate(keys):
        last = n == len(keys) - 1
        if isinstance(values, list) and key.isdecimal() and int(key) < len(values):
            where: Any = int(key)
        elif isinstance(values, dict):
            where = key
            if not last:
                values.setdefault(key, {})
        else:
            raise ConfigError(f"change {change!r}: there is no {'.'.join(keys[: n + 1])}; see `dump` of the recipe")
        if last:
            values[where] = value
        else:
            values = values[where]


def _said(error: ValidationError) -> str:
    """The first thing that is wrong: key, value, remedy."""
    first = error.errors(include_url=False)[0]
    key = ".".join(map(_shown_key, first["loc"])) or "the file"
    given = reprlib.repr(first["input"])
    if first["type"] == "value_error":
        where = f"{key}: " if first["loc"] else ""
        return where + first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{key} is missing; add it"
    if first["type"] == "extra_forbidden":
        known = _known(first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"remove it; known here: {', '.join(known)}"
        return f"{key} = {given} is no key; {remedy}"
    return f"{key} is {given}; {first['msg'][0].lower()}{first['msg'][1:]}"


def _shown_key(part: int | str) -> str:
    text = str(part)
    return text if text.isprintable() and len(text) <= 60 else reprlib.repr(text)


def _known(place: tuple[int | str, ...]) -> list[str]:
    """The keys of the table at a place."""
    model: type[BaseModel] = Recipe
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            model = toml_text.table_of(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other top-level values, checked. Raises ConfigError."""
    return _checked({**recipe.model_dump(exclude_none=True), **values}, "as given", ())
