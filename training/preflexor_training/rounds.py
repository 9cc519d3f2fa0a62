"""The rounds of a run: rows, audit, steps, held-out rows, samples; phase after phase, each from the merged one before.

A run is a function of recipe, rows and seed. Rows are logged before they are trained on, and what is done is written
down at the edge of each round; a run that was killed anywhere goes on to the same weights.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from preflexor_agents.backends.base import Completion, Request, complete
from preflexor_agents.config import Sampling
from preflexor_agents.errors import BackendError, InputError, TrainingError
from preflexor_agents.prompts import Message
from preflexor_training import plots
from preflexor_training.learner import Held, Learner, Metrics
from preflexor_training.phases import LEARNER, MERGED, OpenLearner, leave_model, put
from preflexor_training.prepared import Rows, audit_line, open_renderer, referred, step_numbers, told
from preflexor_training.recipes import Phase
from preflexor_training.run_writer import State
from preflexor_training.schedule import Pace, Watch, best_round, duration, has_ended
from preflexor_training.sources import Source, Student
from preflexor_training.starting import Run
from preflexor_training.stopping import stoppable
from preflexor_training.tokenized import Step

SAMPLE = Sampling(temperature=0.0, max_tok=512)
"""Samples are greedy, so that rounds differ by their weights alone."""
_ROUNDS = "rounds"


@dataclass(slots=True)
class Work:
    """A run and everything that it is done with."""

    run: Run
    source: Source
    open_learner: OpenLearner
    watch: Watch
    track: Callable[[Mapping[str, Any]], None]
    """Takes every line of metrics.jsonl."""
    draw: Callable[[Path], object] = plots.draw
    """Draws the run in a folder, after each phase."""
    began: float = field(default_factory=time.monotonic)
    before_s: float = 0.0
    """Working time before this process."""
    pace: Pace = field(default_factory=Pace)
    step: int = 0
    """Last optimizer step of the run that was taken by this process; 0 before the first."""

    @property
    def state(self) -> State:
        """What is done."""
        return self.run.writer.state

    def seconds(self) -> float:
        """Working time of the run."""
        return self.before_s + time.monotonic() - self.began

    def folder(self, phase: Phase) -> Path:
        """Where a phase keeps what it makes."""
        return self.run.writer.folder / phase.name

    def metric(self, line: Mapping[str, Any]) -> None:
        """Write a line of numbers down, and pass it on."""
        self.run.writer.metric(line)
        self.track(line)


def train(work: Work) -> Path:
    """Do what is left of a run.

    Returns:
        The folder of the merged model of its last phase.

    Raises:
        InputError: the rows cannot be trained on.
        TrainingError: the loss is not finite, memory or disk is full; what is done is kept.
        KeyboardInterrupt: it was stopped; what is done is kept.
    """
    work.before_s = work.state.seconds
    base = work.run.base
    try:
        for place, phase in enumerate(work.run.recipe.phases):
            if place == work.state.phase:
                _train_phase(work, place, base)
            base = work.folder(phase) / MERGED
    except OSError as e:
        where = e.filename or work.run.writer.folder
        raise TrainingError(f"{where}: {e.strerror or e}; see to it, then go on with --resume") from None
    return base


def _train_phase(work: Work, place: int, base: Path) -> None:
    recipe, writer = work.run.recipe, work.run.writer
    phase = recipe.phases[place]
    folder = work.folder(phase)
    work.watch.tell(f"phase {place + 1} of {len(recipe.phases)}, {phase.name}: {phase.loss} from {base}")
    work.watch.show("loading the model")
    rows = Rows(recipe, phase, open_renderer(base, recipe))
    with closing(work.open_learner(recipe, phase, base, folder / LEARNER)) as learner:
        last = writer.cut(work.state.step - work.state.phase_step + learner.step)
        work.before_s = max(work.before_s, last)
        for round_ in range(work.state.round):
            rows.take(writer.log.read(place, round_))
        while not has_ended(phase, work.state.margins):
            _train_round(work, place, rows, learner)
        best = best_round(phase, work.state.margins)
        if best != len(work.state.margins) - 1:
            work.watch.tell(f"{phase.name} ends with the weights of round {best + 1}, the best on the held-out rows")
            learner.load_adapter(_round_folder(folder, best))
        work.watch.show("merging")
        leave_model(learner.merge, base=base, out=folder / MERGED)
    writer.save(replace(work.state, phase=place + 1, round=0, phase_step=0, margins=(), seconds=work.seconds()))
    work.watch.tell(f"{phase.name} is merged into {folder / MERGED}")
    draw(work)


def _train_round(work: Work, place: int, rows: Rows, learner: Learner) -> None:
    phase, state, writer = rows.phase, work.state, work.run.writer
    round_, number = state.round, state.rounds + 1
    if not writer.log.has(place, round_):
        work.watch.show(f"making the rows of round {round_ + 1}")
        student = Student(learner.student, learner.fingerprint)
        writer.log.append(work.source.refresh(place, round_, student=student))
    refresh = writer.log.read(place, round_)
    for note in refresh.origin.notes:
        work.watch.tell(f"left out: {note}")
    audit = rows.take(refresh)
    work.watch.tell(told(audit, round_ + 1, phase.rounds))
    writer.audit(audit_line(audit, refresh, phase=phase, round_=number))
    audit.check(work.run.recipe.data.damaged_share)
    steps = rows.steps(round_)
    _prefetch(work, place, round_)
    work.watch.show("asking the reference")
    learner.refer(referred(steps, rows.held_out))
    _take_steps(work, phase, steps, learner)
    done = replace(
        state,
        round=round_ + 1,
        rounds=number,
        step=state.step + len(steps),
        phase_step=state.phase_step + len(steps),
    )
    margin = _look(work, rows, learner, done)
    _keep_round(work, phase, round_, learner)
    writer.save(replace(done, margins=(*state.margins, margin), seconds=work.seconds()))


def _take_steps(work: Work, phase: Phase, steps: tuple[Step, ...], learner: Learner) -> None:
    state = work.state
    first = state.phase_step
    done = max(learner.step - first, 0)
    recipe = work.run.recipe

    with stoppable() as stop:

        def on_step(_: int, metrics: Metrics) -> None:
            nonlocal done
            rate = metrics["tokens"] / max(metrics["seconds"], 1e-9)
            line = {
                "step": state.step + done + 1,
                "phase": state.phase + 1,
                "round": state.rounds + 1,
                "t_s": round(work.seconds(), 3),
                **metrics,
                **step_numbers(steps[done]),
                "tokens_per_s": rate,
            }
            done += 1
            work.step = state.step + done
            work.metric(line)
            left_s = work.pace.left_s(recipe, state, steps=len(steps), done=done, seconds=metrics["seconds"])
            work.watch.show(
                f"{phase.name}, round {state.round + 1} of {phase.rounds}",
                done=done,
                total=len(steps),
                note=f"loss {metrics['loss']:.4g}, margin {metrics['margin']:.3g}, {rate:.0f} tok/s, "
                f"about {duration(left_s)} left",
            )
            stop.check()

        learner.train(steps, first=first, on_step=on_step)


def _look(work: Work, rows: Rows, learner: Learner, done: State) -> float | None:
    """Try the held-out rows and ask the sample questions; returns the held-out margin, None without such rows."""
    where = {"step": done.step, "phase": done.phase + 1, "round": done.rounds, "t_s": round(work.seconds(), 3)}
    margin = None
    if rows.held_out:
        work.watch.show("trying the held-out rows")
        held = learner.evaluate(rows.held_out)
        margin = _mean(held)
        right = sum(m > 0 for m in held.margins) / len(held.margins)
        work.metric(
            {
                **where,
                "held_out_loss": held.loss,
                "held_out_margin": margin,
                "held_out_accuracy": right,
                "held_out_rows": len(held.margins),
            }
        )
        work.watch.tell(
            f"held out: loss {held.loss:.4g}, margin {margin:.3g}, {right:.0%} of {len(held.margins)} right"
        )
    if rows.phase.samples:
        work.watch.show("asking for samples")
        for prompt, text in zip(rows.phase.samples, asyncio.run(_ask(learner, rows.phase.samples)), strict=True):
            work.run.writer.sample({**where, "prompt": prompt, "text": text})
    return margin


async def _ask(learner: Learner, questions: tuple[str, ...]) -> list[str]:
    student = learner.student()
    try:
        return [await _reply(student, question) for question in questions]
    finally:
        await student.aclose()


async def _reply(student: Any, question: str) -> str:
    request = Request(messages=(Message("user", question),), sampling=SAMPLE)
    try:
        return _written(await complete(student, request))
    except BackendError as e:
        return f"(no sample: {e})"


def _written(reply: Completion) -> str:
    parts = ((reply.thinking, "thinking"), (reply.reflection, "reflect"))
    tagged = [f"<|{tag}|>\n{text.strip()}\n<|/{tag}|>\n" for text, tag in parts if text.strip()]
    return "".join(tagged) + reply.answer.strip()


def _keep_round(work: Work, phase: Phase, round_: int, learner: Learner) -> None:
    """Keep the round's adapter. Of whole models only those are kept that the phase may end with."""
    if work.run.recipe.adapter.kind == "full" and not phase.early_stop.patience:
        return
    put(learner.save_adapter, _round_folder(work.folder(phase), round_))


def _prefetch(work: Work, place: int, round_: int) -> None:
    phases = work.run.recipe.phases
    if round_ + 1 < phases[place].rounds:
        work.source.prefetch(place, round_ + 1)
    elif place + 1 < len(phases):
        work.source.prefetch(place + 1, 0)


def draw(work: Work) -> None:
    """Draw what there is, if that can be done here."""
    try:
        work.draw(work.run.writer.folder)
    except InputError as e:
        work.watch.tell(f"no pictures: {e}")


def _round_folder(folder: Path, round_: int) -> Path:
    return folder / _ROUNDS / f"{round_ + 1:03d}"


def _mean(held: Held) -> float:
    return math.fsum(held.margins) / len(held.margins)
