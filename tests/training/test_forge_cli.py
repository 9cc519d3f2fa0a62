"""`preflexor forge run` as a person runs it: nano and the bundled notes, a served teacher, a folder that goes on."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from preflexor_agents.backends.base import Request
from preflexor_agents.cli.main import cli
from preflexor_agents.prompts import Message
from preflexor_training.forge.folder import read_settings
from tests.fakes.ollama_stub import OllamaStub, StubModel
from tests.training.forging import rows_of, speak
from tests.training.served import Served
from tests.training.teaching import LIBRARY

ROWS = int(os.environ.get("PREFLEXOR_NANO_ROWS", "3"))
QUESTIONS = (
    ("What is the density of bamboo?", ""),
    ("What is the fracture toughness of nacre?", "4.5 MPa m^0.5"),
)
SHORT = """
passages = 1
teacher_drawing = { temperature = 0.2, max_tok = 60 }
student_drawing = { temperature = 1.0, max_tok = 60 }
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home to run in."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in [n for n in os.environ if n.startswith("PREFLEXOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def questions(home: Path) -> Path:
    path = home / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in QUESTIONS), encoding="utf-8")
    return path


@pytest.fixture
def server() -> Iterator[Served]:
    with Served() as server:
        yield server


def forge(*words: str | Path | int) -> Result:
    return CliRunner().invoke(cli, ["forge", "run", *map(str, words)])


