"""Forge runs from the outside: order, resume, refusals to mix runs, budgets, and every failure by its kind."""

import asyncio
import errno
import itertools
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from preflexor_agents.backends.base import Completion, Delta, Request
from preflexor_agents.backends.scripted import Reply, ScriptedBackend
from preflexor_agents.budget import Budget
from preflexor_agents.errors import BackendError, DiskError, InputError
from preflexor_agents.preference_rows import LOG
from preflexor_agents.prompts import JUDGE
from preflexor_agents.store import Store, browsing
from preflexor_training.forge.calls import BackendGone, Model
from preflexor_training.forge.folder import read_settings
from preflexor_training.forge.records import Span, from_json, to_json
from preflexor_training.forge.run import SLOTS, forge, forge_ahead
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Who
from preflexor_training.forge.table import facts, line
from tests.training.forging import cast, flawed, rows_of, run, speak, timeless, work
from tests.training.teaching import LIBRARY, library, task_of

ROWS = int(os.environ.get("PREFLEXOR_FORGE_ROWS", "40"))
VARIANTS = ("plain", "graph", "reflection", "typed", "direct")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with library(tmp_path_factory.mktemp("forge") / "store.db") as opened:
        yield opened


def is_task(request: Request, name: str) -> bool:
    return "Task: " in request.messages[-1].content and task_of(request) == name


def but(name: str, said: Callable[[Request], Reply] | Reply) -> Callable[[Request], Reply]:
    """The cast, with other words for one task of the teacher."""

    def reply(request: Request) -> Reply:
        if "straight away" in request.messages[-1].content or not is_task(request, name):
            return speak(request)
        return said(request) if callable(said) else said

    return reply


def words_at(store: Store, span: Span) -> str:
    """The words of the document that a span names."""
    sql = "SELECT substr(text, ?, ?) FROM document WHERE source = ?"
    with browsing.reading(store.path) as db:
        (words,) = db.conn.execute(sql, (span.start + 1, span.end - span.start, span.source)).fetchone()
    return str(words)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("phase", [1, 2])
def test_many_rows_hold_together(store: Store, tmp_path: Path, variant: Any, phase: Any) -> None:
    rows = ROWS if phase == 1 else 8
    report = run(store, tmp_path, rows=rows, variant=variant, phase=phase)
    made = rows_of(tmp_path)
    assert report.stopped == "rows" and [row.number for row in made] == list(range(rows))
    assert all(from_json(to_json(row)) == row for row in made)
    assert len({row.id for row in made}) == rows and report.tally.kept > rows // 2
    spans = {span for row in made for span in row.context}
    assert spans and all(sha256(words_at(store, span).encode()).hexdigest() == span.sha256 for span in spans)
    for row in made:
        if row.state == "kept":
            assert row.chosen.thinking and row.chosen.answer and row.rejected.answer
            assert (row.chosen.reflection is not None) == (variant == "reflection")
            assert (row.rejected.thinking is not None) == (phase == 2)


