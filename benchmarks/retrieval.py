"""How often a search finds what answers: the bundled library's questions, and a biology textbook's own.

Beside what a search gives stands what the order of its fused scores would give (`by score`).

python benchmarks/retrieval.py                                    the hash embedder
python benchmarks/retrieval.py --embedders hash,gguf:all-minilm-l6-v2-f16.gguf --out docs/benchmarks/retrieval.md

Of the textbook (OpenStax Biology as Markdown, in ../shared/data or --textbook) the glossaries and exercises are taken
out before it is ingested; they are the questions: a definition, a term, a review question must find its section.
"""

import argparse
import random
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

from preflexor_agents.evaluation.scoring import states
from preflexor_agents.events import Passage
from preflexor_agents.store import Store, driver, vectors
from preflexor_agents.store.fulltext import by_words
from preflexor_training.nano.questions import Question, library_questions

TEXTBOOK = Path(__file__).resolve().parents[2] / "shared" / "data" / "corpus-openstax-biology-md" / "contents"
SHOWN = (3, 5, 8, 12)
DEPTH = 10
FOUND = 50
EACH = 400
KINDS = ("single facts", "comparisons", "two steps", "three steps")
_EXERCISES = re.compile(r"^### (?:Art Connections|Review Questions|Free Response)$", re.MULTILINE)
_GLOSSARY = re.compile(r'^<div data-type="glossary"', re.MULTILINE)
_ENTRY = re.compile(r"^(?P<term>[^\n]{2,80})\n: (?P<definition>[^\n]{20,400})$", re.MULTILINE)
_PROBLEM = re.compile(r'<div data-type="problem" markdown="1">\n(?P<question>[^\n]{20,300})\n')


class Asked(NamedTuple):
    """A question and the sections that answer it."""

    kind: str
    text: str
    sections: frozenset[str]


class Score(NamedTuple):
    """Shares of questions whose section is first, among the first 5, among the first 10; mean reciprocal rank."""

    at_1: float
    at_5: float
    at_10: float
    mrr: float


def bundled(embedder: str) -> list[str]:
    """One line per k and order: the share of held-out questions for which the passages hold all that is wanted."""
    asked = _asked()
    with tempfile.TemporaryDirectory() as work, Store.open(Path(work) / "a.db", embedder=embedder) as store:
        with as_file(files("preflexor_agents") / "data" / "library") as notes:
            store.ingest([notes])
        found = {kind: [(q, store.search(q.text, k=FOUND)) for q in some] for kind, some in asked.items()}
    lines = []
    for k in SHOWN:
        for way, order in (("by score", _by_score), ("covering", list)):
            cells = [embedder.split("/")[-1], str(k), way]
            for some in found.values():
                cells.append(f"{sum(_holds(order(passages)[:k], q) for q, passages in some) / len(some):.1%}")
            named = [_names_both(order(passages)[:k], q) for q, passages in found["comparisons"]]
            cells.append(f"{sum(named) / len(named):.1%}")
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _asked() -> dict[str, list[Question]]:
    """Held-out questions by how many facts have to be found: at most so many of each kind."""
    kinds: dict[str, list[Question]] = {kind: [] for kind in KINDS}
    for question in library_questions("heldout"):
        match question.kind:
            case "single":
                kinds["single facts"].append(question)
            case "comparison":
                kinds["three steps" if question.key else "comparisons"].append(question)
            case "two-hop":
                kinds["two steps"].append(question)
    for kind, questions in kinds.items():
        if kind != "single facts":
            random.Random(5).shuffle(questions)
            del questions[EACH:]
    return kinds


def _by_score(passages: Sequence[Passage]) -> list[Passage]:
    return sorted(passages, key=lambda p: (-p.score, p.chunk_id))


def _holds(passages: Sequence[Passage], question: Question) -> bool:
    """Whether every value that is asked for is there, and the one that tells the material where it is not named."""
    wanted = question.numbers or (question.value,)
    told = all(any(states(passage.text, value) for passage in passages) for value in wanted)
    key = question.key
    own = [passage for passage in passages if Path(passage.source).name == question.note]
    return told and (key is None or any(states(passage.text, key.value) for passage in own))


def _names_both(passages: Sequence[Passage], question: Question) -> bool:
    texts = [f"{passage.title} {passage.text}".lower() for passage in passages]
    return all(any(name.lower() in text for text in texts) for name in (question.material, question.other))


def read_textbook(folder: Path, into: Path, documents: int | None) -> list[Asked]:
    """Write the sections without exercises and glossary; returns the questions that these were."""
    found: dict[tuple[str, str], set[str]] = {}
    for file in sorted(folder.glob("*.md"))[:documents]:
        text = file.read_text(encoding="utf-8")
        ends = [match.start() for pattern in (_EXERCISES, _GLOSSARY) if (match := pattern.search(text))]
        (into / file.name).write_text(text[: min(ends, default=len(text))], encoding="utf-8")
        if glossary := _GLOSSARY.search(text):
            for entry in _ENTRY.finditer(text, glossary.end()):
                term, definition = _plain(entry["term"]), _plain(entry["definition"])
                found.setdefault(("term", f"What is meant by {term}?"), set()).add(file.name)
                found.setdefault(("definition", definition), set()).add(file.name)
        for problem in _PROBLEM.finditer(text, min(ends, default=len(text))):
            found.setdefault(("exercise", _plain(problem["question"])), set()).add(file.name)
    return [Asked(kind, text, frozenset(sections)) for (kind, text), sections in found.items()]


