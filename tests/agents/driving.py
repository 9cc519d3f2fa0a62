"""Drives the pure protocol with scripted words: no model, no clock."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from preflexor_agents.config import ReflectConfig
from preflexor_agents.events import (
    Cited,
    Event,
    Passage,
    Retrieved,
    RoundStarted,
    RunStarted,
    StepFailed,
    StepFinished,
    Usage,
)
from preflexor_agents.markup import parse
from preflexor_agents.reflection.protocol import next_step
from preflexor_agents.reflection.state import State, advance, start
from preflexor_agents.reflection.steps import Call, Cite, Generate, OpenRound, Retrieve

Reply = Callable[[Generate, Call], str | Exception]


@dataclass
class Run:
    """What came of a driven run."""

    state: State
    events: list[Event] = field(default_factory=list)
    calls: list[tuple[Generate, Call]] = field(default_factory=list)

    @property
    def stages(self) -> list[str]:
        return [step.stage for step, _ in self.calls]


def passage(n: int, text: str = "Nacre has a fracture toughness of 4.5 MPa m^0.5.") -> Passage:
    return Passage(chunk_id=n, source=f"note{n}.md", title=f"Note {n}", start=0, end=len(text), text=text)


def drive(
    config: ReflectConfig,
    reply: Reply,
    *,
    passages: list[Passage] | None = None,
    between: Callable[[State, list[Event]], list[Event]] = lambda state, events: [],
    seconds_per_call: float = 0.0,
    cancel_when: Callable[[State], bool] = lambda state: False,
    most_steps: int = 500,
) -> Run:
    """Run the protocol to its end; `reply` gives each call's raw text (tags and all), or its failure."""
    started = RunStarted(
        question="How tough is nacre?",
        models={},
        config=asdict(config),
        store="s" if passages else None,
        started_at=0.0,
    )
    run = Run(start(started), [started])

    def take(event: Event) -> None:
        run.state = advance(run.state, event)
        run.events.append(event)

    for _ in range(most_steps):
        for event in between(run.state, run.events):
            take(event)
        elapsed_s = seconds_per_call * len(run.calls)
        step = next_step(run.state, elapsed_s=elapsed_s, cancelled=cancel_when(run.state))
        match step:
            case None:
                return run
            case OpenRound(round=n, steering=words):
                take(RoundStarted(round=n, steering=words))
            case Retrieve(round=n, query=query):
                take(Retrieved(round=n, query=query, passages=tuple(passages or ())))
            case Cite():
                take(Cited(citations=()))
            case Generate():
                for call in step.calls:
                    run.calls.append((step, call))
                    take(_answer(step, call, reply(step, call)))
            case decision:
                take(decision)
    raise AssertionError(f"no end after {most_steps} steps; last event {run.events[-1]}")


def _answer(step: Generate, call: Call, text: str | Exception) -> Event:
    at = {"round": step.round, "role": step.role, "stage": step.stage, "candidate": call.candidate}
    if isinstance(text, Exception):
        return StepFailed(**at, error=str(text))
    sections = parse(text)
    return StepFinished(
        **at,
        thinking=sections.thinking,
        reflection=sections.reflection,
        answer=sections.answer,
        usage=Usage(prompt=10, generated=len(text.split())),
    )
