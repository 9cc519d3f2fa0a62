"""How often a search finds what answers: the bundled library's questions, and a biology textbook's own.

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
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

from preflexor_agents.evaluation.scoring import states
from preflexor_agents.store import Store, driver, vectors
from preflexor_agents.store.fulltext import by_words
from preflexor_training.nano.questions import Question, library_questions

TEXTBOOK = Path(__file__).resolve().parents[2] / "shared" / "data" / "corpus-openstax-biology-md" / "contents"
SHOWN = (3, 5, 6)
DEPTH = 10
COMPARISONS = 400
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
    """One line per k: the share of held-out questions for which the passages state every value that is wanted."""
    questions = library_questions("heldout")
    comparisons = [q for q in questions if q.kind == "comparison"]
    random.Random(5).shuffle(comparisons)
    asked = [q for q in questions if q.kind == "single"] + comparisons[:COMPARISONS]
    with tempfile.TemporaryDirectory() as work, Store.open(Path(work) / "a.db", embedder=embedder) as store:
        with as_file(files("preflexor_agents") / "data" / "library") as notes:
            store.ingest([notes])
        right = {k: {"single": 0, "comparison": 0} for k in SHOWN}
        for question in asked:
            texts = [passage.text for passage in store.search(question.text, k=max(SHOWN))]
            for k in SHOWN:
                right[k][question.kind] += _holds(texts[:k], question)
    of = {kind: sum(q.kind == kind for q in asked) for kind in ("single", "comparison")}
    lines = []
    for k in SHOWN:
        shares = [f"{right[k][kind] / of[kind]:.1%}" for kind in of]
        lines.append(
            f"| {embedder.split('/')[-1]} | {k} | {' | '.join(shares)} | {sum(right[k].values()) / len(asked):.1%} |"
        )
    return lines


def _holds(texts: Sequence[str], question: Question) -> bool:
    wanted = question.numbers or (question.value,)
    return all(any(states(text, value) for text in texts) for value in wanted)


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
    shares = (sum(rank <= k for rank in hits) / len(ranks) for k in (1, 5, 10))
    return Score(*shares, sum(1 / rank for rank in hits) / len(ranks))


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
            ways = {"words": _words(store), "vectors": _vectors(store), "both": _both(store)}
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
            return _names(store, [hit.chunk_id for hit in by_words(store._db, query, k=50)])

    return search


def _vectors(store: Store) -> Callable[[str], list[str]]:
    def search(query: str) -> list[str]:
        vector = store._opened_embedder().embed_query(query)
        with store._using(), driver.reading(store._db):
            space = vectors.space_of(store._db)
            assert space is not None
            hits = vectors.nearest(store._db, space, vector, k=50, has_vec=store._has_vec, matrix=store._matrix)
            return _names(store, [hit.chunk_id for hit in hits])

    return search


def _both(store: Store) -> Callable[[str], list[str]]:
    return lambda query: [Path(passage.source).name for passage in store.search(query, k=50)]


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
    lines = ["## The bundled library: every value that is asked for is in the k passages", ""]
    lines += ["| embedder | k | single facts | comparisons | all |", "|---|---:|---:|---:|---:|"]
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
