"""What can come next in a run: the values that `protocol.next_step` gives and `perform` does."""

from dataclasses import dataclass

from preflexor_agents.config import Sampling
from preflexor_agents.events import Passage, Role, RoundFinished, RunFinished, Stage
from preflexor_agents.prompts import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One model call of a step."""

    candidate: int = 0
    messages: tuple[Message, ...]
    thinking: str | None = None
    """Finished thinking put into the model's mouth."""
    sampling: Sampling
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRound:
    """A round begins with the steering that waited."""

    round: int
    steering: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieve:
    """The librarian searches."""

    round: int
    query: str
    k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Generate:
    """A role makes calls, side by side."""

    round: int
    role: Role
    stage: Stage
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cite:
    """The librarian finds the quotes that the final answer stands on."""

    round: int
    answer: str
    passages: tuple[Passage, ...]


Step = OpenRound | Retrieve | Generate | RoundFinished | Cite | RunFinished
"""RoundFinished and RunFinished are decisions: whoever asked emits them as they are."""


def role_of(step: Step) -> Role | None:
    """Who does a step; None for a decision, which anybody may emit."""
    match step:
        case Retrieve() | Cite():
            return "librarian"
        case Generate(role=role):
            return role
        case _:
            return None
