"""The page on AutoGen: its program runs, and every test that it names exists."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from preflexor_agents.autogen import load_component
from preflexor_agents.autogen.reflect_agent import ReflectAgent
from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.errors import ModelError
from tests.autogen.shelf import make_store
from tests.fakes.ollama_stub import OllamaStub, StubModel

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "autogen.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"`(?:(test_\w+\.py)(?:::(test_\w+))?|(test_\w+))(?:\[HOST\])?`")
PROGRAM = """
import ast, asyncio, inspect, json, sys

async def main():
    space = {"__name__": "page"}
    for line, block in json.load(sys.stdin):
        code = compile("\\n" * line + block, "autogen.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        waits = eval(code, space)
        if inspect.isawaitable(waits):
            await waits
        print("done:", line)

asyncio.run(main())
"""
"""Runs the page's blocks one after the other, as `python -m asyncio` would."""


def blocks(language: str) -> list[tuple[int, str]]:
    """Line and text of the blocks in a language."""
    return [(PAGE.count("\n", 0, m.start()) + 1, m[2]) for m in BLOCK.finditer(PAGE) if m[1] == language]


def names_in(name: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / "autogen" / name).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_")}


@pytest.mark.skipif(sys.platform == "win32", reason="select() on pipes")
def test_the_program_of_the_page_runs(tmp_path: Path) -> None:
    try:
        nano_path()
    except ModelError as e:
        pytest.skip(str(e))
    make_store(tmp_path / "papers.db")
    program: Any = blocks("python")
    with OllamaStub(StubModel(name="qwen3:4b"), StubModel(name="qwen3:8b")) as stub:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM],
            input=json.dumps(program),
            cwd=tmp_path,
            env={**os.environ, "OLLAMA_HOST": stub.host},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [int(n) for n in re.findall(r"^done: (\d+)$", done.stdout, re.MULTILINE)] == [line for line, _ in program]
    assert "Exception ignored" not in done.stderr
    assert re.search(r"^reflect\.run [\d.]+ \d+$", done.stdout, re.MULTILINE)


def test_every_config_of_the_page_loads() -> None:
    found = blocks("json")
    assert found
    for _, text in found:
        assert isinstance(load_component(json.loads(text), expected=object), ReflectAgent)


def test_there_are_no_blocks_that_nobody_runs() -> None:
    assert {m[1] for m in BLOCK.finditer(PAGE)} == {"python", "json"}


def test_every_test_that_the_page_names_exists() -> None:
    section = ""
    named = 0
    for line in PAGE.splitlines():
        place = re.search(r"in `tests/autogen/(test_\w+\.py)`", line)
        section = place[1] if place else section
        for match in NAMED.finditer(line):
            file, test = match[1] or section, match[2] or match[3]
            named += 1
            assert (ROOT / "tests" / "autogen" / file).is_file(), line
            assert test is None or test in names_in(file), line
    assert named > 60


@pytest.mark.parametrize("file", ["test_llamacpp_client_defects.py", "test_ollama_client_defects.py"])
def test_the_page_names_every_defect_that_is_tested(file: str) -> None:
    assert [name for name in names_in(file) if f"`{name}`" not in PAGE] == []


def test_every_mark_of_the_table_is_explained_and_used() -> None:
    table, legend = PAGE.split("| host | ")[1].split("\n| | test |")
    used = set(re.findall(r"\b[A-Z]\d?\b", re.sub(r"`[^`]*`", "", table.split("\n\n")[0])))
    explained = set(re.findall(r"^\| ([A-Z]\d?) \|", legend, re.MULTILINE))
    assert used == explained
