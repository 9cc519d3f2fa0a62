"""The bundled model from seed to GGUF: base, Phase I and Phase II by the pipeline that users have, then measured.

Every stage leaves its result in the run's folder and is skipped where that is there, so the same command goes on after
any kill.

base/            training from scratch; its model in `model/`
questions.jsonl  what the rows are made of: questions that no held-out one is like
library.db       the store of the notes, from which the passages come
phases/          a run of `preflexor train`: rows, curves, samples, and of each phase the merged model
NAME.gguf        base and each phase, converted and proven equal
NAME.json        what each answers right of the held-out questions
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from preflexor_agents.backends import open_backend
from preflexor_agents.backends.base import Backend
from preflexor_agents.errors import ConfigError, InputError, PreflexorError, TrainingError
from preflexor_agents.evaluation.tasks import read_tasks
from preflexor_agents.store import Store
from preflexor_training import bases, recipes, rounds, starting
from preflexor_training.nano import taught, teacher
from preflexor_training.nano.questions import Question
from preflexor_training.nano.recipe import load_recipe
from preflexor_training.phases import MERGED, opener
from preflexor_training.recipes import Recipe
from preflexor_training.run_writer import STATE
from preflexor_training.schedule import Watch
from preflexor_training.sources import open_source

BASE, STORE = "base", "library.db"
MOST_BYTES = 16_000_000
"""Of the bundled model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be made."""

    out: Path
    """Folder of everything."""
    phases: Path
    """Recipe of the two phases."""
    base: str = ""
    """What to start from: a GGUF file, a folder, or `nano`; empty trains a base from scratch."""
    base_recipe: Path
    """Recipe of that training."""
    changes: tuple[str, ...] = ()
    """Of the recipe of the phases, `key=value` each."""
    device: str = "cpu"
    """Of the training from scratch; the phases take the fastest device there is."""
    limit: int = 60
    """Held-out questions of each column to count with; 0 is all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A model of the run."""

    name: str
    gguf: Path
    columns: Mapping[str, Mapping[str, float]]
    """What it answers right, as `columns.measure` counts it."""

    def line(self) -> str:
        """Its name and what it answers right."""
        return f"{self.name}: {', '.join(f'{name} {_told(share)}' for name, share in self.columns.items())}"


def make(order: Order, *, watch: Watch) -> tuple[Made, ...]:
    """Make what is not there yet.

    Returns:
        Base and phases in order; the last one is the model.

    Raises:
        InputError: recipe, base or folder are not those that the run began with.
        TrainingError: training failed, the disk is full, or the model is larger than it may be.
        KeyboardInterrupt: it was stopped; what is done is kept.
    """
    try:
        order.out.mkdir(parents=True, exist_ok=True)
        return _make(order, watch)
    except OSError as e:
        where = e.filename or order.out
        raise TrainingError(f"{where}: {e.strerror or e}; see to it, then give the same command again") from None


def _make(order: Order, watch: Watch) -> tuple[Made, ...]:
    _check(recipes.load(order.phases, changes=order.changes))
    base = _base(order)
    recipe, drawn = _recipe(order, base)
    _phases(order, recipe, drawn, watch)
    made = []
    for name, folder in [(BASE, base), *((p.name, order.out / "phases" / p.name / MERGED) for p in recipe.phases)]:
        gguf = _gguf(order, name, folder, watch)
        made.append(Made(name=name, gguf=gguf, columns=_measured(order, gguf, watch)))
        watch.tell(made[-1].line())
    return tuple(made)


def _check(recipe: Recipe) -> None:
    """Before the base is trained for hours: whether the recipe is one of phases with rows made on the fly."""
    if recipe.data.pairs or recipe.forge is None:
        raise ConfigError(
            "the recipe of the phases names data.pairs or has no [forge] table; its rows are made on the fly"
        )


def _base(order: Order) -> Path:
    """The folder of the base."""
    if order.base:
        given = Path(order.base).expanduser()
        return _unpacked(order, given) if given.suffix == ".gguf" else bases.resolve(order.base)
    from preflexor_training.nano.train import State, train

    recipe, out = load_recipe(order.base_recipe), order.out / BASE
    state = out / "state.json"
    begun = state.exists()
    if begun and State(**json.loads(state.read_text(encoding="utf-8"))).progress(recipe) >= 1:
        return out / "model"
    return train(recipe, out=out, device=order.device, resume=begun)


def _unpacked(order: Order, gguf: Path) -> Path:
    """A GGUF file as a folder of the run, once for each file."""
    if not gguf.is_file():
        raise InputError(f"--base {gguf} does not exist; give a GGUF file, a folder or nano")
    return bases.unpack(gguf, order.out / f"unpacked-{sha256(gguf.read_bytes()).hexdigest()[:16]}")


def _recipe(order: Order, base: Path) -> tuple[Recipe, list[Question]]:
    """The recipe of the phases, with what this run puts into it, and its questions."""
    questions, store = order.out / "questions.jsonl", order.out / STORE
    own = (
        f"forge.questions={json.dumps(str(questions.absolute()))}",
        f"data.store={json.dumps(str(store.absolute()))}",
    )
    recipe = recipes.load(order.phases, changes=[*order.changes, *own])
    notes = as_file(files("preflexor_agents") / "data" / "library")
    with closing(Store.open(store, embedder="hash")) as opened, notes as folder:
        opened.ingest([folder])
    drawn = _questions(recipe)
    if not (order.out / "phases" / STATE).exists():
        taught.write_questions(questions, drawn)
    elif read_tasks(questions) != taught.tasks(drawn):
        raise InputError(
            f"{questions} holds other questions than are drawn now; put that back, or begin another run by --out"
        )
    return starting.resolved(recipe, starting.Given(base=str(base))), drawn


def _questions(recipe: Recipe) -> list[Question]:
    """As many as the phases use rows, so that none is asked twice."""
    assert recipe.forge is not None
    rows = [p.rows_per_round or recipe.forge.rows for p in recipe.phases]
    used = sum(p.rounds * r for p, r in zip(recipe.phases, rows, strict=True))
    return taught.draw_questions(used + len(rows) * max(rows), seed=recipe.seed)


def _phases(order: Order, recipe: Recipe, drawn: list[Question], watch: Watch) -> None:
    out = order.out / "phases"
    run = (starting.resume if (out / STATE).exists() else starting.begin)(recipe, out, "trl")
    reader = teacher.LibraryTeacher(drawn)

    async def open_model(spec: str) -> Backend:
        return reader if spec == teacher.SPEC else await open_backend(spec)

    with closing(run.writer), closing(open_source(recipe, out, watch, open_model=open_model)) as source:
        try:
            rounds.train(rounds.Work(run, source, opener(run.backend), watch, lambda _: None))
        except PreflexorError:
            run.writer.discard()  # nothing but a run that came to nothing
            raise


def _gguf(order: Order, name: str, folder: Path, watch: Watch) -> Path:
    """The model as a GGUF file that is proven to be the same, see `preflexor_quantize`."""
    out = order.out / f"{name}.gguf"
    if not out.exists() and name == BASE and order.base.endswith(".gguf"):
        shutil.copyfile(Path(order.base).expanduser(), partial := out.with_name(f"{out.name}.partial"))
        partial.replace(out)
    elif not out.exists():
        watch.tell(f"converting {folder} to {out}")
        _run("-m", "preflexor_quantize", str(folder), str(out), "--dtype", "f16")
    if out.stat().st_size > MOST_BYTES:
        raise TrainingError(f"{out} has {out.stat().st_size} bytes, more than {MOST_BYTES}; make the model smaller")
    return out


def _measured(order: Order, gguf: Path, watch: Watch) -> Mapping[str, Mapping[str, float]]:
    """What the file answers right; counted once."""
    from preflexor_training.nano.columns import measure

    out = gguf.with_suffix(".json")
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    if found.get("limit") != order.limit or found["sha256"] != sha256(gguf.read_bytes()).hexdigest():
        with closing(Store.open(order.out / STORE)) as store:
            found = measure(gguf, store, limit=order.limit, watch=watch)
        partial = out.with_name(f"{out.name}.partial")
        partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        partial.replace(out)
    columns: Mapping[str, Mapping[str, float]] = found["columns"]
    return columns


def _run(*arguments: str) -> None:
    """A module of the project that this one does not import. Raises TrainingError with its last words."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrainingError((done.stderr.strip().splitlines() or ["it gave no reason"])[-1].removeprefix("error: "))


def _told(share: Mapping[str, float]) -> str:
    return f"{share['right']} of {share['of']} ({share['low']:.0%} to {share['high']:.0%})"
