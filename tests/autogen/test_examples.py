"""Every example runs as it is, on the bundled model with a small budget."""

import ast
import os
import re
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.backends.model_cache import MODELS
from preflexor_agents.errors import ModelError
from tests.fakes.ollama_stub import OllamaStub, StubModel

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BUDGET = ("--budget-tokens", "150")
try:
    NANO = nano_path()
except ModelError as e:
    pytest.skip(str(e), allow_module_level=True)


def lines_of(output: str) -> list[str]:
    """What was printed, without the labels of the budget's size."""
    return [line for line in output.splitlines() if line]


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user's folders are untouched, and no model lingers."""
    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    yield
    MODELS.free_idle()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs an example in this process; returns the lines it prints."""

    def run(name: str, *arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return lines_of(capsys.readouterr().out)

    return run


def run_apart(name: str, *arguments: str) -> list[str]:
    """Runs an example in a process of its own, warnings being errors; returns the lines it prints."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return lines_of(done.stdout)


def free_address() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_says_what_it_shows_and_is_tested(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 60
    assert len(ast.get_docstring(ast.parse(source)) or "") > 100
    tests = (Path(__file__), EXAMPLES.parent / "tests" / "docs" / "test_pages_followed.py")
    assert any(f'"{path.name}"' in file.read_text(encoding="utf-8") for file in tests)


def test_an_agent_in_a_round_robin_answers_and_its_peer_goes_on(run) -> None:
    said = run("round_robin.py", *BUDGET)
    assert "round 1: thinker, draft" in said and any(line.startswith("reflect: ") for line in said)
    assert any(line.startswith("peer: ") for line in said)


def test_a_bigger_critic_is_another_model_than_the_writer(run) -> None:
    said = run("bigger_critic.py", "--critic", f"gguf:{NANO}", *BUDGET)
    assert any(line.startswith("thinker (nano, ") for line in said)
    assert any(line.startswith(f"critic (gguf:{NANO}, ") for line in said)


def test_an_own_critic_criticises(run) -> None:
    said = run("own_critic.py", *BUDGET)
    assert any(line.startswith("critique by agent:checker: ") for line in said)
    assert any(line.startswith("answer: ") for line in said)


def test_a_boss_asks_the_team_by_a_tool_call(run) -> None:
    said = run("team_as_tool.py", *BUDGET)
    assert any("Question: How tough is nacre?" in line for line in said)
    answered = said.index("---------- ToolCallSummaryMessage (boss) ----------")
    assert said[answered + 1] and said[answered - 1].startswith("[FunctionExecutionResult(")


def test_an_assistant_is_shown_passages_of_the_library(run) -> None:
    said = run("assistant_with_memory.py", *BUDGET)
    assert re.fullmatch(r"\[1\] Nacre \(score 0\.\d{3}\)", said[0])
    assert any(line.startswith("answer: ") for line in said)


def test_the_studio_team_is_built_anew_for_each_question(run) -> None:
    said = run("studio_team.py", *BUDGET)
    for question in ("How tough is nacre?", "How stiff is squid beak?"):
        assert f"Question: {question}" in said


def test_another_process_answers() -> None:
    said = run_apart("two_processes.py", "--address", free_address())
    answers = [re.match(r"process (\d+) answers: .", line) for line in said]
    assert answers[0] is not None and int(answers[0][1]) != os.getpid()


def test_spans_are_printed_from_the_innermost_to_the_run() -> None:
    said = run_apart("spans.py", *BUDGET)
    names = [line.split(" s  ")[1].split("{")[0].strip() for line in said if " s  " in line]
    ours = [name for name in names if name.startswith(("reflect", "chat"))]
    assert ours[:3] == ["reflect.stage", "chat nano", "reflect.stage"] and ours[-1] == "reflect.run"


@pytest.mark.parametrize("name", ["round_robin.py", "own_critic.py", "assistant_with_memory.py"])
def test_an_example_runs_on_ollama(name: str, run, monkeypatch: pytest.MonkeyPatch) -> None:
    with OllamaStub(StubModel(name="small:latest")) as stub:
        monkeypatch.setenv("OLLAMA_HOST", stub.host)
        run(name, "--model", "ollama:small", *BUDGET)
        assert {body["model"] for body in stub.bodies("/api/chat")} == {"small"}
