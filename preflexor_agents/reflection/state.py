"""The state of a run: a fold over its events, so a trace, a chat transcript and a checkpoint all hold it whole."""

from dataclasses import dataclass, field, replace
from typing import assert_never

from preflexor_agents.config import ReflectConfig, from_dict
from preflexor_agents.events import (
    Cited,
    Event,
    Passage,
    Resumed,
    Retrieved,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An answer and the thinking it came from."""

    round: int
    thinking: str = ""
    reflection: str = ""
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything the protocol decides on."""

    question: str
    config: ReflectConfig
    earlier: tuple[str, ...] = ()
    """What was said before in the conversation."""
    has_store: bool = False
    context_tok: int = 0
    """Context of the smallest model in the cast; 0 if unknown."""

    round: int = 0
    """Round that is open or was closed last."""
    round_open: bool = False
    steps: tuple[StepFinished | StepFailed, ...] = ()
    """What the open round (and, after the last one, the ending) has done."""
    retrieved: bool = False
    """Whether the open round has searched."""
    stopped: bool = False
    """Whether the user stopped the open round, or the merging after the last one."""
    fresh_steering: bool = False
    """Whether the open round took in something the user said."""

    passages: tuple[Passage, ...] = ()
    steering: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    """Steering for the next round."""
    answers: tuple[Draft, ...] = ()
    """One proposal per closed round."""
    taken: tuple[int, ...] = ()
    """Rounds whose proposal was taken, the last one taken last; it is the best so far."""
    ruled: frozenset[int] = frozenset()
    """Rounds that the user took or refused by hand."""
    converged: bool = False

    usage: Usage = field(default_factory=Usage)
    cited: Cited | None = None
    finished: RunFinished | None = None

    @property
    def best(self) -> Draft | None:
        """The answer so far."""
        return next((a for a in self.answers if self.taken and a.round == self.taken[-1]), None)

    def done(self, stage: Stage) -> dict[int, StepFinished]:
        """Finished calls of a stage in the open round, by candidate."""
        return {s.candidate: s for s in self.steps if isinstance(s, StepFinished) and s.stage == stage}

    def failed(self, stage: Stage) -> dict[int, StepFailed]:
        """Failed calls of a stage in the open round, by candidate."""
        return {s.candidate: s for s in self.steps if isinstance(s, StepFailed) and s.stage == stage}


def start(event: RunStarted) -> State:
    """The state of a run that has just begun."""
    return State(
        question=event.question,
        config=from_dict(event.config),
        earlier=event.earlier,
        has_store=event.store is not None,
        context_tok=event.context_tok,
    )


def advance(state: State, event: Event) -> State:  # noqa: C901 - one case per event
    """The state after an event."""
    match event:
        case RunStarted():
            return start(event)
        case RoundStarted(round=n, steering=words):
            return replace(
                state,
                round=n,
                round_open=True,
                steps=(),
                retrieved=False,
                stopped=False,
                steering=state.steering + words,
                waiting=state.waiting[len(words) :],
                fresh_steering=bool(words),
            )
        case Steered(text=text):
            return replace(state, waiting=(*state.waiting, text))
        case RoundStopped():
            return replace(state, stopped=True)
        case Ruled():
            return _rule(state, event)
        case RoundsAdded(rounds=n):
            rounds = max(state.config.rounds, state.round) + n
            return replace(state, config=replace(state.config, rounds=rounds), converged=False)
        case Resumed():
            return _resume(state, event)
        case StepStarted() | TextDelta():
            return state
        case Retrieved():
            return replace(state, retrieved=True, passages=_merge(state, event))
        case StepFinished(usage=usage):
            return replace(state, steps=(*state.steps, event), usage=state.usage + usage)
        case StepFailed():
            return replace(state, steps=(*state.steps, event))
        case RoundFinished():
            return _close(state, event)
        case Cited():
            return replace(state, cited=event)
        case RunFinished():
            return replace(state, finished=event)
        case _:
            assert_never(event)


def _merge(state: State, event: Retrieved) -> tuple[Passage, ...]:
    """Passages keep their numbers: the first search fills the list, a later one adds the best new one."""
    known = {p.chunk_id for p in state.passages}
    new = [p for p in event.passages if p.chunk_id not in known]
    merged = state.passages + tuple(new if not state.passages else new[:1])
    if not state.context_tok:
        return merged
    kept: list[Passage] = []
    room_chars = state.context_tok * 3 // 2  # half the context at about three characters a token
    for p in merged:
        room_chars -= len(p.text)
        if room_chars < 0 and kept:
            break
        kept.append(p)
    return tuple(kept)


def _close(state: State, event: RoundFinished) -> State:
    proposal = Draft(round=event.round, thinking=event.thinking, reflection=event.reflection, answer=event.answer)
    empty = not (event.answer or event.thinking)
    return replace(
        state,
        round_open=False,
        stopped=False,
        steps=(),
        answers=state.answers if empty else (*state.answers, proposal),
        taken=(*state.taken, event.round) if event.accepted else state.taken,
        converged=event.converged,
    )


def _rule(state: State, event: Ruled) -> State:
    """The user's word on a proposal. The only answer there is can not be refused: there would be none."""
    others = tuple(n for n in state.taken if n != event.round)
    taken = (*others, event.round) if event.accepted else others
    if not taken or not any(a.round == event.round for a in state.answers):
        return state
    return replace(state, taken=taken, ruled=state.ruled | {event.round})


def _resume(state: State, event: Resumed) -> State:
    """An open round is forgotten: whoever goes on from the middle of one begins it again."""
    return replace(
        state,
        config=from_dict(event.config),
        has_store=event.store is not None,
        context_tok=event.context_tok,
        round=state.round - 1 if state.round_open else state.round,
        round_open=False,
        stopped=False,
        steps=(),
        converged=False,
        cited=None,
        finished=None,
    )


def said(step: StepFinished) -> str:
    """What a role said: its answer, or, if it never left its thinking, that."""
    return step.answer.strip() or step.thinking.strip()
