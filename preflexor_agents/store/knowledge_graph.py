"""The knowledge graph of a store: facts with their quotes, and what can be asked of them.

A relation is there as long as evidence speaks for it, an entity as long as a relation has it for an end; evidence goes
with its chunk and its run. Merged entities are one everywhere.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise

from sqlite_utils import Database

from preflexor_agents.errors import ConfigError
from preflexor_agents.events import Passage
from preflexor_agents.graph.values import (
    Abstraction,
    Added,
    Analogy,
    Entity,
    Evidence,
    Fact,
    Graph,
    GraphCounts,
    GraphPath,
    Merge,
    MergeSuggestion,
    Pattern,
    PatternUse,
    Quote,
    Relation,
    Run,
    RunKind,
)
from preflexor_agents.store import (
    driver,
    graph_analogies,
    graph_find,
    graph_measures,
    graph_merges,
    graph_patterns,
    graph_suggestions,
    graph_view,
    graph_walk,
    graph_writing,
)
from preflexor_agents.store import examined as seen
from preflexor_agents.store.embedders import Embedder
from preflexor_agents.store.filters import Filter

MAX_HOPS = 10
"""Longest walk that may be asked for."""


class KnowledgeGraph:
    """The graph of an open store; get it as `Store.graph`. Any thread may call it."""

    def __init__(
        self, db: Database, *, using: Callable[[], AbstractContextManager[None]], embedder: Callable[[], Embedder]
    ) -> None:
        self._db = db
        self._using = using
        self._embedder = embedder

    def begin(self, run: Run) -> Run:
        """Store a run before its facts; returns it with its id and the time it began.

        Raises:
            InputError: its kind is unknown or its seed does not fit into 64 bits.
            StoreError: the store could not be written.
        """
        with self._writing():
            return graph_writing.begin(self._db, run)

    def add(
        self, facts: Iterable[Fact], *, run: Run, patterns: Iterable[Abstraction] = (), examined: Iterable[int] = ()
    ) -> Added:
        """Store facts in one transaction; one that cannot be stored is refused with a line, the others are kept.

        Refused are facts with an empty or overlong name or kind, with no quote, or with a quote that is not in its
        chunk. What the same run found at the same place before is not counted again.

        Args:
            facts: What was found.
            run: What found them; begun in this store.
            patterns: Abstract patterns that the same texts show.
            examined: Ids of the chunks that the run has read now; they are noted with the facts.

        Raises:
            InputError: the run was not begun in this store, or was removed.
            StoreError: the store could not be written.
        """
        given, abstract = list(facts), list(patterns)
        with self._writing():
            added = graph_writing.add(self._db, given, abstract, run)
            seen.mark(self._db, run, examined)
        return added

    def unexamined(self, run: Run, *, where: Filter | None = None) -> list[Passage]:
        """The chunks that no run of the same kind, model and prompt has read yet."""
        with self._reading():
            return seen.left(self._db, run, where)

    def runs(self) -> list[Run]:
        """Every run, oldest first."""
        with self._reading():
            return graph_view.runs(self._db)

    def remove_run(self, run_id: int) -> int:
        """Take out a run and what only it found; returns how many pieces of evidence went.

        Raises:
            InputError: there is no such run.
            StoreError: the store could not be written.
        """
        with self._writing():
            return graph_writing.remove_run(self._db, run_id)

    def counts(self) -> GraphCounts:
        """How much is in the graph."""
        with self._reading():
            return graph_view.counts(self._db)

    def find(self, text: str, *, k: int = 10) -> list[Entity]:
        """The entities that the text may mean, best first: by name, alias, beginning of a name, words.

        Raises:
            ConfigError: `k` is less than 1.
        """
        _check("k", k, 1)
        with self._reading():
            return graph_find.find(self._db, text, k=k)

    def entity(self, name_or_id: str | int) -> Entity:
        """The entity of a name, an alias or an id; a merged one is seen as what it was merged into.

        Raises:
            InputError: there is none; the message names those that come near.
        """
        with self._reading():
            root = graph_find.root_of(self._db, name_or_id)
            return graph_view.entities(self._db, [root])[root]

    def evidence(self, relation_ids: Sequence[int]) -> dict[int, tuple[Evidence, ...]]:
        """The quotes that relations stand on, by relation id; ids that are not in the graph are left out."""
        with self._reading():
            return graph_view.evidence(self._db, relation_ids)

    def whole(self, *, limit: int | None = None) -> Graph:
        """The graph with its evidence, best connected entities first; with a limit only so many entities.

        Raises:
            ConfigError: the limit is less than 1.
        """
        _check("limit", 1 if limit is None else limit, 1)
        with self._reading():
            roots = graph_walk.best_connected(self._db, limit=limit)
            return graph_view.graph_of(self._db, roots, is_whole=limit is None)

    def neighbourhood(self, entity_id: int, *, hops: int = 1, fan_out: int = 25) -> Graph:
        """The entity and what is near it, nearest first, with every relation among them.

        Args:
            entity_id: The middle.
            hops: How far to go.
            fan_out: Neighbours followed from each entity: those with most evidence.

        Raises:
            InputError: there is no such entity.
            ConfigError: hops or fan_out is out of range.
        """
        _check("hops", hops, 0, MAX_HOPS)
        _check("fan_out", fan_out, 1)
        with self._reading():
            root = graph_find.root_of(self._db, entity_id)
            return graph_view.graph_of(self._db, graph_walk.within(self._db, root, hops=hops, fan_out=fan_out))

    def paths(
        self, source_id: int, target_id: int, *, most: int = 3, max_hops: int = 6, fan_out: int = 50
    ) -> list[GraphPath]:
        """The shortest walks between two entities, shortest first, of equal ones that with most evidence first.

        Relations may be walked against their direction; between two entities the relation with most evidence stands
        for all. No walk meets an entity twice.

        Args:
            source_id: Where to begin.
            target_id: Where to end.
            most: Walks wanted.
            max_hops: Longest walk.
            fan_out: Neighbours followed from each entity: those with most evidence.

        Raises:
            InputError: there is no such entity.
            ConfigError: most, max_hops or fan_out is out of range.
        """
        _check("most", most, 1)
        _check("max_hops", max_hops, 1, MAX_HOPS)
        _check("fan_out", fan_out, 1)
        with self._reading():
            source, target = (graph_find.root_of(self._db, id) for id in (source_id, target_id))
            walks = graph_walk.paths(self._db, source, target, most=most, max_hops=max_hops, fan_out=fan_out)
            on_walks = list(dict.fromkeys(root for walk in walks for root in walk))
            known = graph_view.entities(self._db, on_walks)
            relations = graph_view.relations_among(self._db, on_walks)
        return [_path(walk, known, relations) for walk in walks]

    def merge(self, keep_id: int, gone_id: int) -> Merge:
        """Decide that two entities are one, seen under the name of the first; `unmerge` takes it back.

        Raises:
            InputError: they are one already, or there is no such entity.
            StoreError: the store could not be written.
        """
        with self._writing():
            return graph_merges.merge(self._db, keep_id, gone_id)

    def unmerge(self, gone_id: int) -> None:
        """Take a merge back; what was merged into the entity before stays with it.

        Raises:
            InputError: the entity was not merged into another.
            StoreError: the store could not be written.
        """
        with self._writing():
            graph_merges.unmerge(self._db, gone_id)

    def merges(self) -> list[Merge]:
        """Every merge, oldest first."""
        with self._reading():
            return graph_merges.merges(self._db)

    def suggest_merges(self, *, k: int = 20) -> list[MergeSuggestion]:
        """Entities that may be one, most alike first, by spelling and by the store's embedder; nothing is merged.

        Raises:
            ConfigError: `k` is less than 1.
            BackendError: the embedder failed.
        """
        _check("k", k, 1)
        with self._reading():
            compared = graph_suggestions.candidates(self._db)
        return graph_suggestions.suggest(compared, self._embedder(), k=k) if compared else []

    def communities(self) -> list[tuple[int, ...]]:
        """Ids of entities that hang together more than with others; largest group first."""
        with self._reading():
            return graph_measures.communities(self._db)

    def centrality(self) -> dict[int, float]:
        """PageRank by entity id, highest first.

        Raises:
            ConfigError: rustworkx is not installed.
        """
        with self._reading():
            return graph_measures.centrality(self._db)

    def patterns(self, *, entity_id: int | None = None) -> list[Pattern]:
        """The abstract patterns, those shown most often first; with an entity only those that it has a place in.

        Raises:
            InputError: there is no such entity.
        """
        with self._reading():
            root = None if entity_id is None else graph_find.root_of(self._db, entity_id)
            return graph_patterns.patterns(self._db, root=root)

    def pattern_uses(self, pattern_id: int) -> list[PatternUse]:
        """The concrete walks that share a pattern, each with the words that show it.

        Raises:
            InputError: there is no such pattern.
        """
        with self._reading():
            return graph_patterns.uses(self._db, pattern_id)

    def analogies(self, pattern_id: int, *, k: int = 20) -> list[Analogy]:
        """Parts of the graph that follow a pattern, shown by a text or not, those with most evidence first.

        A symbol is one entity throughout, and no two symbols are the same; a search that grows too large ends early.

        Raises:
            InputError: there is no such pattern.
            ConfigError: `k` is less than 1.
        """
        _check("k", k, 1)
        with self._reading():
            steps = graph_patterns.steps(self._db, pattern_id)
            walks = graph_analogies.walks(self._db, steps, k=k)
            known = graph_view.entities(self._db, list({root for bound, _ in walks for root in bound.values()}))
        return [
            Analogy(entities=tuple(known[bound[symbol]] for symbol in sorted(bound)), relations=relations)
            for bound, relations in walks
        ]

    def quotes(self, source: str, spans: Iterable[tuple[int, int]]) -> list[tuple[Quote, ...]]:
        """For each range of characters in a document's text the quotes that cover it, one for each chunk it touches.

        White space at the ends of chunks is left out; a range outside every chunk has no quote.
        """
        wanted = list(spans)
        with self._reading():
            return graph_view.quotes(self._db, source, wanted)

    def has_evidence(self, source: str, *, kind: RunKind) -> bool:
        """Whether a run of that kind found a relation or a pattern in the document."""
        with self._reading():
            return graph_view.has_evidence(self._db, source, kind)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._using(), driver.reading(self._db):
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._using(), driver.writing(self._db):
            yield


def _check(name: str, value: int, least: int, most: int | None = None) -> None:
    if value < least or (most is not None and value > most):
        raise ConfigError(f"{name} is {value}; it must be {least} {'or more' if most is None else f'to {most}'}")


def _path(walk: Sequence[int], known: dict[int, Entity], relations: Sequence[Relation]) -> GraphPath:
    steps = [_strongest(here, there, relations) for here, there in pairwise(walk)]
    return GraphPath(entities=tuple(known[root] for root in walk), relations=tuple(steps))


def _strongest(here: int, there: int, relations: Sequence[Relation]) -> Relation:
    """Of the relations between two entities that with most evidence, one along the walk rather than against it."""
    ends = {(here, there), (there, here)}
    between = [relation for relation in relations if (relation.source, relation.target) in ends]
    return min(between, key=lambda r: (-r.weight, r.source != here, r.kind))
