"""A run as it is shown: a fold over its events. `apply` is the only way to change it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from preflexor_agents.events import (
    Citation,
    Cited,
    Event,
    Passage,
    Resumed,
    Retrieved,
    Role,
    RoundFinished,
    RoundsAdded,
    RoundStarted,
    RoundStopped,
    Ruled,
    RunFinished,
    RunStarted,
    Stage,
    Steered,
    StepFailed,
    StepFinished,
    StepStarted,
    TextDelta,
    Usage,
)

StepStatus = Literal["running", "done", "stopped", "cut", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call of a model, or one search."""

    stage: Stage
    role: Role
    candidate: int = 0
    thinking: str = ""
    reflection: str = ""
    answer: str = ""
    status: StepStatus = "running"
    error: str = ""
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """The answer, or, if the model never left its thinking, that."""
        return self.answer.strip() or self.thinking.strip()


Change = Callable[[Step], Step]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: what was done in it and what was decided."""

    number: int
    steering: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    finished: RoundFinished | None = None
    ruled: bool | None = None
    """What the user decided by hand; None if nothing."""
    stopped: bool = False

    @property
    def accepted(self) -> bool | None:
        """Whether the round's answer was taken; None while it is open."""
        if self.ruled is not None:
            return self.ruled
        return self.finished.accepted if self.finished else None

    @property
    def answer(self) -> str:
        """The answer it proposes, or what there is of it."""
        if self.finished and self.finished.answer:
            return self.finished.answer
        return self._last("answer", "draft").answer.strip()

    @property
    def thinking(self) -> str:
        """The thinking behind the answer, or what there is of it."""
        if self.finished and self.finished.thinking:
            return self.finished.thinking
        revised = self._last("revise").said
        return revised or self._last("draft").thinking

    @property
    def reflection(self) -> str:
        """What the model said about its own thinking."""
        return self._last("answer", "draft").reflection

    @property
    def critique(self) -> str:
        """What the critic said."""
        return self._last("critique").said

    @property
    def proposes(self) -> bool:
        """Whether there is an answer to take or refuse."""
        return self.finished is not None and bool(self.finished.answer or self.finished.thinking)

    @property
    def usage(self) -> Usage:
        """Tokens of its calls."""
        return sum((s.usage for s in self.steps), Usage())

    @property
    def seconds(self) -> float:
        """Seconds of its steps; calls side by side count once."""
        longest: dict[Stage, float] = {}
        for step in self.steps:
            longest[step.stage] = max(longest.get(step.stage, 0.0), step.seconds)
        return sum(longest.values())

    def _last(self, *stages: Stage) -> Step:
        """The step of these stages that counts: the one whose answer was chosen, else the first."""
        found = [s for s in self.steps if s.stage in stages]
        if self.finished and self.finished.answer:
            found = [s for s in found if s.answer.strip() == self.finished.answer] or found
        return found[0] if found else Step(stage="draft", role="thinker", status="done")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything that is known of a run."""

    question: str = ""
    models: dict[str, str] = field(default_factory=dict)
    preset: str = ""
    store: str | None = None
    rounds_planned: int = 0
    budget_tok: int = 0
    budget_s: float = 0.0
    rounds: tuple[Round, ...] = ()
    taken: tuple[int, ...] = ()
    """Rounds whose answer was taken, by the gate or by hand; the last of them is the best so far."""
    ending: tuple[Step, ...] = ()
    """Steps after the last round: merging and choosing."""
    passages: tuple[Passage, ...] = ()
    """As numbered in the answer's marks, from 1."""
    cited: Cited | None = None
    finished: RunFinished | None = None
    acts: tuple[str, ...] = ()
    """What the user did by hand, for the record."""

    @property
    def model(self) -> str:
        """The models, each once."""
        return ", ".join(dict.fromkeys(self.models.values()))

    @property
    def round(self) -> Round | None:
        """The open round, or the last one."""
        return self.rounds[-1] if self.rounds else None

    @property
    def is_open(self) -> bool:
        """Whether a round is open."""
        return bool(self.rounds) and self.rounds[-1].finished is None

    @property
    def best(self) -> Round | None:
        """The round whose answer stands."""
        return self.numbered(self.taken[-1]) if self.taken else None

    @property
    def answer(self) -> str:
        """The answer so far."""
        if self.finished is not None:
            return self.finished.answer
        best = self.best or self.round
        return best.answer if best else ""

    @property
    def citations(self) -> tuple[Citation, ...]:
        """The quotes that the answer stands on."""
        return self.cited.citations if self.cited else ()

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        steps = (s for r in self.rounds for s in r.steps)
        return sum((s.usage for s in (*steps, *self.ending)), Usage())

    @property
    def written_tok(self) -> int:
        """Tokens written so far; of calls that still run, guessed from their text at four characters a token."""
        running = [s for r in self.rounds[-1:] for s in r.steps if s.status == "running"]
        running += [s for s in self.ending if s.status == "running"]
        chars = sum(len(s.thinking) + len(s.reflection) + len(s.answer) for s in running)
        return self.usage.generated + chars // 4

    @property
    def step(self) -> Step | None:
        """What is being done."""
        steps = (*(self.rounds[-1].steps if self.rounds else ()), *self.ending)
        return next((s for s in steps if s.status == "running"), None)

    def numbered(self, round: int) -> Round | None:
        """The round of that number."""
        return next((r for r in self.rounds if r.number == round), None)


def fold(events: Iterable[Event], run: Run | None = None) -> Run:
    """The run after these events."""
    run = run or Run()
    for event in events:
        run = apply(run, event)
    return run


