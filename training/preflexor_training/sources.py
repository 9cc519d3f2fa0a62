"""Where a round's rows come from: a slice of a file, or forge with the model in training as the student."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol

from preflexor_agents.backends import open_backend
from preflexor_agents.backends.base import Backend
from preflexor_agents.errors import InputError
from preflexor_training.batches import is_held_out
from preflexor_training.pair_log import Origin, Refresh
from preflexor_training.pairs import Pair, Problem, read_pairs
from preflexor_training.recipes import Recipe
from preflexor_training.schedule import Watch

_MOST_NOTES = 20
_CHUNK_BYTES = 1 << 20


class Student(NamedTuple):
    """The model in training, for a source that asks it."""

    open: Callable[[], Backend]
    adapter_sha256: Callable[[], str]
    """Of its weights as they are."""


class Source(Protocol):
    """Makes the rows of rounds. What it makes depends on recipe, phase, round and student alone."""

    def refresh(self, place: int, round_: int, *, student: Student) -> Refresh:
        """The rows of a round of the phase at `place`; both count from 0.

        Raises:
            PreflexorError: they cannot be had; what was made of them is kept where it can be.
        """

    def prefetch(self, place: int, round_: int) -> None:
        """Begin to make the rows of a round that comes soon, as far as that goes without the student."""

    def close(self) -> None:
        """Let go of models and threads. Idempotent."""


class FileSource:
    """Slices of a file of preferences, in an order drawn from the seed; begun anew when the rows are used up."""

    def __init__(self, recipe: Recipe) -> None:
        """Read the file.

        Raises:
            InputError: it cannot be read, or more of its rows than `damaged_share` are no pairs, or cannot be used by a
            phase that comes after hours of another.
        """
        self._recipe = recipe
        self._path = Path(recipe.data.pairs).expanduser()
        found = list(read_pairs(self._path))
        problems = [item for item in found if isinstance(item, Problem)]
        _check(self._path, problems, total=len(found), share=recipe.data.damaged_share)
        pairs = [item for item in found if isinstance(item, Pair)]
        self._train, self._held = split(pairs, recipe.data.held_out_share)
        if not self._train:
            raise InputError(f"all {len(pairs)} rows of {self._path} are held out; lower data.held_out_share")
        self._train = tuple(sorted(self._train, key=lambda pair: _drawn(recipe.seed, pair.id)))
        _check_later(recipe, self._train, path=self._path)
        notes = tuple(f"{self._path.name} {problem}" for problem in problems[:_MOST_NOTES])
        if len(problems) > _MOST_NOTES:
            notes += (f"and {len(problems) - _MOST_NOTES} more",)
        self._origin = Origin(generator=str(self._path), seed=recipe.seed, unreadable=len(problems), notes=notes)

    def refresh(self, place: int, round_: int, *, student: Student) -> Refresh:
        """The round's slice; the rows held out of the whole file come with the first round of a phase."""
        wanted = self._recipe.phases[place].rows_per_round or len(self._train)
        count = min(wanted, len(self._train))
        start = round_ * count
        first = round_ == 0
        return Refresh(
            phase=place,
            round=round_,
            train=tuple(self._train[n % len(self._train)] for n in range(start, start + count)),
            held_out=self._held if first else (),
            origin=self._origin if first else Origin(generator=str(self._path), seed=self._recipe.seed),
        )

    def prefetch(self, place: int, round_: int) -> None:
        """Nothing to do: the rows are there."""

    def close(self) -> None:
        """Nothing is held."""


def open_source(
    recipe: Recipe, folder: Path, watch: Watch, *, open_model: Callable[[str], Awaitable[Backend]] = open_backend
) -> Source:
    """The source that a recipe names.

    Args:
        recipe: of the run.
        folder: of the run.
        watch: is told how the making of rows goes.
        open_model: opens the models that the recipe names, so that a caller may have some of its own.

    Raises:
        PreflexorError: the file, or a model, cannot be used.
    """
    if recipe.data.pairs:
        return FileSource(recipe)
    from preflexor_training.forge_source import ForgeSource

    return ForgeSource(recipe, folder, watch, open_model=open_model)


def split(pairs: Iterable[Pair], share: float) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Rows to train on, and rows held out."""
    trained: list[Pair] = []
    held: list[Pair] = []
    for pair in pairs:
        (held if is_held_out(pair.id, share) else trained).append(pair)
    return tuple(trained), tuple(held)


def file_sha256(path: Path) -> str:
    """Of a file's bytes; of a folder, of its files by name. Raises InputError: it cannot be read."""
    digest = sha256()
    try:
        for part in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            digest.update(f"{part.relative_to(path)}\n".encode() if path.is_dir() else b"")
            with part.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}; name a file of preference rows by --pairs") from None
    return digest.hexdigest()


def _check(path: Path, problems: list[Problem], *, total: int, share: float) -> None:
    if not total or len(problems) == total:
        first = f"; {problems[0]}" if problems else ""
        raise InputError(f"{path} holds no pairs to train on{first}")
    if len(problems) > share * total:
        raise InputError(
            f"{len(problems)} of {total} rows of {path} are no pairs, more than data.damaged_share {share:g}; "
            f"the first is {problems[0]}"
        )


def _check_later(recipe: Recipe, pairs: Sequence[Pair], *, path: Path) -> None:
    """Say before the first phase begins that a later one will find no thinking before which its mask leaves all out."""
    for phase in recipe.phases[1:]:
        used = pairs[: (phase.rows_per_round or len(pairs)) * phase.rounds]
        without = sum(pair.chosen.thinking is None or pair.rejected.thinking is None for pair in used)
        if recipe.mask(phase).kind == "answer_only" and without > recipe.data.damaged_share * len(used):
            raise InputError(
                f"{without} of {len(used)} rows of {path} do not think on both sides, which phase {phase.name} needs, "
                f"more than data.damaged_share {recipe.data.damaged_share:g}; "
                "make rows that do: preflexor forge run --rejected student_thinking"
            )


def _drawn(seed: int, row_id: str) -> bytes:
    return sha256(f"order:{seed}:{row_id}".encode()).digest()
