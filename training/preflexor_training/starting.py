"""Begins a run or goes on with one: the recipe with paths made absolute, and the check that nothing has changed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preflexor_agents.errors import ConfigError, InputError
from preflexor_agents.run_folder import CONFIG
from preflexor_training import bases, recipes
from preflexor_training.phases import BackendName
from preflexor_training.recipes import Recipe
from preflexor_training.run_writer import STATE, RunOrigin, RunWriter, read_origin, read_versions, versions
from preflexor_training.sources import file_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a run may be given beside its recipe; None leaves what the recipe says."""

    base: str | None = None
    pairs: str | None = None
    store: str | None = None
    teacher: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that is ready to go on."""

    recipe: Recipe
    backend: BackendName
    base: Path
    """Folder of the model that the first phase starts from."""
    writer: RunWriter
    notes: tuple[str, ...] = ()
    """What is different from when it began and does not stop it."""


def resolved(recipe: Recipe, given: Given) -> Recipe:
    """The recipe with what was given worked in, and paths that do not depend on the working directory.

    Raises:
        ConfigError: there is nothing to take rows from.
        InputError: the file of rows does not exist.
    """
    data = dict(recipe.data.model_dump(exclude_none=True))
    values: dict[str, Any] = {"data": data}
    if given.pairs is not None:
        data["pairs"] = given.pairs
        values["forge"] = None
    if given.store is not None:
        data["store"] = given.store
    if given.teacher is not None:
        data["teacher"] = given.teacher
    for key in ("pairs", "store"):
        if data[key]:
            path = Path(data[key]).expanduser().absolute()
            if not path.exists():
                raise InputError(f"--{key} {data[key]} does not exist; name a file that does")
            data[key] = str(path)
    base = given.base or recipe.base
    if base != bases.NANO and Path(base).expanduser().is_dir():
        base = str(Path(base).expanduser().absolute())
    made = recipes.with_values(recipe, {**values, "base": base})
    if not made.data.pairs and made.forge is None:
        raise ConfigError("the recipe has neither data.pairs nor a [forge] table; name a file of rows by --pairs")
    knows_it = not made.data.store or (made.forge is not None and made.forge.questions is not None)
    if made.forge is not None and (made.data.teacher or bases.NANO) == bases.NANO and not knows_it:
        raise ConfigError("the teacher nano knows only the bundled library; name one that can read by --teacher")
    return made


def begin(recipe: Recipe, out: Path, backend: BackendName) -> Run:
    """Make a run's folder.

    Raises:
        InputError: the folder is in use, or base or rows cannot be had.
    """
    base = bases.resolve(recipe.base)
    origin = _origin(recipe, backend, base)
    return Run(recipe=recipe, backend=backend, base=base, writer=RunWriter.begin(out, recipes.dump(recipe), origin))


def resume(recipe: Recipe, out: Path, backend: BackendName | None) -> Run:
    """Go on with the run in a folder; a run that was killed before it had begun is begun.

    Args:
        recipe: as it is given now.
        out: the run's folder.
        backend: None takes the one that the run began with.

    Raises:
        InputError: recipe, backend, base or rows are not those that it began with; names the difference.
    """
    if not (out / STATE).exists():
        raise InputError(f"{out} holds no run to resume; begin one without --resume")
    before = recipes.load(out / CONFIG)
    was = read_origin(out)
    backend = backend or ("mlx" if was.backend == "mlx" else "trl")
    change = next(differences(before.model_dump(), recipe.model_dump()), None)
    if change:
        raise InputError(f"{out} was begun with {change}; go on with its own recipe, or begin another run by --out")
    base = bases.resolve(recipe.base)
    now = _origin(recipe, backend, base)
    for key, name in (("backend", "--backend"), ("base_sha256", "base"), ("data_sha256", "rows")):
        if getattr(was, key) != getattr(now, key):
            shown = f": {was.backend} then, {now.backend} now" if key == "backend" else ""
            raise InputError(
                f"the {name} of {out} changed since it was begun{shown}; put it back, or begin another run"
            )
    moved = differences(read_versions(out), versions())
    notes = tuple(f"{change}: the last digits may differ from an uninterrupted run" for change in moved)
    return Run(recipe=recipe, backend=backend, base=base, writer=RunWriter.resume(out), notes=notes)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """What changed, as `phases.0.rounds = 2, now 3`."""
    for key in {**before, **now}:
        a, b = before.get(key), now.get(key)
        where = f"{place}{key}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from differences(a, b, f"{where}.")
        elif isinstance(a, tuple | list) and isinstance(b, tuple | list) and len(a) == len(b):
            yield from differences(dict(map(_numbered, enumerate(a))), dict(map(_numbered, enumerate(b))), f"{where}.")
        elif a != b:
            yield f"{where} = {_short(a)}, now {_short(b)}"


def _numbered(item: tuple[int, Any]) -> tuple[str, Any]:
    return str(item[0]), item[1]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _origin(recipe: Recipe, backend: BackendName, base: Path) -> RunOrigin:
    if recipe.data.pairs:
        data, data_sha256 = recipe.data.pairs, file_sha256(Path(recipe.data.pairs))
    else:
        store = recipe.data.store or "the bundled library"
        data, data_sha256 = f"{recipe.data.teacher or 'nano'} on {store}", ""
    return RunOrigin(
        backend=backend, base=recipe.base, base_sha256=bases.fingerprint(base), data=data, data_sha256=data_sha256
    )
