"""Asks what the table of results is made of, and keeps each answer: nothing is asked twice, whenever it is stopped."""

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from results_plan import PARTS, Budget, Entry, Job, Key, Sizes, Suite, at_equal_budget, entries, is_counted, jobs, only

from preflexor_agents import prompts
from preflexor_agents.backends.model_cache import MODELS
from preflexor_agents.cli.progress import counting
from preflexor_agents.errors import InputError
from preflexor_agents.evaluation.folder import EvalFolder
from preflexor_agents.evaluation.results import Result
from preflexor_agents.evaluation.running import evaluate
from preflexor_agents.evaluation.systems import BARE, System, system
from preflexor_agents.prompts import Grounds
from preflexor_agents.store import Store

ASSUMED_S: Mapping[str, float] = {BARE: 0.3, "think": 0.45, "best-of": 1.5}
ASSUMED_LOOP_S = 3.0
"""Seconds of a question where none was measured: nano's, on one core of a server."""
SEEN = 20
"""So many questions of each column stand for all when it is told whether the model would be shown the same prompts."""


class Model(NamedTuple):
    """A GGUF file, known by what is in it."""

    name: str
    path: Path
    sha256: str


def model_of(name: str, path: Path) -> Model:
    """Raises InputError: the file cannot be read."""
    try:
        with path.open("rb") as file:
            return Model(name, path, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; name a GGUF file for {name}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How the questions are asked."""

    columns: tuple[str, ...] = ()
    """All if there are none; answers to the others stay where they are."""
    sizes: Sizes
    seeds: tuple[int, ...]
    slots: int
    budget_tok: int | None
    """A limit for the equal budgets; None takes the mean of the dearest row."""


class Left(NamedTuple):
    """What is still to be asked."""

    answers: int
    of: int
    seconds: float


class Bench:
    """Results of some models, in a folder for each; the same file under two names is asked once."""

    def __init__(self, work: Path, models: Sequence[Model], suite: Suite, store: Store, how: Asking) -> None:
        """Open or begin the folders; close it.

        Raises:
            InputError: a folder cannot be used, or another process writes into it.
        """
        self.models = {model.name: model for model in models}
        self.suite, self.how = only(suite, how.columns), how
        self.listed = entries(self.models)
        self._store = store
        self._folders: dict[str, EvalFolder] = {}
        self._work, self._tasks = work, suite.tasks()
        self._shown = shown(suite, store, {entry.protocol for entry in self.listed})
        self._open = ExitStack()
        try:
            for model in models:
                self._begin(model, self.listed)
        except BaseException:
            self._open.close()
            raise

    def _begin(self, model: Model, listed: Sequence[Entry]) -> None:
        if model.sha256 in self._folders:
            return
        names = {entry.protocol for entry in listed if self.models[entry.model].sha256 == model.sha256}
        systems = [replace(_system(name, model), model=model.sha256) for name in sorted(names)]
        path = self._work / f"{model.sha256[:12]}-{self._shown[:12]}"
        folder = EvalFolder(path, self._tasks, systems, library=self._shown)
        self._folders[model.sha256] = self._open.enter_context(folder)

    def results(self, entry: Entry, *, rounds: int | None = None) -> list[Result]:
        """What a row was answered so far, of what it is to be asked; under its label, and cut after its rounds."""
        all_, rounds = self._of(entry), rounds or entry.rounds
        found = [all_[key] for key in self._wanted(entry) if key in all_]
        if rounds is not None:
            found = [after(result, rounds) for result in found]
        return [replace(result, system=entry.label) for result in found]

    def budget(self) -> Budget | None:
        """What is equal and what it is spent on; None as long as the pilot is not through."""
        for entry in self.listed:
            if is_counted(entry) and not self._of(entry).keys() >= set(self._wanted(entry, part=0)):
                return None
        return at_equal_budget(self.listed, self._tokens, given=self.how.budget_tok)

    def _tokens(self, entry: Entry) -> float:
        """Mean of what was written for the pilot's questions, and for no others: so it stays what it was."""
        pilot = set(self._wanted(entry, part=0))
        found = [result for result in self.results(entry) if (result.task, result.seed) in pilot]
        return sum(result.tokens_generated for result in found) / len(found)

    def _of(self, entry: Entry) -> dict[Key, Result]:
        folder = self._folders[self.models[entry.model].sha256]
        return {(r.task, r.seed): r for r in folder.results.values() if r.system == entry.protocol}

    def _wanted(self, entry: Entry, *, part: int | None = None) -> list[Key]:
        return [key for job in self._jobs(entry, part=part) for key in job.asked()]

    def _jobs(self, entry: Entry, *, part: int | None = None) -> Iterator[Job]:
        return jobs(entry, self.suite, self.how.sizes, self.how.seeds, part=part)

    def left(self, listed: Iterable[Entry], *, part: int | None = None) -> Left:
        """How much is to be asked of the rows, and about how long it takes."""
        missing: dict[tuple[str, str], set[Key]] = {}
        total: set[tuple[str, str, Key]] = set()
        pace: dict[tuple[str, str], float] = {}
        for entry in listed:
            place = self.models[entry.model].sha256, entry.protocol
            all_ = self._of(entry)
            done = {key for key, result in all_.items() if not result.error}
            wanted = self._wanted(entry, part=part)
            total |= {(*place, key) for key in wanted}
            missing.setdefault(place, set()).update(key for key in wanted if key not in done)
            pace[place] = _pace(entry.protocol, [all_[key].seconds for key in done])
        seconds = sum(len(keys) * pace[place] for place, keys in missing.items()) / self.how.slots
        return Left(sum(map(len, missing.values())), len(total), seconds)

    def all_entries(self) -> list[Entry]:
        """The rows, with those at equal budgets as soon as they are known."""
        budget = self.budget()
        return [*self.listed, *(budget.entries if budget else ())]

    async def ask(self, *, until: float, say: Callable[[str], None]) -> bool:
        """Ask what is missing, part by part, until a moment of `time.monotonic`; returns whether everything is there.

        Raises:
            ModelError: a model cannot be opened.
            DiskError: the disk is full; what was answered is kept.
        """
        for part in (0, *range(PARTS + 1)):  # what the pilot decides has a pilot of its own
            listed = self.all_entries()
            for model in self.models.values():
                mine = [entry for entry in listed if entry.model == model.name]
                left = self.left(mine, part=part)
                if not left.answers:
                    continue
                say(f"part {part} of {PARTS}, {model.name}: {left.answers} answers, {minutes(left.seconds)}")
                if not await self._ask(model, mine, part=part, count=left.answers, until=until):
                    return False
        return self.left(self.all_entries()).answers == 0

    async def _ask(self, model: Model, mine: Sequence[Entry], *, part: int, count: int, until: float) -> bool:
        """Returns whether there was time for all."""
        ended = 0
        folder = self._folders[model.sha256]
        with counting(count, "answers") as tell:
            for job in (job for entry in mine for job in self._jobs(entry, part=part)):
                MODELS.free_idle()  # no row may find in the cache what another one has asked
                answers = evaluate(
                    job.tasks,
                    [_system(job.entry.protocol, model)],
                    seeds=job.seeds,
                    library=self._store if job.with_library else None,
                    slots=self.how.slots,
                    done=folder.done(),
                )
                async with aclosing(answers):
                    async for result in answers:
                        folder.add(result)
                        ended += 1
                        tell(ended)
                        if time.monotonic() >= until:
                            return False
        return True

    def close(self) -> None:
        """Let the folders go. Idempotent."""
        self._open.close()


def shown(suite: Suite, store: Store, protocols: Collection[str]) -> str:
    """What tells whether models would be shown the same: SHA-256 of questions, passages, prompts and settings."""
    whole = hashlib.sha256()
    for protocol in sorted(protocols):
        whole.update(repr(system(f"nano::{protocol}").config).encode())
    for column, tasks in suite.columns.items():
        for task in tasks[:SEEN]:
            found = () if column in suite.puzzles else tuple(store.search(task.question))
            grounds = Grounds(question=task.prompt(), passages=found)
            whole.update(repr((task, [m.content for m in prompts.draft(grounds)])).encode())
    return whole.hexdigest()


def after(result: Result, rounds: int) -> Result:
    """A run with the gate or without it, without merging, as if it had ended after so many rounds.

    The calls of a round depend on its number and on what came before, not on how many rounds were asked for.
    """
    have = min(rounds, len(result.rounds_right), len(result.rounds_seconds))
    if not have or have == len(result.rounds_right):
        return result
    return replace(
        result,
        answer="",
        right=result.rounds_right[have - 1],
        rounds_right=result.rounds_right[:have],
        proposed_right=result.proposed_right[: have - 1],
        accepted=result.accepted[: have - 1],
        changed=result.changed[: have - 1],
        claims=0,
        supported=0,
        tokens_generated=result.rounds_tokens[have - 1],
        calls=result.rounds_calls[have - 1],
        seconds=result.rounds_seconds[have - 1],
    )


def minutes(seconds: float) -> str:
    """`about 3 min`."""
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"


def _system(protocol: str, model: Model) -> System:
    return replace(system(f"nano::{protocol}"), name=protocol, model=f"gguf:{model.path}")


def _pace(protocol: str, seconds: Collection[float]) -> float:
    if seconds:
        return sum(seconds) / len(seconds)
    return ASSUMED_S.get(protocol.partition(":")[0], ASSUMED_LOOP_S)