def test_a_run_goes_on_where_it_ended_and_more_rows_may_be_asked_for(store: Store, tmp_path: Path) -> None:
    run(store, tmp_path / "once", flawed, rows=12)
    run(store, tmp_path / "twice", flawed, rows=5)
    second = run(store, tmp_path / "twice", flawed, rows=12)
    assert timeless(tmp_path / "once") == timeless(tmp_path / "twice")
    assert second.tally.before == 5 and second.tally.done == 12
    third = run(store, tmp_path / "twice", flawed, rows=12)
    assert third.spending.paid == 0 and third.tally == replace(second.tally, before=12)
    fewer = run(store, tmp_path / "twice", flawed, rows=2)
    assert fewer.stopped == "rows" and fewer.tally == third.tally, "rows that are there stay"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 2}, r"seed = 0, and this one has 2 \(settings\.toml\)"),
        ({"variant": "graph"}, "variant = 'plain', and this one has 'graph'"),
        ({"samples": 4}, "samples = 1, and this one has 4"),
        ({"teacher_drawing": {"temperature": 0.5}}, r"teacher_drawing\.temperature = 0\.2, and this one has 0\.5"),
        ({"pack": "materials"}, "pack = 'general', and this one has 'materials'"),
    ],
)
def test_another_run_does_not_mix_into_a_folder(
    store: Store, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    run(store, tmp_path, rows=1)
    before = (tmp_path / LOG).read_bytes()
    with pytest.raises(InputError, match=said):
        run(store, tmp_path, **{"rows": 1, **change})
    assert (tmp_path / LOG).read_bytes() == before


def test_another_model_adapter_or_corpus_is_refused_by_name(store: Store, tmp_path: Path) -> None:
    run(store, tmp_path / "run", rows=1)
    begun = work(store, tmp_path / "run", rows=1)
    other = {**begun.models, "judge": Model(backend=ScriptedBackend([], spec="other"))}
    with pytest.raises(InputError, match=r"judge\.spec = 'scripted', and this one has 'other' \(run\.toml\)"):
        asyncio.run(forge(replace(begun, models=other)))
    adapter = {**begun.models, "student": Model(backend=begun.models["student"].backend, adapter_sha256="a" * 64)}
    with pytest.raises(InputError, match=r"student\.adapter_sha256 = '', and this one has 'aaa"):
        asyncio.run(forge(replace(begun, models=adapter)))
    note = tmp_path / "note.md"
    note.write_text("# Chitin\n\nChitin is a polysaccharide of the cuticle.", encoding="utf-8")
    with library(tmp_path / "grown.db") as grown:
        grown.ingest([note])
        with pytest.raises(InputError, match="documents_sha256"):
            run(grown, tmp_path / "run", rows=1)


def test_a_folder_with_pairs_of_something_else_is_left_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / LOG).write_text('{"prompt": "x"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"no settings\.toml, so it is no forge run"):
        run(store, tmp_path, rows=1)
    assert (tmp_path / LOG).read_text(encoding="utf-8") == '{"prompt": "x"}\n'


def test_the_settings_of_a_run_are_kept_complete_and_can_be_given_again(store: Store, tmp_path: Path) -> None:
    run(store, tmp_path, rows=1, topics=("silk", 'a "b"\n'), contexts="topic")
    kept = read_settings(tmp_path / "settings.toml")
    assert kept == ForgeSettings(rows=1, topics=("silk", 'a "b"\n'), contexts="topic")


def test_the_order_of_rows_and_their_content_do_not_depend_on_how_many_calls_are_made_at_once(
    store: Store, tmp_path: Path
) -> None:
    for slots in (1, 3, 16):
        asyncio.run(forge(replace(work(store, tmp_path / str(slots), flawed, rows=15), slots=slots)))
    assert timeless(tmp_path / "1") == timeless(tmp_path / "3") == timeless(tmp_path / "16")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store of few passages, so that the same come again, and with them the same questions."""
    with Store.open(tmp_path_factory.mktemp("small") / "store.db", embedder="hash") as opened:
        opened.ingest(sorted(LIBRARY.glob("*.md"))[:3])
        yield opened


class Counting(ScriptedBackend):
    """Notes how many calls are made at once, and each one's task."""

    def __init__(self) -> None:
        super().__init__(speak)
        self.at_once = self.most = 0
        self.tasks: list[str] = []

    async def generate(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        asked = request.messages[-1].content
        self.tasks.append(task_of(request) if "Task: " in asked and "straight away" not in asked else "student")
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            async with aclosing(super().generate(request)) as items:
                async for item in items:
                    yield item
        finally:
            self.at_once -= 1


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_as_many_calls_are_made_at_once_as_are_allowed(store: Store, tmp_path: Path, slots: int) -> None:
    begun, backend = work(store, tmp_path, rows=16), Counting()
    asyncio.run(forge(replace(begun, models=cast(backend), slots=slots)))
    assert backend.most == slots


def test_with_one_slot_calls_are_made_in_the_published_serial_order(store: Store, tmp_path: Path) -> None:
    begun, backend = work(store, tmp_path, rows=3), Counting()
    asyncio.run(forge(replace(begun, models=cast(backend), slots=1)))
    tasks = [task for task, _ in itertools.groupby(backend.tasks)]
    row = ["question", "enrichment", "category", "background", "answer", "student"]
    assert sorted(tasks[:6]) == sorted(row) and tasks[0] == "question"
    assert tasks == tasks[:6] * 3


def test_of_two_rows_that_ask_alike_the_later_one_falls_before_it_costs_more(small: Store, tmp_path: Path) -> None:
    report = run(small, tmp_path, rows=16)
    made = rows_of(tmp_path)
    fell = [row for row in made if row.reason.startswith("duplicate")]
    assert report.tally.dropped["duplicate"] == len(fell) >= 3
    assert all(len(row.calls) == 1 and not row.question for row in fell)
    earlier = [int(row.reason.split("row ")[1].split()[0]) for row in fell]
    assert all(made[first].question and first < row.number for first, row in zip(earlier, fell, strict=True))


def test_a_resumed_run_still_knows_what_was_asked(small: Store, tmp_path: Path) -> None:
    run(small, tmp_path / "once", rows=16)
    for rows in (5, 11, 16):
        run(small, tmp_path / "thrice", rows=rows)
    assert timeless(tmp_path / "once") == timeless(tmp_path / "thrice")


@pytest.mark.parametrize(
    ("said", "kind"),
    [("", "empty"), ("I'm unable to answer that.", "refusal"), (BackendError("it broke"), "error")],
)
def test_a_row_whose_call_comes_to_nothing_is_counted_and_the_run_goes_on(
    store: Store, tmp_path: Path, said: Reply, kind: str
) -> None:
    def sometimes(request: Request) -> Reply:
        return said if is_task(request, "enrichment") and request.seed % 2 else speak(request)

    report = run(store, tmp_path, lambda r: speak(r) if "straight" in str(r.messages) else sometimes(r), rows=12)
    failed = [row for row in rows_of(tmp_path) if row.state == "failed"]
    if kind == "error":
        assert report.tally.failed.keys() == {kind} and report.tally.kept
    else:
        assert report.spending.failures.total() and report.tally.kept
    assert report.tally.done == 12 and all(row.reason.startswith(f"{kind}: ") for row in failed)
    assert all(any(call.error for call in row.calls) for row in failed)


def test_graphs_that_are_no_json_are_asked_for_again_and_then_counted(store: Store, tmp_path: Path) -> None:
    report = run(store, tmp_path, but("graph", "{ this is no JSON"), rows=4, variant="graph")
    assert report.tally.failed == {"malformed": 4} and report.spending.failures["malformed"] == 16


def test_a_judge_that_fails_or_always_prefers_the_first_accepts_no_pair(store: Store, tmp_path: Path) -> None:
    def judged(verdict: Reply) -> Callable[[Request], Reply]:
        return lambda request: verdict if JUDGE in request.messages[-1].content else speak(request)

    biased = run(store, tmp_path / "a", judged("Better: A"), rows=6, samples=3, verifier="judge")
    broken = run(store, tmp_path / "b", judged("hm"), rows=6, samples=3, verifier="judge")
    assert biased.tally.kept == 0 and biased.tally.dropped["tie"] == 6
    assert broken.tally.kept == 0 and broken.tally.dropped["judge_failed"] == 6


def test_a_backend_that_dies_half_way_stops_the_run_and_loses_nothing(store: Store, tmp_path: Path) -> None:
    run(store, tmp_path / "whole", rows=12)
    calls = 0

    def dying(request: Request) -> Reply:
        nonlocal calls
        calls += 1
        return speak(request) if calls <= 50 else BackendError("connection refused")

    with pytest.raises(BackendGone, match=r"scripted is gone: .*connection refused"):
        run(store, tmp_path / "run", dying, rows=12)
    assert all(row.state == "kept" for row in rows_of(tmp_path / "run")), "no row is blamed for it"
    again = run(store, tmp_path / "run", rows=12)
    assert 0 <= again.spending.paid - (120 - 50) <= SLOTS
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")


def test_a_backend_that_is_gone_from_the_beginning_leaves_no_row(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BackendGone, match="scripted is gone: no server"):
        run(store, tmp_path, lambda _: BackendError("no server"), rows=2)
    assert rows_of(tmp_path) == []
    assert run(store, tmp_path, rows=2).tally.kept == 2


@pytest.mark.parametrize("tok", [40, 300, 1000])
def test_a_token_budget_is_kept_and_the_same_call_goes_on(store: Store, tmp_path: Path, tok: int) -> None:
    run(store, tmp_path / "whole", rows=8)
    spent = 0
    for _ in range(60):
        report = asyncio.run(forge(replace(work(store, tmp_path / "run", rows=8), budget=Budget(tok, 1e9))))
        assert report.spending.usage.generated <= tok
        spent += 1
        if report.stopped == "rows":
            break
        assert report.stopped == "budget_tokens"
    assert spent > 1 and timeless(tmp_path / "run") == timeless(tmp_path / "whole")


def test_a_time_budget_ends_the_run_between_two_words(store: Store, tmp_path: Path) -> None:
    asked = replace(work(store, tmp_path, rows=500), budget=Budget(1 << 40, 0.2))
    report = asyncio.run(forge(asked))
    assert report.stopped == "budget_seconds" and report.tally.done < 500
    assert len(rows_of(tmp_path)) == report.tally.done


@pytest.mark.parametrize("room", [200, 5000, 40_000])
def test_a_full_disk_stops_with_a_line_and_the_run_goes_on_later(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    run(store, tmp_path / "whole", rows=6)
    begun = work(store, tmp_path / "run", rows=6)
    write, left = os.write, room

    def full(file: int, data: Any) -> int:
        nonlocal left
        if len(data) > left and not os.isatty(file):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= len(data)
        return write(file, data)

    monkeypatch.setattr("preflexor_agents.json_lines.os.write", full)
    with pytest.raises(DiskError, match="No space left on device; free some space"):
        asyncio.run(forge(begun))
    monkeypatch.undo()
    run(store, tmp_path / "run", rows=6)
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")


def test_an_interrupted_run_keeps_what_was_paid_for(store: Store, tmp_path: Path) -> None:
    run(store, tmp_path / "whole", rows=6)
    paid = 0

    async def interrupted() -> None:
        nonlocal paid
        task = asyncio.create_task(forge(replace(work(store, tmp_path / "run", counting, rows=6))))
        with pytest.raises(asyncio.CancelledError):
            await task

    def counting(request: Request) -> Reply:
        nonlocal paid
        paid += 1
        if paid == 30:
            next(t for t in asyncio.all_tasks() if "forge" in repr(t.get_coro())).cancel()
        return speak(request)

    asyncio.run(interrupted())
    rest = run(store, tmp_path / "run", rows=6)
    assert rest.spending.paid + 30 - 60 <= SLOTS and timeless(tmp_path / "run") == timeless(tmp_path / "whole")


def test_the_good_sides_made_ahead_leave_only_the_student_to_be_asked(store: Store, tmp_path: Path) -> None:
    run(store, tmp_path / "whole", rows=6)
    begun = work(store, tmp_path / "run", rows=6)
    without: dict[Who, Model] = {"teacher": begun.models["teacher"], "judge": begun.models["judge"]}
    asyncio.run(forge_ahead(replace(begun, models=without)))
    report = run(store, tmp_path / "run", rows=6)
    assert report.spending.paid == 6 and report.spending.cached == 54
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")


def test_the_rows_of_a_run_are_found_in_the_store_by_their_chunks(store: Store, tmp_path: Path) -> None:
    report = run(store, tmp_path, rows=3, seed=11)
    made = rows_of(tmp_path)
    noted = store.forge.rows(report.run)
    assert [(row.id, row.state) for row in noted] == [(row.id, row.state) for row in made]
    chunk = made[0].context[0].chunk_id
    assert made[0].id in {row.id for row in store.forge.rows_of(chunk)}


def test_how_things_stand_is_said_in_a_line_and_in_a_table(store: Store, tmp_path: Path) -> None:
    said: list[str] = []
    asked = work(store, tmp_path, but("question", ""), rows=3)
    report = asyncio.run(forge(asked, watch=lambda tally, spending: said.append(line(tally, spending, seconds=36.0))))
    assert said[0] == "0 of 3 rows, 0 kept, 0 rows/h, 0 tokens written"
    assert said[-1].startswith("3 of 3 rows, 0 kept, 3 failed by empty, 300 rows/h")
    assert dict(facts(report.tally, report.spending, seconds=36.0))["tried again"] == "empty 12"