def report(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("variant", ["plain", "graph", "reflection", "typed", "direct"])
def test_nano_makes_rows_of_given_questions_and_the_same_call_pays_for_nothing(
    home: Path, questions: Path, variant: str
) -> None:
    (home / "short.toml").write_text(SHORT, encoding="utf-8")
    words = ("--questions", questions, "--rows", ROWS, "--variant", variant, "--settings", "short.toml", "--json")
    first = forge(*words)
    assert first.exit_code in (0, 1), first.stderr
    said, made = json.loads(first.stdout), rows_of(home / "forge")
    assert said["rows"] == len(made) == ROWS and said["stopped"] == "rows"
    assert said["models"] == dict.fromkeys(("teacher", "student", "judge"), "nano") and said["store"] == "bundled"
    assert {row.question for row in made} <= {question for question, _ in QUESTIONS}
    assert all(call.model == "nano" for row in made for call in row.calls)
    again = forge(*words)
    assert again.exit_code == first.exit_code and again.stdout, again.stderr + repr(again.exception)
    assert json.loads(again.stdout)["calls"]["made"] == 0 and rows_of(home / "forge") == made


def test_nano_without_questions_says_what_to_do(home: Path) -> None:
    done = forge("--rows", 2)
    assert done.exit_code == 1
    assert "nano cannot write questions; give it some by --questions, or name a teacher" in done.stderr
    assert [row.state for row in rows_of(home / "forge")] == ["dropped", "dropped"]


def test_a_teacher_on_a_server_makes_rows_of_the_named_store(home: Path, server: Served) -> None:
    said = report(forge("--store", "bundled", "--teacher", server.spec, "--rows", 3, "--out", "data", "--json"))
    assert said["kept"] == 3 and said["models"]["judge"] == server.spec and said["calls"]["made"] == 30
    assert (home / "data" / "card.md").read_text(encoding="utf-8").count(server.spec) >= 1
    shown = CliRunner().invoke(cli, ["forge", "show", "data"])
    assert shown.exit_code == 0 and "kept" in shown.stdout


def test_options_stand_above_the_file_of_settings(home: Path, server: Served) -> None:
    common = ("--store", "bundled", "--teacher", server.spec)
    report(forge(*common, "--variant", "graph", "--rows", 1, "--seed", 3, "--out", "a", "--json"))
    report(forge(*common, "--settings", "a/settings.toml", "--seed", 4, "--out", "b", "--json"))
    first, second = read_settings(home / "a" / "settings.toml"), read_settings(home / "b" / "settings.toml")
    assert second == first.model_copy(update={"seed": 4}) and first.variant == "graph"


def test_a_spent_budget_is_no_failure_and_the_same_call_goes_on(home: Path, server: Served) -> None:
    words = ("--store", "bundled", "--teacher", server.spec, "--rows", "2")
    first = forge(*words, "--budget-tokens", 60)
    assert first.exit_code == 0 and "the token budget is spent" in first.stdout
    assert report(forge(*words, "--json"))["kept"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rows", "0"], "--rows is 0; it should be greater than or equal to 1"),
        (["--margin", "7"], "--margin is 7.0"),
        (["--margin", "nan"], "--margin is nan; it should be a finite number"),
        (["--verifier", "task"], "verifier 'task' compares with known answers and there are none"),
        (["--samples", "65"], "--samples is 65"),
        (["--questions", "none.jsonl"], "none.jsonl cannot be read"),
        (["--settings", "none.toml"], "none.toml cannot be read"),
        (["--store", "none.db"], "none.db"),
        (["--teacher", "what:ever", "--store", "bundled"], "'what:ever' names no model"),
        (["--teacher", "gguf:none.gguf", "--store", "bundled"], "none.gguf"),
        (["--pack", "astrology"], "domain pack 'astrology' is unknown"),
        (["--contexts", "topic"], "no topic is given"),
        (["--contexts", "path"], "has no knowledge graph to walk in"),
        (["--verifier", "rule"], "verifier 'rule' has no rule"),
        (["--verifier", "numeric"], "there are none; name a file of questions with answers"),
        (["--out", "file"], "file"),
        (["--teacher", "ollama:qwen3:4b"], "no knowledge store to make rows from"),
        (["--budget-tokens", "0"], "--budget-tokens is 0"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(home: Path, words: list[str], said: str) -> None:
    (home / "file").write_text("mine", encoding="utf-8")
    done = forge(*words)
    assert done.exit_code == 2 and said in done.stderr, done.stderr
    assert done.stderr.count("\n") <= 2 and "Traceback" not in done.stderr
    assert (home / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rows = 'many'", "rows is 'many'"),
        ("hue = 3", "hue is 3"),
        ("rows =", "is not TOML"),
        (b"\xff\xfe\x00", "is not UTF-8"),
    ],
)
def test_a_bad_file_of_settings_is_named_with_its_key(home: Path, text: str | bytes, said: str) -> None:
    (home / "s.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    done = forge("--settings", "s.toml")
    assert done.exit_code == 2 and said in done.stderr and "s.toml" in done.stderr


def test_another_run_in_the_folder_is_refused_with_the_difference(home: Path, server: Served) -> None:
    words = ("--store", "bundled", "--teacher", server.spec, "--rows", "1")
    report(forge(*words, "--json"))
    done = forge(*words, "--seed", 9)
    assert done.exit_code == 2 and "forge holds a run with seed = 0, and this one has 9" in done.stderr


def test_an_interrupted_run_says_that_it_goes_on_and_does(home: Path, server: Served) -> None:
    with Served(answers=25) as halting:
        words = ["forge", "run", "--store", "bundled", "--teacher", halting.spec, "--rows", "4"]
        running = subprocess.Popen(
            [sys.executable, "-m", "preflexor_agents", *words],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert halting.stuck.wait(60)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "stopped: what was done is kept, the same call goes on with the rest" in said and "Traceback" not in said


def test_a_server_that_is_gone_is_one_line(home: Path) -> None:
    with Served() as gone:
        spec = gone.spec
    done = forge("--store", "bundled", "--teacher", spec)
    assert done.exit_code == 1 and done.stderr.count("\n") == 1 and "127.0.0.1" in done.stderr


def blocks(kind: str) -> list[str]:
    page = Path(__file__).parents[2] / "docs" / "forge.md"
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def test_what_the_page_tells_to_type_works(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "questions.jsonl").write_text(blocks("json")[0], encoding="utf-8")
    shutil.copytree(LIBRARY, home / "papers")
    models = (StubModel(name="qwen3:8b", tags=None), StubModel(name="llama3.2:3b", tags=None))
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    with OllamaStub(*models) as stub:
        stub.speaks = lambda _, prompt, options: str(
            speak(Request(messages=(Message("user", prompt),), seed=options["seed"]))
        )
        monkeypatch.setenv("OLLAMA_HOST", stub.host)
        for words in commands:
            if words[0] == "pip" or "--ray" in words:  # tests/training/test_forge_ray.py
                continue
            rows = ["--rows", "1"] if words[1:3] == ["forge", "run"] else []
            done = CliRunner().invoke(cli, [*words[1:], *rows])
            assert done.exit_code in (0, 1 if "try" in words else 0), done.stderr
    assert rows_of(home / "second")[0].chosen.reflection
    for code in blocks("python"):
        exec(compile(code, "docs/forge.md", "exec"), {})
    assert len(rows_of(home / "next")) == 2
