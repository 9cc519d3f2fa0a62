"""Imports of graphs that models wrote into their thinking; see `preflexor_agents.graph.tagged` for the forms.

The text of a graph becomes a finding, so that every fact has words that can be looked up, and the facts go in under one
run per file. A record that was imported before is passed over, so that an import may be repeated or gone on with.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from preflexor_agents.errors import InputError
from preflexor_agents.graph import tagged
from preflexor_agents.graph.tagged import TaggedGraph
from preflexor_agents.graph.values import Abstraction, Added, Fact, Node, Run
from preflexor_agents.store.paths import as_text, printable, shown
from preflexor_agents.store.store import Store

OWNER = "import"
"""Owner of the findings that imports make."""
_MAX_FILE_BYTES = 500_000_000
_TEXT_KEYS = ("raw_output", "thinking", "text", "response", "output", "answer", "completion", "chosen", "graph_json")
_TITLE_KEYS = ("question", "prompt", "title", "paper_title")
_LONGEST_TITLE = 160

Report = Callable[[int, int], None]
"""Called with the records done and their total."""


class _Record(NamedTuple):
    name: str
    """Says which record of the file it is."""
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedImport:
    """What became of a file's graphs."""

    records: int
    graphs: int = 0
    """Records with a graph that can be read, those imported before included."""
    known: int = 0
    """Records that were imported before."""
    nodes: int = 0
    edges: int = 0
    """With both ends among the nodes."""
    dangling: tuple[str, ...] = ()
    """One line for each edge that was left out because an end of it is no node."""
    graphs_with_dangling: int = 0
    failed: tuple[str, ...] = ()
    """One line for each record without a readable graph."""
    added: Added = field(default_factory=Added)
    run: Run | None = None
    """None if nothing was new."""


def import_tagged(store: Store, path: Path, *, progress: Report | None = None) -> TaggedImport:
    """Import every graph of a file: `.jsonl` with a record per line, `.json`, or a text.

    Args:
        store: Where to.
        path: The file; records hold the model's output under a usual key such as `raw_output` or `text`.
        progress: Told after every record.

    Raises:
        InputError: the file cannot be read.
        StoreError: the store could not be written; what was imported before stays.
    """
    records = list(_records(path))
    work = _Import(store, note=as_text(path.absolute()))
    for done, record in enumerate(records, 1):
        work.take(record)
        if progress is not None:
            progress(done, len(records))
    return work.report(len(records))


@dataclass(slots=True)
class _Import:
    store: Store
    note: str
    run: Run | None = None
    graphs: list[TaggedGraph] = field(default_factory=list)
    known: int = 0
    dangling: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    added: list[Added] = field(default_factory=list)

    def take(self, record: _Record) -> None:
        """Import one record."""
        text = f"{record.title}\n\n{tagged.excerpt(record.text)}" if record.title else tagged.excerpt(record.text)
        graph = tagged.parse(text) if record.text.strip() else TaggedGraph(problem="it is empty")
        if graph.problem:
            self.failed.append(f"{record.name}: {printable(graph.problem)}")
            return
        self.graphs.append(graph)
        self.dangling += [f"{record.name}: {printable(line)}" for line in graph.dangling]
        title = printable(record.title or record.name)
        found = self.store.add_finding(text, owner=OWNER, title=title, author="import")
        if self.store.graph.has_evidence(found.source, kind="import"):
            self.known += 1
            return
        self.run = self.run or self.store.graph.begin(Run(kind="import", note=self.note))
        self._put(graph, found.source)

    def _put(self, graph: TaggedGraph, source: str) -> None:
        assert self.run is not None
        places = [(edge.start, edge.end) for edge in graph.edges] + [(p.start, p.end) for p in graph.patterns]
        quotes = self.store.graph.quotes(source, places)
        facts = [
            Fact(
                subject=Node(name=edge.source.name, type=edge.source.type),
                kind=edge.relation,
                object=Node(name=edge.target.name, type=edge.target.type),
                quotes=quote,
            )
            for edge, quote in zip(graph.edges, quotes, strict=False)
        ]
        shown_patterns = [
            Abstraction(steps=pattern.steps, names=pattern.names, quote=quote[0])
            for pattern, quote in zip(graph.patterns, quotes[len(graph.edges) :], strict=True)
            if quote
        ]
        self.added.append(self.store.graph.add(facts, run=self.run, patterns=shown_patterns))

    def report(self, records: int) -> TaggedImport:
        """What was done."""
        return TaggedImport(
            records=records,
            graphs=len(self.graphs),
            known=self.known,
            nodes=sum(len(graph.nodes) for graph in self.graphs),
            edges=sum(len(graph.edges) for graph in self.graphs),
            dangling=tuple(self.dangling),
            graphs_with_dangling=sum(bool(graph.dangling) for graph in self.graphs),
            failed=tuple(self.failed),
            added=Added(
                entities=sum(added.entities for added in self.added),
                relations=sum(added.relations for added in self.added),
                evidence=sum(added.evidence for added in self.added),
                patterns=sum(added.patterns for added in self.added),
                refused=tuple(line for added in self.added for line in added.refused),
            ),
            run=self.run,
        )


def _records(path: Path) -> Iterator[_Record]:
    try:
        if not path.is_file():
            raise InputError(f"{shown(path)} is no file; name a .jsonl, .json or text file with tagged graphs")
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise InputError(f"{shown(path)} has more than {_MAX_FILE_BYTES} bytes; split it")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{shown(path)} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{shown(path)} is no UTF-8 text; convert it") from error
    if path.suffix.lower() == ".jsonl":
        lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        yield from (_record(f"line {n}", _loaded(line), line) for n, line in lines)
        return
    value = _loaded(text) if path.suffix.lower() == ".json" else None
    if isinstance(value, list):
        yield from (_record(f"record {n}", each, "") for n, each in enumerate(value, 1))
        return
    yield _record(printable(path.name), value, text)


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _record(name: str, value: Any, text: str) -> _Record:
    """The text with the graph and what the record calls itself; a bare graph is a text of its own."""
    if not isinstance(value, dict) or "nodes" in value:
        return _Record(name, "", json.dumps(value, ensure_ascii=False, indent=1) if value and not text else text)
    texts = [value[key] for key in _TEXT_KEYS if isinstance(value.get(key), str) and value[key].strip()]
    best = next((text for text in texts if not tagged.parse(text).problem), texts[0] if texts else "")
    titles = (value.get(key) for key in _TITLE_KEYS)
    title = next((" ".join(t.split())[:_LONGEST_TITLE] for t in titles if isinstance(t, str) and t.strip()), "")
    return _Record(name, title, best)
