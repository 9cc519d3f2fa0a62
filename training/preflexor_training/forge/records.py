"""What a forge run leaves: one line of JSON for each row, made or not, with every call that went into it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from preflexor_agents.prompts import Message
from preflexor_training.forge.settings import RejectedKind, Variant
from preflexor_training.forge.steps import Who
from preflexor_training.pairs import Pair, Reply

SCHEMA = 1
"""Version of a line; a reader of a later version reads this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Words of a document that stood in the context, so that they can be found again without the store."""

    chunk_id: int
    source: str
    title: str
    page: int | None
    start: int
    """Character offset in the document's text; likewise `end`."""
    end: int
    sha256: str
    """Of the words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One call that went into a row."""

    step: str
    who: Who
    model: str
    """SPEC of the backend."""
    adapter_sha256: str
    """Of the adapter the student had; empty without one."""
    prompt_sha256: str
    seed: int
    tokens_prompt: int
    tokens_cached: int
    tokens_generated: int
    seconds: float
    tries: int
    error: str = ""
    """Why it failed in the end; empty if it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the log. `state` says which fields hold something: a dropped row has what was there when it fell."""

    id: str
    """SHA-256 of run and number; the same in an interrupted and an uninterrupted run."""
    number: int
    state: Literal["kept", "dropped", "failed"]
    reason: str = ""
    """Kind of the drop or failure and its words, as `duplicate: …`."""
    variant: Variant
    phase: Literal[1, 2]
    round: int
    seed: int
    pack: str
    question: str = ""
    gold: str = ""
    """The known answer, where the question came with one."""
    prompt: tuple[Message, ...] = ()
    """The turns that are trained on: the question and, if wanted, the trigger; or the agents' own grounded prompt."""
    categories: tuple[tuple[str, str], ...] = ()
    """The thinking, name and text of each category in order."""
    chosen: Reply = field(default_factory=Reply)
    rejected: Reply = field(default_factory=Reply)
    rejected_kind: RejectedKind | None = None
    context: tuple[Span, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    """Of the verifier or judge: `chosen`, `rejected`, `margin`, and counts as `samples`, `accepted`."""
    calls: tuple[CallRecord, ...] = ()

    def pair(self) -> Pair:
        """What training needs of a kept row."""
        raise NotImplementedError
