"""Makes rows by the hundred and checks every line of the log by itself: its form, its passages, its tags.

Passages are read again from the files that they came from, not from the store. Closing tags are counted in the replies
as they are exported, and in the log's own sections.
"""

import argparse
import asyncio
import hashlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from forge_backends import filled

from preflexor_agents.backends.base import Backend
from preflexor_agents.backends.llamacpp import LlamaCppBackend, nano_path
from preflexor_agents.backends.scripted import ScriptedBackend
from preflexor_agents.errors import InputError
from preflexor_agents.markup import parse
from preflexor_agents.preference_rows import LOG
from preflexor_agents.store import Store, browsing
from preflexor_training.forge.calls import Model
from preflexor_training.forge.exporting import written
from preflexor_training.forge.graphs import BLOCKS
from preflexor_training.forge.records import Row, Span, from_line
from preflexor_training.forge.run import Work, forge
from preflexor_training.forge.settings import Drawing, ForgeSettings
from preflexor_training.forge.steps import Who

CASTS = {
    "scripted": "a scripted teacher and student",
    "student": "a scripted teacher, nano as student with thinking",
    "nano": "nano in all parts, questions given",
}
NANO_TOK = 160
"""Most tokens of a reply of nano as a teacher; it often does not find an end."""
QUESTIONS = ("How tough is {}?", "What is {} made of?", "What makes {} strong?", "How does {} work?")
ROWS = 200


@dataclass(frozen=True, slots=True)
class Proof:
    """What some hundred rows of one variant came to."""

    cast: str
    variant: str
    rows: int
    kept: int
    fell: Mapping[str, int]
    """By kind."""
    calls: int
    spans: int
    faults: Mapping[str, int] = field(default_factory=dict)
    """What is wrong with rows, by kind; there should be nothing."""


def proved(store: Store, options: argparse.Namespace, *, say: Callable[[str], None]) -> list[Proof]:
    """The rows of each variant by each cast, checked."""
    found = []
    for cast in options.casts:
        for variant in options.variants:
            with tempfile.TemporaryDirectory() as folder:
                settings = settings_of(cast, variant, options.rows or ROWS, store, Path(folder))
                report = asyncio.run(made(store, settings, Path(folder) / "run", cast, threads=options.threads))
                assert report == "rows"
                found.append(checked(Path(folder) / "run" / LOG, cast, settings))
            say(f"{CASTS[cast]}: {variant} done")
    return found


def settings_of(cast: str, variant: str, rows: int, store: Store, folder: Path) -> ForgeSettings:
    given: dict[str, object] = {"rows": rows, "variant": variant}
    if cast == "student":
        given["phase"] = 2
    if cast == "nano":
        given |= {"phase": 2, "questions": questions(store, folder / "questions.jsonl")}
        given |= {"teacher_drawing": Drawing(temperature=0.2, max_tok=NANO_TOK)}
        if variant == "direct":
            given |= {"prompt": "grounded"}  # it thinks where it sees passages, as the agents show them
    return ForgeSettings.model_validate(given)


def questions(store: Store, path: Path) -> Path:
    """Questions about every document."""
    with browsing.reading(store.path) as db:
        titles = [row[0] for row in db.conn.execute("SELECT title FROM document ORDER BY title")]
    asked = [{"question": form.format(title.lower())} for form in QUESTIONS for title in titles]
    path.write_text("\n".join(map(json.dumps, asked)) + "\n", encoding="utf-8")
    return path


async def made(store: Store, settings: ForgeSettings, folder: Path, cast: str, *, threads: int) -> str:
    from tests.training.forging import speak
    from tests.training.teaching import task_of

    backends: dict[str, Backend] = {"scripted": ScriptedBackend(filled(speak, task_of))}
    if cast != "scripted":
        backends["nano"] = await LlamaCppBackend.open(nano_path(), spec="nano", threads=threads)
    parts: dict[Who, str] = dict.fromkeys(("teacher", "student", "judge"), "nano" if cast == "nano" else "scripted")
    if cast == "student":
        parts["student"] = "nano"
    try:
        models = {who: Model(backend=backends[name]) for who, name in parts.items()}
        return (await forge(Work(settings=settings, folder=folder, store=store, models=models))).stopped
    finally:
        for backend in backends.values():
            await backend.aclose()


def checked(log: Path, cast: str, settings: ForgeSettings) -> Proof:
    """Every line of a log."""
    faults, fell = Counter[str](), Counter[str]()
    rows: list[Row] = []
    for line in log.read_bytes().splitlines():
        try:
            rows.append(from_line(line))
        except InputError:
            faults["form"] += 1
    faults["numbers"] = [row.number for row in rows] != list(range(settings.rows))
    for row in rows:
        faults["passages"] += sum(not stands(span) for span in row.context)
        if row.state == "kept":
            faults["tags"] += not closed(row)
            faults["without passages"] += not row.context
        else:
            fell[f"{row.state} as {row.reason.partition(':')[0]}"] += 1
    return Proof(
        cast=CASTS[cast],
        variant=settings.variant,
        rows=len(rows),
        kept=len(rows) - fell.total(),
        fell=fell,
        calls=sum(len(row.calls) for row in rows),
        spans=sum(len(row.context) for row in rows),
        faults=+faults,
    )


@cache
def text_of(source: str) -> str:
    return Path(source).read_text(encoding="utf-8")


def stands(span: Span) -> bool:
    """Whether the file says there what the row says that it says."""
    words = text_of(span.source)[span.start : span.end]
    return bool(words) and hashlib.sha256(words.encode()).hexdigest() == span.sha256


def closed(row: Row) -> bool:
    """Whether each section that is opened in either reply is closed, once, and the chosen one has what it must have."""
    for reply in (row.chosen, row.rejected):
        text = written(reply)
        tags = re.findall(r"<\|(/?)(thinking|reflect)\|>", text)
        wanted = [
            name for name, said in (("thinking", reply.thinking), ("reflect", reply.reflection)) if said is not None
        ]
        if tags != [(slash, name) for name in wanted for slash in ("", "/")] or not reply.answer.strip():
            return False
        sections = parse(text)
        if sections.problems or sections.answer != reply.answer.strip():
            return False
    thinking = row.chosen.thinking or ""
    if row.variant == "typed" and any(thinking.count(f"<{s}{b}>") != 1 for b in BLOCKS for s in ("", "/")):
        return False
    if row.variant == "direct":  # whose teacher reflects or does not
        return bool(thinking.strip())
    return bool(thinking.strip()) and (row.chosen.reflection is not None) == (row.variant == "reflection")


def table(proofs: Sequence[Proof]) -> list[str]:
    """A line for each cast and variant, as Markdown."""
    heads = ["models", "variant", "rows", "kept", "fell", "calls", "passages read again", "wrong"]
    cells = [
        [
            *(proof.cast, proof.variant, str(proof.rows), str(proof.kept)),
            ", ".join(f"{count} {kind}" for kind, count in sorted(proof.fell.items(), key=lambda item: -item[1])),
            *(f"{proof.calls:,}", f"{proof.spans:,}"),
            ", ".join(f"{count} {kind}" for kind, count in proof.faults.items()) or "nothing",
        ]
        for proof in proofs
    ]
    return lines_of(heads, cells, numbers=2)


def lines_of(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> list[str]:
    """A Markdown table whose columns from `numbers` on stand to the right."""
    rule = ["---"] * numbers + ["---:"] * (len(heads) - numbers)
    return [f"| {' | '.join(line)} |" for line in (heads, rule, *rows)]
