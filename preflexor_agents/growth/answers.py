"""Writes what an answer found back into the store: its supported sentences as a finding, their facts into the graph.

Only sentences for which a document speaks are kept, and a fact only with the document's own words; an earlier finding
is never evidence, so the graph does not come to stand on what models said.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from preflexor_agents.backends.base import Backend
from preflexor_agents.events import Citation, Cited, Event, Passage, Retrieved, RunFinished, RunStarted, Usage
from preflexor_agents.graph.values import Added, Run
from preflexor_agents.growth import extract, reading
from preflexor_agents.packs import Pack
from preflexor_agents.store import Store
from preflexor_agents.store.findings import PREFIX, Finding

OWNER = "answers"
"""Owner of the findings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to."""

    question: str
    answer: str
    citations: tuple[Citation, ...]
    """Of documents only."""
    passages: Mapping[int, Passage]
    """Those that were put before the models, by chunk id."""
    model: str
    seed: int
    usage: Usage

    @property
    def supported(self) -> str:
        """The sentences of the answer for which a document speaks."""
        return " ".join(dict.fromkeys(citation.claim for citation in self.citations))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was written back."""

    finding: Finding | None = None
    added: Added = field(default_factory=Added)
    usage: Usage = field(default_factory=Usage)


def outcome(events: Sequence[Event]) -> Outcome | None:
    """What a whole run came to; None if it did not end with an answer."""
    begun = next((event for event in events if isinstance(event, RunStarted)), None)
    ended = next((event for event in events if isinstance(event, RunFinished)), None)
    if begun is None or ended is None or ended.stop_reason == "failed" or not ended.answer:
        return None
    cited = next((event.citations for event in reversed(events) if isinstance(event, Cited)), ())
    passages = {p.chunk_id: p for event in events if isinstance(event, Retrieved) for p in event.passages}
    return Outcome(
        question=begun.question,
        answer=ended.answer,
        citations=tuple(c for c in cited if c.chunk_id in passages and not c.source.startswith(PREFIX)),
        passages=passages,
        model=begun.models.get("thinker", ""),
        seed=int(begun.config.get("seed", 0)),
        usage=ended.usage,
    )


async def keep(store: Store, backend: Backend, found: Outcome, *, pack: Pack, run: Run) -> Kept:
    """Write the outcome back; nothing, if no document speaks for it.

    Args:
        store: takes it.
        backend: reads the facts out of the answer.
        found: from `outcome`.
        pack: says what to look for.
        run: begun in the store; the facts are its.

    Raises:
        BackendError: the model could not read the facts out of the answer; the finding is kept.
        StoreError: the store could not be written.
    """
    if not found.supported:
        return Kept()
    finding = await asyncio.to_thread(
        store.add_finding,
        found.supported,
        owner=OWNER,
        author=found.model,
        title=found.question,
        metadata={"seed": found.seed, "citations": [asdict(citation) for citation in found.citations]},
    )
    said = Passage(
        chunk_id=0, source=finding.source, title=found.question, start=0, end=len(found.supported), text=found.supported
    )
    reply = await extract.ask(backend, said, pack, seed=found.seed)
    quotes = [(found.passages[citation.chunk_id], citation.quote) for citation in found.citations]
    facts = reading.facts_of(quotes, reading.read(reply.answer, said).facts)
    added = await asyncio.to_thread(store.graph.add, list(facts), run=run)
    return Kept(finding=finding, added=added, usage=reply.usage)