def _plain(markdown: str) -> str:
    return re.sub(r"<[^>]+>|[*_]|\{:[^}]*\}|\[([^\]]*)\]\([^)]*\)", r"\1", markdown).strip()


def score(asked: Sequence[Asked], search: Callable[[str], Sequence[str]]) -> Score:
    """How high the first right section stands among the sections that the search gives, best first."""
    ranks = []
    for question in asked:
        sections = list(dict.fromkeys(search(question.text)))[:DEPTH]
        ranks.append(next((rank for rank, name in enumerate(sections, 1) if name in question.sections), None))
    hits = [rank for rank in ranks if rank]
    at_1, at_5, at_10 = (sum(rank <= k for rank in hits) / len(ranks) for k in (1, 5, 10))
    return Score(at_1, at_5, at_10, sum(1 / rank for rank in hits) / len(ranks))


def textbook(folder: Path, embedder: str, *, documents: int | None, questions: int) -> list[str]:
    """One line for each kind of question and way of searching."""
    with tempfile.TemporaryDirectory() as work:
        notes = Path(work) / "notes"
        notes.mkdir()
        asked = read_textbook(folder, notes, documents)
        with Store.open(Path(work) / "a.db", embedder=embedder) as store:
            began = time.perf_counter()
            report = store.ingest([notes])
            print(f"{embedder}: {report}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
            ways = {"words": _words(store), "vectors": _vectors(store)}
            both = cache(lambda query: store.search(query, k=FOUND))
            ways["both, by score"] = lambda query: _sources(_by_score(both(query)))
            ways["both, covering"] = lambda query: _sources(both(query))
            lines = []
            for kind in ("definition", "term", "exercise"):
                some = [q for q in asked if q.kind == kind]
                random.Random(3).shuffle(some)
                for way, search in ways.items():
                    s = score(some[:questions], search)
                    cells = [embedder.split("/")[-1], kind, str(len(some[:questions])), way]
                    cells += [f"{s.at_1:.1%}", f"{s.at_5:.1%}", f"{s.at_10:.1%}", f"{s.mrr:.3f}"]
                    lines.append(f"| {' | '.join(cells)} |")
    return lines


def _names(store: Store, chunk_ids: Sequence[int]) -> list[str]:
    sql = "SELECT d.source FROM chunk c JOIN document d ON d.id = c.document_id WHERE c.id = ?"
    return [Path(store._db.conn.execute(sql, (id,)).fetchone()[0]).name for id in chunk_ids]


def _words(store: Store) -> Callable[[str], list[str]]:
    def search(query: str) -> list[str]:
        with store._using(), driver.reading(store._db):
            return _names(store, [hit.chunk_id for hit in by_words(store._db, query, k=FOUND)])

    return search


def _vectors(store: Store) -> Callable[[str], list[str]]:
    def search(query: str) -> list[str]:
        vector = store._opened_embedder().embed_query(query)
        with store._using(), driver.reading(store._db):
            space = vectors.space_of(store._db)
            assert space is not None
            hits = vectors.nearest(store._db, space, vector, k=FOUND, has_vec=store._has_vec, matrix=store._matrix)
            return _names(store, [hit.chunk_id for hit in hits])

    return search


def _sources(passages: Sequence[Passage]) -> list[str]:
    return [Path(passage.source).name for passage in passages]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedders", default="hash")
    parser.add_argument("--textbook", type=Path, default=TEXTBOOK)
    parser.add_argument("--documents", type=int, help="sections of the textbook to take; all by default")
    parser.add_argument("--questions", type=int, default=300, help="of each kind")
    parser.add_argument("--out", type=Path, help="write the tables into this Markdown file too")
    args = parser.parse_args()
    embedders = args.embedders.split(",")
    counts = ", ".join(f"{len(questions)} {kind}" for kind, questions in _asked().items())
    lines = ["## The bundled library: every value that is asked for is in the k passages", ""]
    lines += [f"Held-out questions: {counts}. Named: of a comparison, passages name both materials.", ""]
    lines += [f"| embedder | k | chosen | {' | '.join(KINDS)} | named |", "|---|---:|---|---:|---:|---:|---:|---:|"]
    for embedder in embedders:
        lines += bundled(embedder)
    lines += ["", "## A biology textbook: the right section is among the first", ""]
    if args.textbook.is_dir():
        lines += [
            "| embedder | question | n | search | 1 | 5 | 10 | MRR@10 |",
            "|---|---|---:|---|---:|---:|---:|---:|",
        ]
        for embedder in embedders:
            lines += textbook(args.textbook, embedder, documents=args.documents, questions=args.questions)
    else:
        lines.append(f"Left out: {args.textbook} does not exist; name it with --textbook.")
    print("\n".join(lines))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(page(lines), encoding="utf-8")


def page(lines: Sequence[str]) -> str:
    """The tables as a page, with the command that made them; of paths only the name is shown."""
    said = [re.sub(r"(gguf:|^)/[^,]*/", r"\1", word) for word in sys.argv[1:]]
    command = shlex.join(["python", "benchmarks/retrieval.py", *said])
    return "\n".join(["# Search: how often it finds what answers", "", "```", command, "```", "", *lines]) + "\n"


if __name__ == "__main__":
    main()
