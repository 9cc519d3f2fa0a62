"""The folder of a forge run: what the run is, so that only the same run goes on in it.

settings.toml   the settings, complete; `preflexor forge run --settings` reads it
run.toml        the models, the documents, and what else decides the rows
pairs.jsonl     the rows, in order of their numbers
calls*.jsonl    what the models replied; may be removed once the run is at its end
"""

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from preflexor_agents.errors import DiskError, InputError
from preflexor_agents.packs import Pack
from preflexor_agents.preference_rows import LOG
from preflexor_agents.store import Store, picking
from preflexor_training import toml_text
from preflexor_training.forge.cache import sha256_of
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Who

SETTINGS, RUN = "settings.toml", "run.toml"
_ENDS_BYTES = 1 << 20
M = TypeVar("M", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelMark(_Strict):
    """Which model had a part."""

    spec: str
    adapter_sha256: str = ""
    """Of the adapter it had; empty without one."""
    file_mark: str = ""
    """Of a GGUF file: its size and the SHA-256 of its two ends."""


class Origin(_Strict):
    """What decides the rows of a run beside its settings."""

    schema_version: int = 1
    documents_sha256: str
    """Of all documents of the store and how they are cut."""
    pack_sha256: str
    questions_sha256: str = ""
    """Of the file of questions, if there is one."""
    teacher: ModelMark
    student: ModelMark
    judge: ModelMark


def claim(folder: Path, settings: ForgeSettings, origin: Origin) -> str:
    """Make the folder a run's own, or see that it is this run's already; returns the run's id.

    More rows may be asked for than the first time.

    Raises:
        InputError: another run is in the folder, or it cannot be used; names the difference.
        DiskError: the disk is full.
    """
    known = _known(folder)
    if known is None:
        if (folder / LOG).exists():
            raise InputError(f"{folder} has a {LOG} and no {SETTINGS}, so it is no forge run; name another folder")
        _write(folder, SETTINGS, settings)
        _write(folder, RUN, origin)
        return run_id(settings, origin)
    before, made_by = known
    for file, old, new in ((SETTINGS, _facts(before), _facts(settings)), (RUN, made_by, origin)):
        difference = next(_differences(_plain(old), _plain(new)), None)
        if difference:
            raise InputError(
                f"{folder} holds a run with {difference} ({file}); run it with what it began with, "
                "or name another folder by --out"
            )
    if settings.rows > before.rows:
        _write(folder, SETTINGS, settings)
    return run_id(settings, origin)


def run_id(settings: ForgeSettings, origin: Origin) -> str:
    """SHA-256 of what decides the rows."""
    return sha256_of([_plain(_facts(settings)), _plain(origin)])


def origin_of(settings: ForgeSettings, store: Store, pack: Pack, models: Mapping[Who, ModelMark]) -> Origin:
    """What decides the rows, of things as they are. Raises InputError, StoreError: something cannot be read."""
    documents = sorted([key.document_sha256, key.start] for key in picking.chunk_keys(store.path))
    questions = _read(settings.questions) if settings.questions else b""
    return Origin(
        documents_sha256=sha256_of(documents),
        pack_sha256=sha256_of(pack.model_dump(mode="json")),
        questions_sha256=hashlib.sha256(questions).hexdigest() if questions else "",
        teacher=models["teacher"],
        student=models["student"],
        judge=models["judge"],
    )


def file_mark(path: Path) -> str:
    """Tells a model's file from another that stands in its place later, without reading gigabytes.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_ENDS_BYTES)
            size = file.seek(0, 2)
            file.seek(max(0, size - _ENDS_BYTES))
            return f"{size}-{hashlib.sha256(start + file.read()).hexdigest()}"
    except OSError as e:
        raise InputError(f"model {path} cannot be read: {e.strerror}; name a GGUF file") from None


def read_settings(path: Path) -> ForgeSettings:
    """The settings in a TOML file. Raises InputError: names the key, the value and the remedy."""
    return _parsed(path, ForgeSettings)


def _known(folder: Path) -> tuple[ForgeSettings, Origin] | None:
    """The run in a folder. One that was killed before it had both its files has done nothing yet."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / RUN).exists() or not (folder / SETTINGS).exists():
            return None
    except OSError as e:
        raise InputError(f"{folder} cannot be used: {e.strerror}; name a folder that can be written by --out") from None
    return _parsed(folder / SETTINGS, ForgeSettings), _parsed(folder / RUN, Origin)


def _facts(settings: ForgeSettings) -> ForgeSettings:
    """What must not change: not where the questions lie, and not the number of rows unless refreshes count by it."""
    same: dict[str, Any] = {"questions": Path("given")} if settings.questions else {}
    return settings.model_copy(update={"rows": 1, **same} if settings.round == 0 else same)


def _plain(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], place: str = "") -> Iterator[str]:
    for key, value in new.items():
        was = old[key]
        if isinstance(value, dict) and isinstance(was, dict):
            yield from _differences(was, value, f"{place}{key}.")
        elif value != was:
            yield f"{place}{key} = {_short(was)}, and this one has {_short(value)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _parsed(path: Path, kind: type[M]) -> M:
    try:
        return kind.model_validate(tomllib.loads(_read(path).decode("utf-8-sig")))
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise InputError(f"{path} is not TOML: {' '.join(str(e).split())}; correct that line") from None
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {key} is {_short(first['input'])}; {first['msg']}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}") from None


def _write(folder: Path, name: str, model: BaseModel) -> None:
    """At once or not at all."""
    partial = folder / f"{name}.partial"
    try:
        partial.write_text(toml_text.written(model), encoding="utf-8")
        partial.replace(folder / name)
    except OSError as e:
        raise DiskError(f"{folder / name} could not be written: {e.strerror}; free some space and try again") from None
