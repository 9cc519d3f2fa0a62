"""Where a row's passages come from: a shuffled corpus, a search for each topic, what is related, walks in the graph.

What is drawn follows from the seed, the row's number and the documents alone, whatever order they were ingested in.
What models wrote, findings, is never drawn, and neither are lists of references and the like. Texts are read only of
the chunks that are drawn.
"""

import asyncio
import hashlib
import math
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

from preflexor_agents.errors import InputError
from preflexor_agents.events import Passage
from preflexor_agents.store import Store, picking
from preflexor_agents.store.findings import PREFIX
from preflexor_agents.store.knowledge_graph import KnowledgeGraph
from preflexor_agents.store.paths import shown
from preflexor_agents.store.search import MAX_RESULTS
from preflexor_training.forge.asking import seed_of
from preflexor_training.forge.given import Question, read_questions
from preflexor_training.forge.records import Span
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Dropped, Retrieve

MOST_ENTITIES = 5000
"""Walks begin at one of the best connected entities, at most so many."""
_SPARE = 20
"""So many more than are wanted are asked for where findings are to be taken out."""
_NO_CONTENT = re.compile(
    r"(?:^|> )\W*(?:\d+\.?\s+)?(?:references?|bibliography|sources|literature(?: cited)?|works cited|"
    r"acknowledge?ments?|further reading|author contributions?|funding|"
    r"(?:conflicts?|competing) (?:of )?interests?)\W*$",
    re.IGNORECASE,
)
"""Parts of a document that no question is to be made of."""
_TRIES = 8
_LONGEST_WALK = 6
_FAN_OUT = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What rows draw from, looked through once for a run."""

    store: Store
    settings: ForgeSettings
    chunk_ids: tuple[int, ...]
    """Shuffled by the run's seed."""
    entities: tuple[int, ...] = ()
    """Ids, shuffled likewise; for walks only."""
    questions: tuple[Question, ...] = ()
    """Those that were given."""


def survey(store: Store, settings: ForgeSettings) -> Corpus:
    """Look through the store.

    Raises:
        InputError: there is nothing to draw from, or the questions cannot be read; names the remedy.
        StoreError: the store could not be read.
    """
    keys = [key for key in picking.chunk_keys(store.path) if not _NO_CONTENT.search(key.headings)]
    if not keys:
        raise InputError(f"store {shown(store.path)} holds no documents; ingest some: preflexor ingest PATH")
    if settings.contexts == "topic" and not any(topic.strip() for topic in settings.topics):
        raise InputError("contexts are drawn by topic, and no topic is given; give one or more topics")
    ids = sorted(keys, key=lambda key: (_digest(settings.seed, key.document_sha256, key.start), key.id))
    entities: tuple[int, ...] = ()
    if settings.contexts == "path" and settings.questions is None:
        found = store.graph.whole(limit=MOST_ENTITIES).entities
        if not found:
            raise InputError(
                f"store {shown(store.path)} has no knowledge graph to walk in; make one: preflexor graph extract"
            )
        entities = tuple(e.id for e in sorted(found, key=lambda e: (_digest(settings.seed, e.name), e.name)))
    return Corpus(
        store=store,
        settings=settings,
        chunk_ids=tuple(key.id for key in ids),
        entities=entities,
        questions=read_questions(settings.questions) if settings.questions else (),
    )


def draw(corpus: Corpus, *, number: int) -> tuple[Passage, ...]:
    """The passages of a row, at most `settings.passages`, no chunk twice; the best or first drawn comes first.

    `random` deals out the chunks, shuffled, before one comes again; refreshes go on where the one before ended. Once
    all were dealt out, they are dealt again in another order. A row of a given question has what a search finds for it.

    Raises:
        Dropped: a search finds nothing, or the graph has no walk from here (`no_context`).
        StoreError: the store could not be read.
    """
    settings = corpus.settings
    turn = settings.round * settings.rows + number
    if corpus.questions:
        question = corpus.questions[turn % len(corpus.questions)]
        return _found(corpus, question.text, page=0)
    match settings.contexts:
        case "random":
            return picking.passages(corpus.store.path, _dealt(corpus, turn))
        case "related":
            return _related(corpus, turn)
        case "topic":
            topics = [topic.strip() for topic in settings.topics if topic.strip()]
            page, topic = divmod(turn, len(topics))
            return _found(corpus, topics[topic], page=page)
        case "path":
            return _walked(corpus, turn)


def retriever(store: Store) -> Retrieve:
    """How steps search the corpus, off the event loop."""

    async def retrieve(query: str, *, k: int) -> tuple[Passage, ...]:
        return await asyncio.to_thread(search, store, query, k=k)

    return retrieve


