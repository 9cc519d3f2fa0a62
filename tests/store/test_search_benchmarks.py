"""The benchmarks of search run, at a size that takes seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*words: str) -> str:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_store_is_measured_beside_numpy_and_finds_the_same(tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    words = ["--sizes", "1500", "--engines", "preflexor,numpy", "--rounds", "3", "--out", str(out)]
    printed = run("benchmarks/store.py", *words)
    rows = {
        line.split(" | ")[0].strip("| "): line.split(" | ") for line in printed.splitlines() if line.startswith("|")
    }
    assert {"preflexor", "preflexor, first searches", "numpy (the limit)"} <= rows.keys()
    assert rows["preflexor"][4] == rows["preflexor, first searches"][4] == "1.000"
    assert "1,500 vectors" in out.read_text(encoding="utf-8")


def test_an_engine_that_is_not_installed_is_left_out_with_a_line() -> None:
    code = """
import runpy, sys
sys.modules["duckdb"] = None
sys.path.insert(0, "benchmarks")
sys.argv = ["store.py", "--sizes", "600", "--engines", "preflexor,DuckDB", "--rounds", "1"]
runpy.run_path("benchmarks/store.py", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "DuckDB is left out: " in done.stdout and "| preflexor |" in done.stdout


def test_glossary_and_exercises_of_the_textbook_become_questions(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from retrieval import read_textbook
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    (tmp_path / "book").mkdir()
    (tmp_path / "cut").mkdir()
    text = """# Atoms

Matter is made of atoms.

### Review Questions

<div data-type="problem" markdown="1">
Which particle has no charge at all?
</div>

<div data-type="glossary" markdown="1">
### Glossary

anion
: negative ion that is formed by *gaining* an electron
^
"""
    (tmp_path / "book" / "m1.md").write_text(text, encoding="utf-8")
    asked = read_textbook(tmp_path / "book", tmp_path / "cut", None)
    assert sorted((q.kind, q.text) for q in asked) == [
        ("definition", "negative ion that is formed by gaining an electron"),
        ("exercise", "Which particle has no charge at all?"),
        ("term", "What is meant by anion?"),
    ]
    assert (tmp_path / "cut" / "m1.md").read_text(encoding="utf-8") == "# Atoms\n\nMatter is made of atoms.\n\n"


def test_passages_that_cover_the_question_hold_more_than_those_in_the_order_of_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import retrieval

    asked = {kind: questions[:60] for kind, questions in retrieval._asked().items()}
    monkeypatch.setattr(retrieval, "_asked", lambda: asked)
    rows = [line.strip("| ").split(" | ") for line in retrieval.bundled("hash")]
    shares = {(int(row[1]), row[2]): [float(cell.rstrip("%")) for cell in row[3:]] for row in rows}
    for k in (5, 8):
        by_score, covering = shares[k, "by score"], shares[k, "covering"]
        single, comparison, two_steps, three_steps, named = covering
        assert single >= 98 and named >= 98 and comparison > by_score[1] + 10
        assert two_steps >= by_score[2] and three_steps >= by_score[3]
