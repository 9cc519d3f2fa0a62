"""Domain packs: what a field calls its things, and how its questions are asked. TOML, one file a field.

Nothing outside a pack speaks of a field. `general` and `materials` come with the package.
"""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from preflexor_agents.errors import ConfigError

Name = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f](?:[^\x00-\x1f]*[^\s\x00-\x1f])?$", max_length=100)]
Text = Annotated[str, Field(min_length=1, max_length=4000)]
_FOLDER = ("data", "packs")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Category(_Strict):
    """A part of the thinking (PRefLexOR, section "Thinking"): what it is called and what belongs into it."""

    name: Name
    asks: Text
    """What is to be extracted, in one sentence."""
    retrieved: bool = False
    """Whether it is written from passages searched for anew, as the published Additional Background is."""


class Roles(_Strict):
    """Who speaks in the system turns, a sentence each."""

    teacher: Text
    """Writes questions, thinking and good answers."""
    student: Text
    """Answers as the model that is trained."""
    extractor: Text
    """Reads facts out of passages."""


class Questions(_Strict):
    """Questions that a growing graph asks; `{a}` and `{b}` stand for entities."""

    frontier: Annotated[str, Field(pattern=r"\{a\}")]
    """Of an entity that little is known of."""
    bridge: Annotated[str, Field(pattern=r"(?s)\{a\}.*\{b\}")]
    """Of two entities that are far from one another."""
    missing_link: Annotated[str, Field(pattern=r"(?s)\{a\}.*\{b\}")]
    """Of two entities with the same neighbours and no relation."""


class Pack(_Strict):
    """A field."""

    name: Name
    about: Text
    """The field in a phrase: `biological and bio-inspired materials`."""
    categories: Annotated[tuple[Category, ...], Field(min_length=1, max_length=20)]
    roles: Roles
    entity_types: Annotated[tuple[Name, ...], Field(min_length=1, max_length=30)]
    """What an entity can be."""
    relations: Annotated[tuple[Name, ...], Field(min_length=1, max_length=60)]
    """How two entities can be related, as words between them: `consists of`."""
    questions: Questions

    @field_validator("categories")
    @classmethod
    def _told_apart(cls, categories: tuple[Category, ...]) -> tuple[Category, ...]:
        if len({category.name.casefold() for category in categories}) < len(categories):
            raise ValueError("two of them have the same name; rename one")
        if sum(category.retrieved for category in categories) > 1:
            raise ValueError("more than one of them is retrieved; leave that to one")
        return categories


def names() -> tuple[str, ...]:
    """The packs of the package."""
    folder = resources.files("preflexor_agents").joinpath(*_FOLDER)
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


def load(pack: str) -> Pack:
    """A pack of the package by its name, or the one in a TOML file.

    Raises:
        ConfigError: there is none, or the file is no pack; names the key, the value and the remedy.
    """
    if pack in names():
        text = resources.files("preflexor_agents").joinpath(*_FOLDER, f"{pack}.toml").read_text(encoding="utf-8")
        return _read(text, pack)
    path = Path(pack).expanduser()
    if path.suffix != ".toml":
        raise ConfigError(f"domain pack {pack!r} is unknown; use {', '.join(names())}, or the path of a .toml file")
    try:
        return _read(path.read_text(encoding="utf-8-sig"), str(path))
    except OSError as error:
        raise ConfigError(f"domain pack {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"domain pack {path} is not UTF-8 text; save it as UTF-8") from None


def _read(text: str, place: str) -> Pack:
    try:
        return Pack.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"domain pack {place} is not TOML: {error}; correct that line") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        given = repr(first["input"])
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"domain pack {place}: {key} is {given if len(given) <= 60 else given[:57] + '...'}; "
            f"{said[0].lower()}{said[1:]}"
        ) from None
