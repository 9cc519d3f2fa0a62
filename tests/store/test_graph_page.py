"""The Python on the page about the graph runs as written, one block after the other."""

import contextlib
import io
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_blocks_of_the_page_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "graph.md").read_text(encoding="utf-8"), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    for number, block in enumerate(blocks):
        script = tmp_path / f"block{number}.py"
        script.write_text(block, encoding="utf-8")
        with contextlib.redirect_stdout(printed):
            runpy.run_path(str(script))
    assert "lies between ['Protein lies between aragonite tablets.']" in printed.getvalue()
    assert "α -diverts→ β -raises→ γ 1\n   ('mortar', 'crack path', 'toughness') mortar → crack path → toughness" in (
        printed.getvalue()
    )


def test_the_benchmark_prints_its_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["graph.py", "--entities", "80", "--relations", "300"])
    runpy.run_path(str(ROOT / "benchmarks" / "graph.py"), run_name="__main__")
    rows = [
        line for line in capsys.readouterr().out.splitlines() if re.fullmatch(r"\| .+ \| [\d.]+ \| [\d.]+ \|", line)
    ]
    assert len(rows) == 12