def apply(run: Run, event: Event) -> Run:  # noqa: C901 - one case per event
    """The run after an event. A trace that was cut short, or begins in the middle, gives what it has."""
    match event:
        case RunStarted():
            return _configured(Run(question=event.question), event)
        case Resumed():
            return replace(_configured(run, event), rounds=_closed(run), ending=(), cited=None, finished=None)
        case RoundStarted(round=n, steering=steering):
            return replace(run, rounds=(*run.rounds, Round(number=n, steering=steering)), ending=())
        case Steered(text=text):
            return replace(run, acts=(*run.acts, f"you said: {text}"))
        case RoundStopped(round=n):
            return _in_round(replace(run, acts=(*run.acts, f"you stopped round {n}")), n, stopped=True)
        case Ruled(round=n, accepted=accepted):
            act = f"you {'took' if accepted else 'refused'} the answer of round {n}"
            return _ruled(replace(run, acts=(*run.acts, act)), n, accepted=accepted)
        case RoundsAdded(rounds=n):
            planned = max(run.rounds_planned, len(run.rounds)) + n
            return replace(run, rounds_planned=planned, acts=(*run.acts, f"you asked for {n} more"))
        case StepStarted():
            step = Step(stage=event.stage, role=event.role, candidate=event.candidate)
            return _with_steps(run, (*_steps(run), step))
        case TextDelta():
            return _stepped(run, event, lambda s: _longer(s, event))
        case Retrieved():
            return _found(_stepped(run, event, lambda s: replace(s, status="done", seconds=event.seconds)), event)
        case StepFinished():
            return _stepped(run, event, lambda s: _ended(s, event))
        case StepFailed(error=error, seconds=seconds):
            return _stepped(run, event, lambda s: replace(s, status="failed", error=error, seconds=seconds))
        case RoundFinished(round=n, accepted=accepted):
            run = replace(run, taken=(*run.taken, n) if accepted else run.taken)
            return _in_round(run, n, finished=event)
        case Cited():
            run = _with_steps(run, tuple(replace(s, status="done") if s.stage == "cite" else s for s in _steps(run)))
            return replace(run, cited=event)
        case RunFinished():
            return replace(run, finished=event)
        case _:
            assert_never(event)


def _configured(run: Run, event: RunStarted | Resumed) -> Run:
    config = event.config
    return replace(
        run,
        models=event.models,
        preset=str(config.get("preset", "")),
        store=event.store,
        rounds_planned=int(config.get("rounds", 0)),
        budget_tok=int(config.get("budget_tok", 0)),
        budget_s=float(config.get("budget_s", 0.0)),
    )


def _closed(run: Run) -> tuple[Round, ...]:
    """The rounds without an open one, which begins again."""
    return run.rounds[:-1] if run.is_open else run.rounds


def _steps(run: Run) -> tuple[Step, ...]:
    """The steps that the next event belongs to: of the open round, else of the ending."""
    return run.rounds[-1].steps if run.is_open else run.ending


def _with_steps(run: Run, steps: tuple[Step, ...]) -> Run:
    if run.is_open:
        return replace(run, rounds=(*run.rounds[:-1], replace(run.rounds[-1], steps=steps)))
    return replace(run, ending=steps)


def _stepped(run: Run, event: TextDelta | Retrieved | StepFinished | StepFailed, change: Change) -> Run:
    """The run with its latest step of the event's place changed; a step that was never begun is begun."""
    stage: Stage = "retrieve" if isinstance(event, Retrieved) else event.stage
    candidate = 0 if isinstance(event, Retrieved) else event.candidate
    role: Role = "librarian" if isinstance(event, Retrieved) else event.role
    steps = list(_steps(run))
    for at in reversed(range(len(steps))):
        if (steps[at].stage, steps[at].candidate) == (stage, candidate):
            steps[at] = change(steps[at])
            break
    else:
        steps.append(change(Step(stage=stage, role=role, candidate=candidate)))
    return _with_steps(run, tuple(steps))


def _longer(step: Step, delta: TextDelta) -> Step:
    match delta.channel:
        case "thinking":
            return replace(step, thinking=step.thinking + delta.text)
        case "reflection":
            return replace(step, reflection=step.reflection + delta.text)
        case "answer":
            return replace(step, answer=step.answer + delta.text)
        case _:
            assert_never(delta.channel)


def _ended(step: Step, event: StepFinished) -> Step:
    status: StepStatus = "done"
    if event.finish_reason == "cancelled":
        status = "stopped"
    elif event.finish_reason != "stop":
        status = "cut"
    return replace(
        step,
        thinking=event.thinking,
        reflection=event.reflection,
        answer=event.answer,
        status=status,
        usage=event.usage,
        seconds=event.seconds,
        notes=event.notes,
    )


def _found(run: Run, event: Retrieved) -> Run:
    """Passages keep their numbers: the first search fills the list, a later one adds its best new one."""
    known = {p.chunk_id for p in run.passages}
    new = [p for p in event.passages if p.chunk_id not in known]
    return replace(run, passages=(*run.passages, *(new if not run.passages else new[:1])))


def _in_round(run: Run, number: int, *, finished: RoundFinished | None = None, stopped: bool = False) -> Run:
    rounds = tuple(
        replace(r, finished=finished or r.finished, stopped=r.stopped or stopped) if r.number == number else r
        for r in run.rounds
    )
    return replace(run, rounds=rounds)


def _ruled(run: Run, number: int, *, accepted: bool) -> Run:
    """The user's word stands. As in the protocol, the only answer there is can not be refused."""
    others = tuple(n for n in run.taken if n != number)
    if not accepted and not others:
        return run
    taken = (*others, number) if accepted else others
    return replace(
        run, taken=taken, rounds=tuple(replace(r, ruled=accepted) if r.number == number else r for r in run.rounds)
    )
