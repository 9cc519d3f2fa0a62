"""The benchmark of the engine runs, and puts its tables and its plot where it says."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

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
    crowd = found["crowd"]
    assert crowd["left_live"] == crowd["bad_json"] == 0 < crowd["most_cells"] <= crowd["cells"]
    assert crowd["longest_prompt_tok"] > 2048  # past what nano was trained with
    assert all(word in text for word in ("| limit |", "| asked |"))
    assert [row["model"] for row in found["rounds"]] == ["nano", "tiny"]
    assert all(row["cached"] > 0.5 for row in found["rounds"])  # both are asked the same, so both find as much
    assert ElementTree.parse(tmp_path / "page.svg").getroot().tag.endswith("svg")


SERVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(__file__ + ".log", "a") as log:
            log.write(json.dumps([self.path, *(asked[key] for key in ("n_predict", "seed", "cache_prompt"))]) + "\\n")
        self.answer({"content": ""})

    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def test_a_llama_server_is_asked_for_the_same_and_has_its_place_in_the_table(tmp_path: Path):
    server = tmp_path / "llama-server"
    server.write_text(f"#!{sys.executable}\n{SERVER}", encoding="utf-8")
    server.chmod(0o755)
    done = run(tmp_path, "--cases", "best-of", "--llama-server", str(server))
    assert done.returncode == 0, done.stderr
    assert "| llama-server tok/s |" in done.stdout
    asked = [json.loads(line) for line in (tmp_path / "llama-server.log").read_text(encoding="utf-8").splitlines()]
    assert sorted(asked) == [["/completion", 8, seed, True] for seed in (0, 0, 1)]


def test_a_case_that_is_none_is_refused(tmp_path: Path):
    done = run(tmp_path, "--cases", "nonsense")
    assert done.returncode == 2 and "'nonsense' is none of best-of" in done.stderr


PAGE = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", re.findall(r"^python benchmarks/engine.py (.*)$", PAGE, re.MULTILINE))
def test_the_program_understands_what_the_page_tells_to_type(line: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", ["engine.py", *line.split()])
    program = runpy.run_path(str(ROOT / "benchmarks" / "engine.py"))
    assert program["arguments"]().widths


def test_the_page_builds_the_server_of_the_llama_cpp_that_is_installed():
    (pinned,) = re.findall(r"^llama-cpp-python==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"llama[-_]cpp[-_]python[-=]+([\d.]+\d)", PAGE)) == {pinned}
