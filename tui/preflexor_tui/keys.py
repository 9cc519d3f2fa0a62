"""Keys that the user changed: the `[keys]` table of preflexor.toml, checked against the bindings that there are."""

import difflib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from textual.binding import Binding
from textual.keys import Keys, key_to_character

from preflexor_agents.errors import ConfigError

_MODIFIERS = ("ctrl", "shift", "alt", "super", "hyper", "meta")
_NAMED = frozenset(key.value for key in Keys)


class Bound(NamedTuple):
    """What a key may be given to."""

    id: str
    keys: str
    """As in Textual: key names with commas between."""
    description: str

    @property
    def scope(self) -> str:
        """Where it holds: the first part of its id; `app` is everywhere."""
        return self.id.partition(".")[0]


def bound_in(classes: Iterable[type]) -> dict[str, Bound]:
    """The bindings with an id that these apps, screens and widgets declare, by id, in the order they are declared."""
    found: dict[str, Bound] = {}
    for cls in classes:
        for declared in cls.__dict__.get("BINDINGS", ()):
            for binding in Binding.make_bindings([declared]):
                if binding.id:
                    known = found.get(binding.id)
                    keys = f"{known.keys},{binding.key}" if known else binding.key
                    found[binding.id] = Bound(binding.id, keys, binding.description)
    return found


def keymap(wanted: Mapping[str, str], known: Mapping[str, Bound]) -> dict[str, str]:
    """What Textual is told: id -> keys.

    Raises:
        ConfigError: an id or a key is none, or two bindings of one place would have the same key; one line.
    """
    for id_, keys in wanted.items():
        if id_ not in known:
            near = difflib.get_close_matches(id_, known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else "the settings screen lists them (ctrl+p, Settings)"
            raise ConfigError(f"{id_!r} among the [keys] is no binding; {remedy}")
        for key in _split(keys):
            _check(id_, key)
    _refuse_clashes(wanted, known)
    return {id_: ",".join(_split(keys)) for id_, keys in wanted.items()}


def _split(keys: str) -> list[str]:
    return [key.strip() for key in keys.split(",")]


def _check(id_: str, key: str) -> None:
    *modifiers, last = key.split("+") if key not in ("+", "") else [key]
    if all(m in _MODIFIERS for m in modifiers) and last and (last in _NAMED or _is_character(last)):
        return
    raise ConfigError(f"key {key!r} of {id_!r} among the [keys] is none; write it like ctrl+s, f2, escape or g")


def _is_character(name: str) -> bool:
    character = name if len(name) == 1 else key_to_character(name)
    return character is not None and character.isprintable() and name != " "


def _refuse_clashes(wanted: Mapping[str, str], known: Mapping[str, Bound]) -> None:
    held = {id_: set(_split(wanted.get(id_, bound.keys))) for id_, bound in known.items()}
    for id_ in wanted:
        for other, keys in held.items():
            scopes = {known[id_].scope, known[other].scope}
            shared = held[id_] & keys
            if other != id_ and shared and (len(scopes) == 1 or "app" in scopes):
                raise ConfigError(
                    f"key {sorted(shared)[0]!r} of {id_!r} among the [keys] is that of {other!r} already; "
                    "give one of them another key"
                )
