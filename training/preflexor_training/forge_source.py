"""Rows made on the fly: a forge run for each round, with the model in training as the student.

The teacher's part of the next round is made while this one is trained on. It needs no student, and nine calls of ten
are the teacher's; the student's answers follow when its training is done, so that no row is an older student's.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from preflexor_agents.backends import local_file, open_backend
from preflexor_agents.backends.base import Backend
from preflexor_agents.errors import InputError, PreflexorError
from preflexor_agents.store import Store, open_bundled
from preflexor_training.forge.calls import Model, Spending
from preflexor_training.forge.folder import file_mark
from preflexor_training.forge.records import Row
from preflexor_training.forge.run import Work, forge, forge_ahead
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Who
from preflexor_training.forge.table import Tally
from preflexor_training.pair_log import Origin, Refresh
from preflexor_training.recipes import Recipe
from preflexor_training.schedule import Watch
from preflexor_training.sources import Student, split

_PHASE_STRIDE = 7919
"""Between the seeds of phases, so that they draw other contexts."""
T = TypeVar("T")


class ForgeSource:
    """A `sources.Source`. Its models live on a thread of their own as long as the run."""

    def __init__(self, recipe: Recipe, folder: Path, watch: Watch) -> None:
        """Open the teacher, the judge and the store.

        Args:
            recipe: of the run.
            folder: of the run; each round's forge run is kept below `forge/` in it.
            watch: is told how the making goes.

        Raises:
            PreflexorError: a model or the store cannot be used.
        """
        assert recipe.forge is not None
        self._recipe, self._settings = recipe, recipe.forge
        self._folder, self._watch = folder / "forge", watch
        self._ahead: asyncio.Task[None] | None = None
        self._open: dict[str, Backend] = {}
        self._store: Store | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="forge", daemon=True)
        self._thread.start()
        try:
            self._teacher = recipe.data.teacher or "nano"
            self._judge = recipe.data.judge or self._teacher
            self._marks = {spec: file_mark(file) for spec in self._specs() if (file := local_file(spec)) is not None}
            self._wait(self._open_all())
        except BaseException:
            self.close()
            raise

    def refresh(self, place: int, round_: int, *, student: Student) -> Refresh:
        """The rows that forge kept; what it dropped is in its log, and counted in the notes.

        Raises:
            InputError: it kept none.
            PreflexorError: a model is gone; the rows that are done are kept.
        """
        self._wait(self._end_ahead())
        rows: list[Row] = []
        work = self._work(place, round_)
        adapter = student.adapter_sha256()
        backend = student.open()
        models = {**work.models, "student": Model(backend=backend, adapter_sha256=adapter)}
        report = self._wait(self._forge(replace(work, models=models), backend, rows, round_))
        kept = [row.pair() for row in rows if row.state == "kept"]
        fallen = Counter(row.reason.partition(":")[0] for row in rows if row.state != "kept")
        told = ", ".join(f"{count} {kind}" for kind, count in fallen.most_common())
        if not kept:
            raise InputError(
                f"forge kept none of {len(rows)} rows ({told}); preflexor forge show {work.folder} shows why"
            )
        trained, held = split(kept, self._recipe.data.held_out_share)
        return Refresh(
            phase=place,
            round=round_,
            train=trained,
            held_out=held,
            origin=Origin(
                generator=self._teacher,
                adapter_sha256=adapter,
                seed=work.settings.seed,
                unreadable=fallen.total(),
                notes=(*((f"forge left out {told}",) if told else ()), *report),
            ),
        )

    def prefetch(self, place: int, round_: int) -> None:
        """Begin to make the teacher's part of a round."""
        self._wait(self._begin_ahead(self._work(place, round_)))

    def close(self) -> None:
        """Let models, store and thread go. Idempotent."""
        if self._loop.is_closed():
            return
        self._wait(self._close_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _specs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self._teacher, self._judge)))

    def _work(self, place: int, round_: int) -> Work:
        phase = self._recipe.phases[place]
        assert self._store is not None
        settings = ForgeSettings.model_validate(
            {
                **self._settings.model_dump(),
                "rows": phase.rows_per_round or self._settings.rows,
                "phase": 1 if phase.loss == "orpo" else 2,
                "round": round_,
                "seed": (self._recipe.seed + place * _PHASE_STRIDE) % 2**31,
                "max_length_tok": self._recipe.data.max_length_tok,
            }
        )
        specs: dict[Who, str] = {"teacher": self._teacher, "judge": self._judge}
        return Work(
            settings=settings,
            folder=self._folder / f"{phase.name}-{round_ + 1:03d}",
            store=self._store,
            models={who: Model(backend=self._open[spec]) for who, spec in specs.items()},
            file_marks={who: self._marks[spec] for who, spec in specs.items() if spec in self._marks},
        )

    async def _forge(self, work: Work, student: Backend, rows: list[Row], round_: int) -> tuple[str, ...]:
        def watch(tally: Tally, spending: Spending) -> None:
            note = f"{tally.kept} kept, {spending.usage.generated} tokens written"
            self._watch.show(f"making the rows of round {round_ + 1}", done=tally.done, total=tally.total, note=note)

        try:
            return (await forge(work, watch=watch, take=rows.append)).notes
        finally:
            await student.aclose()

    async def _open_all(self) -> None:
        for spec in self._specs():
            self._open[spec] = await open_backend(spec)
        path = self._recipe.data.store
        self._store = Store.open(Path(path), create=False) if path else open_bundled().store

    async def _close_all(self) -> None:
        await self._end_ahead()
        for backend in self._open.values():
            await backend.aclose()
        self._open.clear()
        if self._store is not None:
            self._store.close()
            self._store = None

    async def _begin_ahead(self, work: Work) -> None:
        await self._end_ahead()
        self._ahead = asyncio.create_task(forge_ahead(work))

    async def _end_ahead(self) -> None:
        """End what is made ahead; its replies are kept.

        A model that is gone is met again, and told about, when the rows are made.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return
        ahead.cancel()
        (ended,) = await asyncio.gather(ahead, return_exceptions=True)
        if isinstance(ended, Exception) and not isinstance(ended, PreflexorError):
            raise ended

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the models' thread. Ctrl-C cancels it, and waits until it has ended."""
        tasks: list[asyncio.Task[Any] | None] = []

        async def named() -> T:
            tasks.append(asyncio.current_task())
            return await work

        future = asyncio.run_coroutine_threadsafe(named(), self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            for task in tasks:
                if task is not None:
                    self._loop.call_soon_threadsafe(task.cancel)
            wait([future])
            raise
