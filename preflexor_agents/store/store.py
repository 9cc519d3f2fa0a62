"""The knowledge store: one SQLite file with documents, their chunks, a full-text index and vectors.

A store has one connection, guarded by a lock, so that any thread may call it. Several processes may use one file:
readers never wait, writers wait for one another, and one document is one transaction.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlite_utils import Database

from preflexor_agents.errors import StoreError, StoreFileError
from preflexor_agents.events import Citation, Cited, Passage
from preflexor_agents.store import citations, driver, findings, ingest, places, schema, search, vectors
from preflexor_agents.store.embedders import Embedder, open_embedder
from preflexor_agents.store.filters import Filter
from preflexor_agents.store.findings import Finding
from preflexor_agents.store.forge_index import ForgeIndex
from preflexor_agents.store.ingest import Target
from preflexor_agents.store.knowledge_graph import KnowledgeGraph
from preflexor_agents.store.matrix import Matrix
from preflexor_agents.store.paths import shown
from preflexor_agents.store.records import IngestProgress, IngestReport, StoreStats
from preflexor_agents.store.reindex import ReindexProgress, ReindexReport, reindex
from preflexor_agents.store.search import Found, Reranker, Search
from preflexor_agents.store.vectors import Space

DEFAULT_EMBEDDER = "hash"


class Store:
    """An open knowledge store; use it as a context manager or call `close`."""

    def __init__(self, db: Database, path: Path, embedder: Embedder | None) -> None:
        self.path = path
        self._db = db
        self._lock = threading.Lock()
        self._has_vec = driver.load_vec(db.conn)
        self._matrix = Matrix()
        self._embedder = embedder
        self._agreed = False
        """Whether the store was seen to have the embedder; if it has another later, it was reindexed."""
        self._closed = False
        self.graph = KnowledgeGraph(db, using=self._using, embedder=self._opened_embedder)
        """The knowledge graph in the same file."""
        self.forge = ForgeIndex(db, using=self._using)
        """The rows of training data that were made from its chunks."""

    @classmethod
    def open(cls, path: str | PathLike[str], *, embedder: Embedder | str | None = None, create: bool = True) -> "Store":
        """Open the store in a file.

        Args:
            path: The file.
            embedder: An embedder or its SPEC. Default: the one that the store remembers, `hash` for a new store.
            create: Make the file and its folder if they do not exist.

        Raises:
            StoreFileError: the file cannot be used, or remembers another embedder.
            InputError: the SPEC is none.
        """
        file = Path(path)
        chosen = open_embedder(embedder) if isinstance(embedder, str) else embedder
        store = cls(schema.open_file(file, create=create), file, chosen)
        try:
            if chosen is not None:
                with store._using():
                    space = vectors.space_of(store._db)
                store._refuse_another(space, chosen)
                store._agreed = space is not None
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            self._closed = True
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ingest(
        self,
        paths: Iterable[Path],
        *,
        collection: str | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
    ) -> IngestReport:
        """Put files, folders and glob patterns of documents into the store.

        What is in the store unchanged is skipped; of a changed file the chunks that are the same stay, with their
        vectors and facts. A document is written whole or not at all; whatever ends the ingest, the documents done
        before stay, and the same call goes on with the rest.

        Args:
            paths: Markdown, text, HTML, PDF, DOCX, EPUB, JATS and source code; what plug-ins read too.
            collection: Where the documents belong. Default: where they are, `default` for new ones.
            progress: Called after every batch of chunks and at the end of every document.

        Raises:
            InputError: the collection's name is none.
            StoreError: the store could not be written: locked, read-only, disk full.
            BackendError: the embedder failed.
        """
        return ingest.ingest(self._target(), paths, collection=collection, progress=progress)

    def remove(self, source: str | PathLike[str]) -> tuple[str, ...]:
        """Take out a document by its source, or all documents under a folder; returns their sources.

        Nothing that was made of them stays: chunks, vectors, pages, facts that stood on them alone.

        Raises:
            StoreError: the store could not be written.
        """
        return ingest.remove(self._target(), source)

    def add_finding(
        self,
        text: str,
        *,
        owner: str,
        author: str = "",
        title: str = "Finding",
        mime_type: str = "text/plain",
        metadata: Mapping[str, Any] | None = None,
    ) -> Finding:
        """Keep a text that is in no file, with where it came from; it is found and cited like a document.

        The same text from the same owner is kept once; the later author, title and metadata count.

        Raises:
            InputError: the text is empty, or the metadata is no JSON.
            StoreError: the store could not be written: locked, read-only, disk full.
            BackendError: the embedder failed.
        """
        found = findings.finding(text, owner=owner, author=author, title=title, mime_type=mime_type, metadata=metadata)
        document = findings.as_document(found)
        ingest.put(self._target(), document, record=lambda: findings.record(self._db, found))
        return found

    def findings(self, *, owner: str | None = None, source: str | None = None) -> list[Finding]:
        """The findings in the store, oldest first: all, those of an owner, or the one of a passage's source."""
        with self._using():
            return findings.read(self._db, owner=owner, source=source)

    def remove_finding(self, source: str) -> bool:
        """Take a finding out of the store with all that was made of it; False if there is none of that source."""
        return self._remove_findings(source=source) > 0

    def clear_findings(self, owner: str) -> int:
        """Take out all findings of an owner, and nothing else; returns how many they were."""
        return self._remove_findings(owner=owner)

    def search(
        self,
        query: str,
        *,
        k: int = 5,
        where: Filter | None = None,
        diversity: float = 0.0,
        reranker: Reranker | None = None,
    ) -> list[Passage]:
        """The best passage, and after it those that tell most of what is asked and not told yet; at most `k`.

        Ranks by bm25 and by vectors are fused by reciprocal rank, ties broken by id. Of the 50 best, each next passage
        counts by the query's words that it has, those that were told already for less, times its fused score. No query
        text is an error; one without words finds nothing.

        Args:
            query: Any text.
            k: How many passages at most, 1 to 1000.
            where: Which documents to look at. Default: all.
            diversity: 0 to 1; how much a passage loses by being like a better one (maximal marginal relevance).
            reranker: Judges the best passages again; its order counts then, `Passage.score` stays the fused one.

        Raises:
            ConfigError: `k` or `diversity` is out of range.
            StoreError: the store could not be read.
            BackendError: the embedder or the reranker failed.
        """
        among = where.condition() if where else None
        asked = search.asked(query, k=k, among=among, diversity=diversity)
        found = self._find(asked) if query.strip() else None
        return search.choose(asked, found, reranker) if found else []

    def reindex(
        self, embedder: Embedder | str, *, progress: Callable[[ReindexProgress], None] | None = None
    ) -> ReindexReport:
        """Give the store another embedder: its vectors are made beside the old ones, which answer until all are there.

        Whatever ends it, the store stays as it was for searching, and the same call goes on where it ended.

        Args:
            embedder: An embedder or its SPEC.
            progress: Called after each batch of chunks.

        Raises:
            InputError: the SPEC is none.
            StoreError: the store could not be written, or another process gave it another embedder meanwhile.
            BackendError: the embedder failed.
        """
        chosen = open_embedder(embedder) if isinstance(embedder, str) else embedder
        done = reindex(self._db, self._using, chosen, has_vec=self._has_vec, progress=progress)
        self._embedder = chosen
        return done

    def _find(self, asked: Search) -> Found | None:
        """What there is to choose from; None in a store without documents."""
        while True:
            with self._using():
                space = vectors.space_of(self._db)
            if space is None:
                return None
            vector = self._opened_embedder().embed_query(asked.query)
            with self._using(), driver.reading(self._db):
                if vectors.space_of(self._db) == space:
                    return search.find(
                        self._db, asked, space=space, vector=vector, has_vec=self._has_vec, matrix=self._matrix
                    )

    def cite(self, answer: str, passages: Sequence[Passage]) -> Cited:
        """For each sentence of the answer the words in the passages that it stands on, checked against the documents.

        A quote that no longer stands in its document is left out, and its sentence counts as unsupported.

        Raises:
            StoreError: the store could not be read.
        """
        found = citations.cite(answer, passages)
        found = replace(found, citations=tuple(self._on_its_page(citation) for citation in found.citations))
        lost = {citation.claim for citation in found.citations if not self.check(citation)}
        return Cited(
            citations=tuple(citation for citation in found.citations if citation.claim not in lost),
            unsupported=tuple(s for s in citations.claims(answer) if s in lost or s in found.unsupported),
        )

    def check(self, citation: Citation) -> bool:
        """Whether the quote stands in the stored document at exactly its place and page."""
        with self._using(), driver.reading(self._db):
            return places.stands(self._db, citation)

    def words(self, source: str, start: int, end: int) -> str:
        """What a document says from one character offset to another; empty if it is not in the store."""
        with self._using(), driver.reading(self._db):
            return places.words(self._db, source, start, end)

    def stats(self) -> StoreStats:
        """What the store holds and how it searches."""
        with self._using(), driver.reading(self._db):
            conn = self._db.conn
            counts = conn.execute("SELECT count(*), coalesce(sum(length(text)), 0) FROM document").fetchone()
            chunks = conn.execute("SELECT count(*) FROM chunk").fetchone()[0]
            space = vectors.space_of(self._db)
            uses_vec = self._has_vec and (space is None or space.indexed)
            return StoreStats(
                path=str(self.path),
                documents=counts[0],
                chunks=chunks,
                characters=counts[1],
                embedder=space.name if space else None,
                dim=space.dim if space else None,
                vector_index=f"sqlite-vec {conn.execute('SELECT vec_version()').fetchone()[0]}" if uses_vec else "rows",
                schema_version=schema.version(self._db),
                sqlite_version=driver.sqlite3.sqlite_version,
                size_bytes=self.path.stat().st_size,
            )

    def _on_its_page(self, citation: Citation) -> Citation:
        with self._using():
            return replace(citation, page=places.page_at(self._db, citation.source, citation.start))

    @contextmanager
    def _using(self) -> Iterator[None]:
        """The connection for this thread alone; the driver's errors come out as ours."""
        with self._lock, driver.speaking_of(self.path):
            if self._closed:
                raise StoreError(f"store {shown(self.path)} is closed; open it again")
            yield

    def _target(self) -> Target:
        return Target(db=self._db, using=self._using, embedder=self._opened_embedder, has_vec=self._has_vec)

    def _remove_findings(self, *, owner: str | None = None, source: str | None = None) -> int:
        with self._using(), driver.writing(self._db):
            found = findings.read(self._db, owner=owner, source=source)
            findings.remove(self._db, found, has_vec=self._has_vec)
        return len(found)

    def _opened_embedder(self) -> Embedder:
        """The embedder of the space that is searched, opened at its first use; before there is one, the chosen one."""
        with self._using():
            space = vectors.space_of(self._db)
        embedder = self._embedder
        if embedder is None or (space is not None and space.name != embedder.name):
            if embedder is not None and not self._agreed:
                self._refuse_another(space, embedder)
            embedder = open_embedder(space.spec if space else DEFAULT_EMBEDDER)
            self._refuse_another(space, embedder)
        self._agreed = space is not None
        self._embedder = embedder
        return embedder

    def _refuse_another(self, space: Space | None, embedder: Embedder) -> None:
        if space is not None and space.name != embedder.name:
            raise StoreFileError(
                f"store {shown(self.path)} was built with embedder {space.spec} ({space.name}), not {embedder.spec} "
                f"({embedder.name}); leave the embedder out, or use `preflexor store reindex --embedder SPEC`"
            )
