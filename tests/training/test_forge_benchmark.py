"""The benchmark of forge runs, prints its tables, and its proof finds what is wrong with rows."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from preflexor_agents.preference_rows import LOG
from preflexor_training.forge.opening import rows_at_once
from preflexor_training.forge.records import Row, to_line
from preflexor_training.forge.run import forge
from preflexor_training.forge.settings import ForgeSettings
from tests.training.forging import rows_of, run, timeless, work
from tests.training.teaching import library

ROOT = Path(__file__).parents[2]
PAGE = "before\n<!-- results -->\nold\n<!-- end of results -->\n<!-- proof -->\nold\n<!-- end of proof -->\nafter\n"


def bench(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / "forge.py"), "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "|" in line][2:]


def test_rows_are_made_in_both_orders_and_the_table_is_put_into_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    quick = ["--cases", "waiting", "--rows", "2", "--runs", "1", "--seconds", "0.005", "--out", str(page)]
    done = bench(tmp_path, *quick, "--variants", "plain,graph")
    assert done.returncode == 0, done.stderr
    lines = cells(done.stdout)
    assert [line[1] for line in lines] == ["plain", "graph"]
    assert [line[3:5] for line in lines] == [["2 of 2", "10.0"], ["2 of 2", "13.0"]]
    text = page.read_text(encoding="utf-8")
    assert done.stdout.strip() in text and text.startswith("before\n") and text.endswith("after\n")
    assert text.count("old") == 1, "the other part of the page is left alone"


def test_nano_does_the_work_of_a_row_on_every_side(tmp_path: Path) -> None:
    quick = ["--cases", "engine", "--rows", "1", "--runs", "1", "--length", "0", "--variants", "plain"]
    done = bench(tmp_path, *quick)
    assert done.returncode == 0, done.stderr
    lines = cells(done.stdout)
    assert len(lines) == 3 and all(line[3:5] == ["1 of 1", "10.0"] for line in lines)


def test_the_proof_makes_rows_of_each_cast_and_finds_nothing_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    done = bench(
        tmp_path,
        "--prove",
        "--casts",
        "scripted,student",
        "--rows",
        "2",
        "--variants",
        "reflection",
        "--out",
        str(page),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| nothing |") == 2 and done.stdout.strip() in page.read_text(encoding="utf-8")


def test_arguments_that_are_none_are_refused(tmp_path: Path) -> None:
    assert "'nonsense' is none of waiting, engine" in bench(tmp_path, "--cases", "nonsense").stderr
    assert "no page with a place for results" in bench(tmp_path, "--out", str(tmp_path / "none.md")).stderr


@pytest.fixture
def proof(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import forge_proof

    return forge_proof


def spoilt(row: Row, kind: str) -> Row:
    match kind:
        case "passages":
            return replace(row, context=(replace(row.context[0], start=row.context[0].start + 1), *row.context[1:]))
        case "tags":
            return replace(row, chosen=replace(row.chosen, thinking=f"{row.chosen.thinking}<synthesis>"))
        case "form":
            return replace(row, number=-1)
    return replace(row, number=7)


@pytest.mark.parametrize("kind", ["passages", "tags", "form", "numbers"])
def test_the_proof_finds_what_is_wrong(tmp_path: Path, proof: Any, kind: str) -> None:
    with library(tmp_path / "store.db") as store:
        run(store, tmp_path / "run", rows=2, variant="typed")
    log, settings = tmp_path / "run" / LOG, ForgeSettings(rows=2, variant="typed")
    assert not proof.checked(log, "scripted", settings).faults
    first, second = rows_of(tmp_path / "run")
    log.write_text(to_line(first) + to_line(spoilt(second, kind)), encoding="utf-8")
    assert kind in proof.checked(log, "scripted", settings).faults


def test_the_proof_finds_a_section_that_is_not_closed(
    tmp_path: Path, proof: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with library(tmp_path / "store.db") as store:
        run(store, tmp_path / "run", rows=1)
    monkeypatch.setattr(proof, "written", lambda reply: f"<|thinking|>{reply.thinking}{reply.answer}")
    assert proof.checked(tmp_path / "run" / LOG, "scripted", ForgeSettings(rows=1)).faults == {"tags": 1}


def test_replies_are_filled_up_and_json_stays_json(proof: Any) -> None:
    from forge_backends import FEWEST_WORDS, filled

    from preflexor_agents.backends.base import Request
    from preflexor_agents.prompts import Message

    asked = Request(messages=(Message("user", "[1] Nacre: It is tough.\nTask: brainstorm"),))
    prose = filled(lambda _: "Bricks.", lambda _: "brainstorm")(asked)
    assert isinstance(prose, str) and prose.startswith("Bricks. It is tough.") and len(prose.split()) == FEWEST_WORDS
    assert filled(lambda _: json.dumps({"a": 1}), lambda _: "graph")(asked) == '{"a": 1}'


@pytest.mark.parametrize(("models", "most"), [(["nano", "ollama:qwen3:4b"], 1), (["ollama:qwen3:4b"], None)])
def test_a_model_that_gains_nothing_by_width_makes_one_row_at_a_time(models: list[str], most: int | None) -> None:
    assert rows_at_once(models) == most


@pytest.mark.parametrize("most", [1, 2, None])
def test_the_rows_do_not_depend_on_how_many_are_made_at_once(tmp_path: Path, most: int | None) -> None:
    with library(tmp_path / "store.db") as store:
        begun = work(store, tmp_path / "some", rows=4)
        asyncio.run(forge(replace(begun, rows_at_once=most)))
        run(store, tmp_path / "all", rows=4)
    assert timeless(tmp_path / "some") == timeless(tmp_path / "all")
    asked = [request for request in begun.models["teacher"].backend.requests]
    questions = [n for n, request in enumerate(asked) if "be an examiner" in request.messages[-1].content]
    waits = questions[1] >= len(asked) // 4 - 1
    assert waits == (most == 1), "with one row at a time the second begins when the first has ended"
