"""Settings of the command line: option, then PREFLEXOR_* variable, then preflexor.toml, then default.

Resolved once and passed on as a value. Imports pydantic, so commands import this module only when they run.
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import platformdirs
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from preflexor_agents.config import ReflectConfig, Sampling, preset
from preflexor_agents.errors import ConfigError

FILE_NAME = "preflexor.toml"
ENV_PREFIX = "PREFLEXOR_"


def default_store() -> Path:
    """Where the knowledge store lies unless something else is said."""
    return Path(platformdirs.user_data_dir("preflexor", appauthor=False)) / "store.db"


def user_file() -> Path:
    """The settings file that holds in every folder."""
    return Path(platformdirs.user_config_dir("preflexor", appauthor=False)) / FILE_NAME


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("it must be a number")
    return value


def _plain(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("it must be plain text that is not empty")
    return value.strip()


def _file(value: object) -> Path:
    if not isinstance(value, str | Path):
        raise ValueError("it must be a path")
    return Path(os.path.expanduser(_plain(str(value))))


Text = Annotated[str, AfterValidator(_plain)]
Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number)]


class Settings(BaseModel):
    """What may be set outside the call. None leaves the preset's own value."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: Text = "nano"
    """Model SPEC: nano, ollama:NAME, gguf:PATH, mlx:PATH, openai:NAME@BASE_URL."""
    store: Annotated[Path, BeforeValidator(_file)] = Field(default_factory=default_store)
    """The knowledge store's file."""
    preset: Literal["default", "paper"] = "default"
    """The protocol that the settings below adjust."""
    rounds: Annotated[Whole, Field(ge=1, le=100)] | None = None
    """Answers written one after the other, the draft included."""
    candidates: Annotated[Whole, Field(ge=1, le=64)] | None = None
    """Drafts to choose from in round 1."""
    seed: Annotated[Whole, Field(ge=0, lt=2**31)] | None = None
    """Seeds every call."""
    budget_tokens: Annotated[Whole, Field(ge=1)] | None = None
    """Most tokens generated over the whole run."""
    budget_seconds: Annotated[Real, Field(gt=0, allow_inf_nan=False)] | None = None
    """Most seconds over the whole run."""
    temperature: Annotated[Real, Field(ge=0, le=10, allow_inf_nan=False)] | None = None
    """Of drafts, answers, critiques and revisions; 0 is greedy. The judge stays greedy."""
    theme: Text | None = None
    """Looks of the terminal UI, by name."""
    keys: dict[Text, Text] = Field(default_factory=dict)
    """Keys of the terminal UI: id of a binding -> key, or keys with commas between. In the file only."""


class Given(NamedTuple):
    """A value that somebody set, and where."""

    value: object
    place: str
    """As the user wrote it: `--rounds`, `PREFLEXOR_ROUNDS`, `rounds in ./preflexor.toml`."""


def load(options: Mapping[str, object] | None = None, *, folder: Path | None = None) -> Settings:
    """The settings that hold for a command started in `folder` (default: the working directory).

    Args:
        options: values of command line options by field name; None means that the option was not given.
        folder: where `preflexor.toml` is looked for before the user's configuration folder.

    Raises:
        ConfigError: a key is unknown, or a value is not what its key takes; names the place, the value and the remedy.
    """
    return checked(given(options, folder=folder))


def given(options: Mapping[str, object] | None = None, *, folder: Path | None = None) -> dict[str, Given]:
    """What somebody set, by field name, and where; not checked yet but for the names.

    Raises:
        ConfigError: a key is unknown, or the file cannot be read.
    """
    return _from_file(folder or Path.cwd()) | _from_environment() | _from_options(options or {})


def checked(given: Mapping[str, Given]) -> Settings:
    """The settings that these values make. Raises ConfigError: one is not what its key takes."""
    try:
        return Settings.model_validate({key: value for key, (value, _) in given.items()})
    except ValidationError as e:
        first = e.errors()[0]
        key, *inside = (str(part) for part in first["loc"])
        value, place = given[key]
        if inside and isinstance(value, dict):
            value, place = value.get(inside[0], inside[0]), f"{inside[0]!r} among the {place}"
        problem = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
        raise ConfigError(f"{place} is {_short(value)}; {problem}") from None


def file_in_use(folder: Path | None = None) -> Path:
    """The settings file that holds in `folder` (default: the working directory); the user's own where there is none."""
    beside = (folder or Path.cwd()) / FILE_NAME
    return beside if os.path.lexists(beside) else user_file()


def reflect_config(settings: Settings) -> ReflectConfig:
    """The preset with what was set on top of it."""
    config = preset(settings.preset)
    if settings.rounds is not None:
        config = replace(config, rounds=settings.rounds)
    if settings.candidates is not None:
        config = replace(config, candidates=settings.candidates)
    if settings.seed is not None:
        config = replace(config, seed=settings.seed)
    if settings.budget_tokens is not None:
        config = replace(config, budget_tok=settings.budget_tokens)
    if settings.budget_seconds is not None:
        config = replace(config, budget_s=settings.budget_seconds)
    if settings.temperature is not None:
        config = replace(
            config,
            thinker=_warmed(config.thinker, settings.temperature),
            improver=_warmed(config.improver, settings.temperature),
        )
    return config


def _warmed(sampling: Sampling, temperature: float) -> Sampling:
    return replace(sampling, temperature=temperature)


def _from_options(options: Mapping[str, object]) -> dict[str, Given]:
    return {key: Given(value, f"--{key.replace('_', '-')}") for key, value in options.items() if value is not None}


def _from_environment() -> dict[str, Given]:
    """An empty variable counts as not set, as elsewhere in a shell."""
    given = {}
    for name, value in os.environ.items():
        if name.startswith(ENV_PREFIX) and value:
            key = name.removeprefix(ENV_PREFIX).lower()
            if key == "keys" or key not in Settings.model_fields:
                raise ConfigError(f"{name} is not a setting; {_remedy(key, lambda known: ENV_PREFIX + known.upper())}")
            given[key] = Given(value, name)
    return given


def _from_file(folder: Path) -> dict[str, Given]:
    file = file_in_use(folder)
    if not os.path.lexists(file):
        return {}
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as e:
        raise ConfigError(f"{file} cannot be read: {e.strerror}; make it readable or remove it") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text; save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise ConfigError(f"{file} is not TOML: {e}; correct that line") from None
    refuse_unknown(data, file)
    store = data.get("store")
    if isinstance(store, str) and store.strip() and store.isprintable():
        data["store"] = str(file.parent / os.path.expanduser(store))
    return {key: Given(value, f"{key} in {file}") for key, value in data.items()}


def refuse_unknown(data: Mapping[str, object], file: Path) -> None:
    """Raises ConfigError for a key of the file that is no setting."""
    for key, value in data.items():
        if key not in Settings.model_fields:
            raise ConfigError(f"{key!r} = {_short(value)} in {file} is not a setting; {_remedy(key, str)}")


def _remedy(key: str, spell: Callable[[str], str]) -> str:
    near = [name for name in difflib.get_close_matches(key, Settings.model_fields, n=1) if name != key]
    if near:
        return f"did you mean {spell(near[0])}?"
    return f"the settings are {', '.join(map(spell, Settings.model_fields))}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
