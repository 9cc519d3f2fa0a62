"""Writes settings back into preflexor.toml: comments, order and everything else in the file stay as they are."""

import os
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from preflexor_agents.errors import ConfigError
from preflexor_agents.settings import Given, checked, refuse_unknown

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

Value = str | int | float | Mapping[str, str]


def save(file: Path, changes: Mapping[str, Value | None]) -> None:
    """Set the given fields in the file, take out those that are None; the file is made where there is none.

    The file is replaced at once or not at all. A link is followed, so that the file it names is the one that changes.

    Raises:
        ConfigError: a value is not what its key takes, or the file cannot be read or written; it is as it was.
    """
    new = written(_text(file), changes, file=file)
    data = tomllib.loads(new)
    refuse_unknown(data, file)
    checked({key: Given(value, f"{key} in {file}") for key, value in data.items()})
    _replace(Path(os.path.realpath(file)), new)


def written(text: str, changes: Mapping[str, Value | None], *, file: Path) -> str:
    """The text of a settings file with the changes in it; `file` names it in errors."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
    except (TOMLKitError, RecursionError) as e:
        raise ConfigError(f"{file} is not TOML: {' '.join(str(e).split())}; correct that line") from None
    for key, value in changes.items():
        if value is None:
            document.pop(key, None)
        elif isinstance(value, Mapping):
            _set_table(document, key, value)
        else:
            document[key] = value
    return tomlkit.dumps(document)


def _set_table(document: "TOMLDocument", key: str, values: Mapping[str, str]) -> None:
    """Make a table hold these values, keeping the lines that stay right."""
    import tomlkit

    table = document.get(key)
    if not isinstance(table, dict):
        document[key] = table = tomlkit.table()
    for name in [name for name in table if name not in values]:
        del table[name]
    for name, value in values.items():
        if table.get(name) != value:
            table[name] = value


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return ""
    except OSError as e:
        raise ConfigError(f"{file} cannot be read: {e.strerror}; make it readable or remove it") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text; save it as UTF-8") from None


def _replace(file: Path, text: str) -> None:
    """Write beside the file and rename; the file's own permissions stay."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    except OSError as e:
        raise _unwritable(file, e) from None
    partial = Path(name)
    try:
        with open(handle, "wb") as out:
            out.write(text.encode("utf-8"))
        partial.chmod(file.stat().st_mode & 0o777 if file.exists() else 0o644)
        partial.replace(file)
    except OSError as e:
        raise _unwritable(file, e) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _unwritable(file: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{file} cannot be written: {error.strerror}; it is as it was")
