"""Rows made on the fly: a forge run for each round, with the model in training as the student.

The teacher's part of the next round is made while this one is trained on. It needs no student, and nine calls of ten
are the teacher's; the student's answers follow when its training is done, so that no row is an older student's.
"""

import math
from collections import Counter
from pathlib import Path

from preflexor_agents.backends import open_backend
from preflexor_agents.backends.base import Backend
from preflexor_agents.errors import InputError
from preflexor_training.forge.opening import Open, Order
from preflexor_training.forge.prefetch import Prefetch
from preflexor_training.forge.records import Row
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.table import kind_of
from preflexor_training.pair_log import Origin, Refresh
from preflexor_training.recipes import Recipe
from preflexor_training.run_writer import FORGE
from preflexor_training.schedule import Watch
from preflexor_training.sources import Student, split

STUDENT = "student"
"""SPEC of the model in training; its weights are told by their hash, not by where they lie."""
NANO = "nano"
NANO_QUESTIONS, NANO_MIX = 800, {"single": 30, "numeric": 30, "comparison": 40}
"""What nano answers well enough to teach."""
_PHASE_STRIDE = 7919
"""Between the seeds of phases, so that they draw other contexts."""


class ForgeSource:
    """A `sources.Source`."""

    def __init__(self, recipe: Recipe, folder: Path, watch: Watch, *, open_model: Open = open_backend) -> None:
        """Begin nothing yet.

        Args:
            recipe: of the run; it has a table for forge.
            folder: of the run; each round's forge run is kept below `forge/` in it.
            watch: is told how the making goes.
            open_model: opens the recipe's models by SPEC, except for the one in training.
        """
        assert recipe.forge is not None
        self._recipe, self._settings = recipe, recipe.forge
        self._folder, self._watch = folder / FORGE, watch
        self._open_model = open_model
        self._ahead: Prefetch | None = None

    def refresh(self, place: int, round_: int, *, student: Student) -> Refresh:
        """The rows that forge kept; what it dropped is in its log, and counted in the notes.

        Raises:
            InputError: it kept none.
            PreflexorError: a model is gone; the rows that are done are kept.
        """
        self.close()
        adapter = student.adapter_sha256()
        order = self._order(place, round_, adapter=adapter)
        rows: list[Row] = []

        async def open_model(spec: str) -> Backend:
            return student.open() if spec == STUDENT else await self._open_model(spec)

        with Prefetch.of_rows(order, open_model=open_model) as made:
            for row in made.rows():
                rows.append(row)
                kept = sum(row.state == "kept" for row in rows)
                what = f"making the rows of round {round_ + 1}"
                self._watch.show(what, done=len(rows), total=order.settings.rows, note=f"{kept} kept")
            report = made.wait()
        pairs = [row.pair() for row in rows if row.state == "kept"]
        fallen = Counter(kind_of(row) for row in rows if row.state != "kept")
        told = ", ".join(f"{count} {kind}" for kind, count in fallen.most_common())
        if not pairs:
            raise InputError(
                f"forge kept none of {len(rows)} rows ({told}); preflexor forge show {order.folder} shows why"
            )
        trained, held = split(pairs, self._recipe.data.held_out_share)
        notes = (*((f"forge gave up {told}",) if told else ()), *(report.notes if report is not None else ()))
        return Refresh(
            phase=place,
            round=round_,
            train=trained,
            held_out=held,
            origin=Origin(
                generator=order.models["teacher"],
                adapter_sha256=adapter,
                seed=order.settings.seed,
                unreadable=fallen.total(),
                notes=notes,
            ),
        )

    def prefetch(self, place: int, round_: int) -> None:
        """Begin to make the teacher's part of a round. What ends it early is met again when the rows are made."""
        self.close()
        self._ahead = Prefetch.of_good_sides(self._order(place, round_), open_model=self._open_model)

    def close(self) -> None:
        """End what is being made ahead; its replies are kept. Idempotent."""
        if self._ahead is not None:
            self._ahead.cancel()
            self._ahead = None

    def _order(self, place: int, round_: int, *, adapter: str = "") -> Order:
        phase, data = self._recipe.phases[place], self._recipe.data
        rows = phase.rows_per_round or self._settings.rows
        settings = {
            **self._settings.model_dump(),
            "rows": rows,
            "phase": 1 if phase.loss == "orpo" else 2,
            "round": self._rounds_before(place, rows=rows) + round_,
            "seed": (self._recipe.seed + place * _PHASE_STRIDE) % 2**31,
            "max_length_tok": data.max_length_tok,
        }
        teacher = data.teacher or NANO
        if teacher == NANO and self._settings.questions is None:
            settings["questions"] = self._library_questions()
        models = {"teacher": teacher, "judge": data.judge or teacher} | ({"student": STUDENT} if adapter else {})
        return Order(
            settings=ForgeSettings.model_validate(settings),
            folder=self._folder / f"{phase.name}-{round_ + 1:03d}",
            store=data.store or "bundled",
            models=models,  # type: ignore[arg-type]
            adapter_sha256=adapter,
        )

    def _rounds_before(self, place: int, *, rows: int) -> int:
        """Refreshes of so many rows that the phases before come to, so that given questions go on where they ended."""
        before = self._recipe.phases[:place]
        return math.ceil(sum(p.rounds * (p.rows_per_round or self._settings.rows) for p in before) / rows)

    def _library_questions(self) -> Path:
        """A file of questions about the bundled library, for nano, which can answer such but cannot think of any."""
        from preflexor_training.nano.taught import draw_questions, write_questions

        file = self._folder / "questions.jsonl"
        if not file.exists():
            write_questions(file, draw_questions(NANO_QUESTIONS, seed=self._recipe.seed, mix=NANO_MIX))
        return file
