"""What happens in a run, as frozen values; everything that shows or stores a run is a fold over these.

`to_json` and `from_json` are exact inverses, so a trace file is a run.
"""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from preflexor_agents.errors import TraceError

Role = Literal["thinker", "critic", "reviser", "judge", "integrator", "librarian"]
ROLES: tuple[Role, ...] = typing.get_args(Role)
Stage = Literal["retrieve", "draft", "select", "critique", "revise", "answer", "gate", "integrate", "choose", "cite"]
StopReason = Literal["rounds", "converged", "budget_tokens", "budget_seconds", "cancelled", "failed"]
Channel = Literal["thinking", "reflection", "answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call or of a run."""

    prompt: int = 0
    cached: int = 0
    """Prompt tokens that were already in the cache, part of `prompt`."""
    generated: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            prompt=self.prompt + other.prompt,
            cached=self.cached + other.cached,
            generated=self.generated + other.generated,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A piece of a document that a search found; `text` is exactly document[start:end]."""

    chunk_id: int
    source: str
    """Where the document came from: a path or an address."""
    title: str
    page: int | None = None
    start: int
    """Character offset in the document's text."""
    end: int
    text: str
    score: float = 0.0
    """Fused score; larger is better."""
    vector_rank: int | None = None
    vector_score: float | None = None
    """Cosine similarity."""
    text_rank: int | None = None
    text_score: float | None = None
    """bm25, larger is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """The words in a document that a claim of the answer stands on."""

    number: int
    """1-based, as in `[1]`: the passage's number in the run."""
    chunk_id: int
    source: str
    title: str
    page: int | None = None
    start: int
    end: int
    """`quote` is exactly document[start:end]."""
    quote: str
    claim: str
    """The sentence of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """First event of a run."""

    question: str
    models: dict[str, str]
    """Role -> model SPEC."""
    config: dict[str, Any]
    """`dataclasses.asdict(ReflectConfig)`."""
    store: str | None = None
    """Path of the knowledge store, if any."""
    context_tok: int = 0
    """Context of the smallest model in the cast; 0 if unknown."""
    started_at: float
    """Seconds since the epoch."""
    version: str = ""
    earlier: tuple[str, ...] = ()
    """What was said before in the conversation, a line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundStarted:
    """A round begins; steering text that waited is taken in here."""

    round: int
    """1 is the draft."""
    steering: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Steered:
    """The user said something while the run was going; it counts from the next round on."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundStopped:
    """The user stopped the open round, or the merging after the last one; what was written of it is kept."""

    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruled:
    """The user took or refused a round's answer by hand; it stands above the gate."""

    round: int
    accepted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsAdded:
    """The user asked for more rounds while the run was going."""

    rounds: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """A run that had ended, or the part of one up to a round, goes on: with these models, this config, this store."""

    models: dict[str, str]
    config: dict[str, Any]
    store: str | None = None
    context_tok: int = 0
    resumed_at: float
    """Seconds since the epoch."""
    spent_s: float = 0.0
    """Seconds of the run's budget that were used before."""
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    """A role begins one piece of work."""

    round: int
    role: Role
    stage: Stage
    candidate: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """Text of the running step as it is written."""

    round: int
    role: Role
    stage: Stage
    candidate: int = 0
    channel: Channel
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """The librarian searched the store."""

    round: int
    query: str
    passages: tuple[Passage, ...]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished:
    """A model call ended, whole or cut by the budget."""

    round: int
    role: Role
    stage: Stage
    candidate: int = 0
    thinking: str = ""
    reflection: str = ""
    answer: str = ""
    """The text outside the sections: an answer, a critique, a revised thinking, a verdict."""
    finish_reason: Literal["stop", "length", "budget_tokens", "budget_seconds", "cancelled"] = "stop"
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    seed: int = 0
    model: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed:
    """A call failed; the run goes on with what it has."""

    round: int
    role: Role
    stage: Stage
    candidate: int = 0
    error: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFinished:
    """The decision at the end of a round."""

    round: int
    thinking: str = ""
    reflection: str = ""
    answer: str = ""
    """The answer this round proposed, with the thinking it came from; empty if it proposed none."""
    accepted: bool
    score: float | None = None
    """Share of the judge's comparisons won against the answer so far (a tie is a half); None if not judged."""
    reason: str
    """In words: why it was accepted or the answer so far was kept."""
    converged: bool = False
    """Whether there is nothing left to improve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cited:
    """The librarian found and re-checked the quotes that the answer stands on."""

    citations: tuple[Citation, ...]
    unsupported: tuple[str, ...] = ()
    """Sentences of the answer for which no passage speaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """Last event of a run."""

    answer: str
    stop_reason: StopReason
    best_round: int = 0
    """Round whose answer this is; 0 if none was finished."""
    integrated: bool = False
    """Whether the answer is the integrator's merge."""
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    error: str = ""
    """The failure in one line, if `stop_reason` is `failed`."""


Event = (
    RunStarted
    | RoundStarted
    | Steered
    | RoundStopped
    | Ruled
    | RoundsAdded
    | Resumed
    | StepStarted
    | TextDelta
    | Retrieved
    | StepFinished
    | StepFailed
    | RoundFinished
    | Cited
    | RunFinished
)


class Timed(NamedTuple):
    """An event and when it happened."""

    t_s: float
    """Seconds since the run began."""
    event: Event


_BY_NAME: dict[str, type] = {cls.__name__: cls for cls in typing.get_args(Event)}


def to_json(event: Event) -> dict[str, Any]:
    """The event as plain JSON values, its class name under `event`."""
    return {"event": type(event).__name__, **dataclasses.asdict(event)}


def from_json(data: dict[str, Any]) -> Event:
    """The event that `to_json` wrote. Raises TraceError if it is not one."""
    name = data.get("event")
    cls = _BY_NAME.get(name) if isinstance(name, str) else None
    if cls is None:
        raise TraceError(f"{name!r} is not an event of this version; known: {', '.join(_BY_NAME)}")
    try:
        event: Event = _build(cls, {k: v for k, v in data.items() if k != "event"})
    except (TypeError, ValueError, KeyError) as e:
        raise TraceError(f"{name} event is damaged: {e}") from None
    return event


def _build(cls: Any, data: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    unknown = data.keys() - hints.keys()
    if unknown:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
    return cls(**{name: _value(hints[name], value) for name, value in data.items()})


def _value(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(_value(args[0], item) for item in value)
    if origin in (typing.Union, types.UnionType):
        return value
    if hint is float and isinstance(value, int):
        return float(value)
    if origin is Literal and value not in args:
        raise ValueError(f"{value!r} is not one of {', '.join(map(str, args))}")
    return value
