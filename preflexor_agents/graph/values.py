"""Entities, relations and the quotes they stand on. A graph without evidence does not exist here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RunKind = Literal["extract", "answer", "grow", "import"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An entity as a text names it; the store finds or makes the entity."""

    name: str
    type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Words of a chunk: `chunk.text[start:end]`. Relative to the chunk, so that a chunk may move in its document."""

    chunk_id: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A relation to be stored, with the words that say so; at least one quote."""

    subject: Node
    kind: str
    """The relation in words: `consists of`."""
    object: Node
    quotes: tuple[Quote, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What made facts: an extraction, an answer, a step of growth, an import."""

    id: int = 0
    kind: RunKind
    model: str = ""
    """Model SPEC; empty if none was asked."""
    prompt_sha256: str = ""
    seed: int = 0
    note: str = ""
    """The question that was answered, or the file that was imported."""
    started_at: str = ""
    """UTC, ISO 8601."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A thing in the graph; merged entities are one."""

    id: int
    name: str
    type: str = ""
    aliases: tuple[str, ...] = ()
    """Other names, those of the entities merged into it included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A quote that a relation stands on, where it is, and what found it."""

    relation_id: int
    chunk_id: int
    source: str
    title: str
    page: int | None = None
    start: int
    """Character offset in the document's text."""
    end: int
    quote: str
    """Exactly document[start:end]."""
    run: Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A directed edge between two entities of the same graph."""

    id: int
    source: int
    """Entity id."""
    kind: str
    target: int
    """Entity id."""
    weight: int = 1
    """Pieces of evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A graph or a part of one. Every relation's ends are among the entities."""

    entities: tuple[Entity, ...] = ()
    relations: tuple[Relation, ...] = ()
    evidence: Mapping[int, tuple[Evidence, ...]] = field(default_factory=dict)
    """By relation id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphPath:
    """A walk from one entity to another; relations may be walked against their direction."""

    entities: tuple[Entity, ...]
    """One more than relations."""
    relations: tuple[Relation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What came of facts that were to be stored."""

    entities: int = 0
    """New ones."""
    relations: int = 0
    """New ones."""
    evidence: int = 0
    """New pieces, those for relations that were known included."""
    patterns: int = 0
    """New uses of abstract patterns."""
    refused: tuple[str, ...] = ()
    """One line for each fact or pattern that was not stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphCounts:
    """How much a graph holds; merged entities, and their relations, are one."""

    entities: int
    relations: int
    evidence: int
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """A decision that two entities are one; it can be taken back."""

    keep: Entity
    """Stands for both."""
    gone: Entity
    """As it was before."""
    decided_at: str
    """UTC, ISO 8601."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSuggestion:
    """Two entities that may be one."""

    keep: Entity
    """The better connected."""
    gone: Entity
    score: float
    """0 to 1."""
    reason: Literal["spelling", "embedding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternStep:
    """A step of an abstract pattern, from symbol to symbol; symbols are numbered from 0 as they appear."""

    source: int
    kind: str
    """The relation in words; empty where any will do."""
    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Abstraction:
    """A pattern that a text shows: to be stored."""

    steps: tuple[PatternStep, ...]
    names: tuple[str, ...]
    """For each symbol what it stands for; empty where the text does not say."""
    quote: Quote


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A pattern in the store, whatever its symbols stand for."""

    id: int
    steps: tuple[PatternStep, ...]
    uses: int
    """How many texts show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternUse:
    """A concrete walk that follows a pattern, and the words that show it."""

    pattern_id: int
    names: tuple[str, ...]
    """For each symbol what it stands for; empty where the text does not say."""
    entities: tuple[Entity | None, ...]
    """The same as entities of the graph; None for what is not among them."""
    chunk_id: int
    source: str
    title: str
    start: int
    """Character offset in the document's text."""
    end: int
    quote: str
    run: Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Analogy:
    """A part of the graph that follows a pattern."""

    entities: tuple[Entity, ...]
    """For each symbol what stands for it."""
    relations: tuple[Relation, ...]
    """For each step."""
