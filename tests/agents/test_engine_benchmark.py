"""The benchmark of the engine runs, and puts its tables and its plot where it says."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    quick = ["--models", "tiny", "--ftypes", "f16", "--widths", "1,2", "--runs", "1", "--new", "8", "--threads", "1"]
    command = [sys.executable, str(ROOT / "benchmarks" / "engine.py"), *quick, "--prompt", "80", *arguments]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder), "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_every_case_writes_its_table_into_the_page(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n", encoding="utf-8")
    done = run(tmp_path, "--questions", "1", "--requests", "10", "--out", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert done.stdout.strip() in text
    found = json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))
    assert found.keys() >= {"best-of", "overhead", "rounds", "lookup", "crowd"}
    assert {row["n"] for row in found["best-of"]} == {1, 2}
    assert found["crowd"]["left_live"] == 0 and found["crowd"]["most_cells"] <= found["crowd"]["cells"]
    assert ElementTree.parse(tmp_path / "page.svg").getroot().tag.endswith("svg")


def test_a_case_that_is_none_is_refused(tmp_path: Path):
    done = run(tmp_path, "--cases", "nonsense")
    assert done.returncode == 2 and "'nonsense' is none of best-of" in done.stderr