def search(store: Store, query: str, *, k: int) -> tuple[Passage, ...]:
    """The best passages of documents, findings left out; without any, just what the agents find. Raises StoreError."""
    found = store.search(query, k=k)
    if any(p.source.startswith(PREFIX) for p in found):
        found = store.search(query, k=min(k + _SPARE, MAX_RESULTS))
    return tuple(p for p in found if not p.source.startswith(PREFIX))[:k]


def distinct(passages: Iterable[Passage]) -> tuple[Passage, ...]:
    """The passages without those whose chunk came before."""
    return tuple({passage.chunk_id: passage for passage in passages}.values())


def span(passage: Passage) -> Span:
    """Where a passage's words stand, and how to tell that they still do."""
    return Span(
        chunk_id=passage.chunk_id,
        source=passage.source,
        title=passage.title,
        page=passage.page,
        start=passage.start,
        end=passage.end,
        sha256=hashlib.sha256(passage.text.encode()).hexdigest(),
    )


def _digest(*parts: int | str) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def _dealt(corpus: Corpus, turn: int) -> list[int]:
    """The chunks of a row that takes as many as every other."""
    count = min(corpus.settings.passages, len(corpus.chunk_ids))
    places = range(turn * count, (turn + 1) * count)
    return list(dict.fromkeys(corpus.chunk_ids[_place(corpus, at)] for at in places))


def _place(corpus: Corpus, at: int) -> int:
    """Where in the shuffled corpus the at-th chunk to be dealt is; later passes take strides that miss no chunk."""
    size = len(corpus.chunk_ids)
    dealt, at = divmod(at, size)
    if not dealt:
        return at
    rng = random.Random(seed_of("deal", corpus.settings.seed, dealt))
    stride = next(s for s in iter(lambda: rng.randrange(1, size + 1), None) if math.gcd(s, size) == 1)
    return (rng.randrange(size) + at * stride) % size


def _related(corpus: Corpus, turn: int) -> tuple[Passage, ...]:
    """A chunk in its turn and those nearest to it."""
    (first,) = picking.passages(corpus.store.path, [corpus.chunk_ids[_place(corpus, turn)]])
    near = search(corpus.store, first.text, k=corpus.settings.passages)
    return distinct((first, *near))[: corpus.settings.passages]


def _found(corpus: Corpus, query: str, *, page: int) -> tuple[Passage, ...]:
    """One page of what a search finds; after the last page comes the first again."""
    count = corpus.settings.passages
    found = search(corpus.store, query, k=min((page + 1) * count, MAX_RESULTS - _SPARE))
    if not found:
        raise Dropped("no_context", f"a search for {query[:80]!r} finds nothing")
    start = page % math.ceil(len(found) / count) * count
    return found[start : start + count]


def _walked(corpus: Corpus, turn: int) -> tuple[Passage, ...]:
    """The passages that bear out a walk of several relations; what a search for its entities finds, if they are few."""
    graph, count = corpus.store.graph, corpus.settings.passages
    dealt, at = divmod(turn, len(corpus.entities))
    start = graph.entity(corpus.entities[at])
    rng = random.Random(seed_of("walk", corpus.settings.seed, dealt, start.name))
    hops = min(max(count, 2), _LONGEST_WALK)
    for _ in range(_TRIES):
        end = _wandered(graph, start.id, rng, hops)
        for path in graph.paths(start.id, end, most=1, max_hops=hops) if end != start.id else ():
            if len(path.relations) < 2:
                continue
            evidence = graph.evidence([relation.id for relation in path.relations])
            quotes = (quote for r in path.relations for quote in evidence[r.id] if not quote.source.startswith(PREFIX))
            drawn = picking.passages(corpus.store.path, list(dict.fromkeys(quote.chunk_id for quote in quotes))[:count])
            names = " ".join(entity.name for entity in path.entities)
            if drawn:
                return distinct((*drawn, *search(corpus.store, names, k=count)))[:count]
    raise Dropped("no_context", f"the graph has no walk of two relations or more from {start.name!r}")


def _wandered(graph: KnowledgeGraph, start: int, rng: random.Random, hops: int) -> int:
    """Where so many random steps lead that meet no entity twice; only what is next to them is looked at."""
    here, met = start, {start}
    for _ in range(hops):
        near = graph.neighbourhood(here, fan_out=_FAN_OUT).entities
        open_ends = sorted((entity for entity in near if entity.id not in met), key=lambda entity: entity.name)
        if not open_ends:
            break
        here = rng.choice(open_ends).id
        met.add(here)
    return here
