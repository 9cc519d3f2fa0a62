"""`preflexor ask`, `demo` and `trace` as a person runs them: the bundled model, a real store, real files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result

from preflexor_agents.cli.main import cli
from preflexor_agents.errors import TraceError
from preflexor_agents.events import Event
from preflexor_agents.trace import TraceWriter, read_trace
from tests.agents.conftest import Writer
from tests.fakes.ollama_stub import OllamaStub

QUESTION = "What is the density of bamboo?"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home to run in."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in [n for n in os.environ if n.startswith("PREFLEXOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def process(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "preflexor_agents", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_demo_answers_from_the_library_with_a_citation_and_leaves_a_trace_that_replays(home: Path) -> None:
    demo = run("demo")
    assert demo.exit_code == 0, demo.stderr
    trace = Path(demo.stderr.split("trace: ")[1].split("\n")[0])
    shown = json.loads(run("trace", "export", trace).stdout)
    assert len(shown["rounds"]) >= 2
    citation = shown["citations"][0]
    note = Path(citation["source"])
    assert note.parent.name == "library"
    assert note.read_text(encoding="utf-8")[citation["start"] : citation["end"]] == citation["quote"]
    assert shown["answer"] in demo.stdout and f"[{citation['number']}]" in demo.stdout
    replay = run("trace", "replay", trace)
    assert replay.exit_code == 0 and shown["answer"] in replay.stdout


def test_replaying_loads_no_model_and_no_agents(home: Path) -> None:
    run("ask", QUESTION, "--rounds", "1", "--trace", home / "t.jsonl")
    code = (
        "import sys; from preflexor_agents.cli.main import cli\n"
        f"cli(['trace', 'replay', {str(home / 't.jsonl')!r}], standalone_mode=False)\n"
        "print(sorted({'llama_cpp', 'autogen_core', 'sqlite3', 'pysqlite3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n") and QUESTION in done.stdout


def test_json_validates_against_the_printed_schema_and_nothing_else_is_on_standard_output(home: Path) -> None:
    schema = json.loads(run("ask", "--print-schema").stdout)
    done = run("ask", QUESTION, "--json", "--seed", "7", "--candidates", "2")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    jsonschema.validate(result, schema)
    assert result["question"] == QUESTION and result["seed"] == 7 and result["model"] == "nano"
    assert result["usage"]["cached"] > 0


def test_the_same_seed_gives_the_same_run(home: Path) -> None:
    def words() -> object:
        result = json.loads(run("ask", QUESTION, "--json", "--seed", "3", "--candidates", "2").stdout)
        return [[r[key] for key in ("thinking", "critique", "answer", "accepted")] for r in result["rounds"]]

    assert words() == words()


def test_without_a_terminal_standard_output_holds_the_answer_only(home: Path) -> None:
    done = run("ask", QUESTION, "--rounds", "2")
    assert "Round 1" in done.stderr and "Round" not in done.stdout and done.stdout.startswith("\nAnswer")


def test_a_budget_in_tokens_is_never_passed(home: Path) -> None:
    result = json.loads(run("ask", QUESTION, "--json", "--budget-tokens", "30").stdout)
    assert result["usage"]["generated"] <= 30 and result["stop_reason"] == "budget_tokens"


@pytest.mark.parametrize("variant", ["critic", "self"])
def test_the_paper_preset_runs_on_the_bundled_model(home: Path, variant: str) -> None:
    done = run("ask", QUESTION, "--json", "--preset", "paper", "--variant", variant)
    result = json.loads(done.stdout)
    assert result["integrated"] and result["usage"]["calls"] + result["usage"]["failed_calls"] == (
        8 if variant == "critic" else 6
    )


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_prints_the_best_so_far_within_a_second_and_the_trace_is_whole(home: Path, write_model: Writer) -> None:
    trace = home / "t.jsonl"
    endless = write_model(context=65_536)  # random weights: goes on until its budget
    ask = process("ask", "go on", "--model", f"gguf:{endless}", "--candidates", "2", "--trace", str(trace))
    assert ask.stderr is not None and ask.stdout is not None
    for line in ask.stderr:
        if "drafts" in line:
            break
    while not trace.exists() or trace.read_text(encoding="utf-8").count("TextDelta") < 20:
        assert ask.poll() is None
        time.sleep(0.02)
    pressed = time.monotonic()
    ask.send_signal(signal.SIGINT)
    out, err = ask.communicate(timeout=30)
    assert time.monotonic() - pressed < 5, "hung"
    assert ask.returncode == 1
    assert out.startswith("\nAnswer") and "stopped by the user" in err
    events = [t.event for t in read_trace(trace)]
    assert type(events[-1]).__name__ == "RunFinished" and events[-1].stop_reason == "cancelled"


def _text(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["ask", ""], "question is empty"),
        (["ask", "   "], "question is empty"),
        (["ask", "word " * 20_000], "question"),
        (["ask", QUESTION, "--model", "gguf:none.gguf"], "none.gguf"),
        (["ask", QUESTION, "--model", "gguf:damaged.gguf"], "damaged.gguf"),
        (["ask", QUESTION, "--model", "wat"], "use one of: nano"),
        (["ask", QUESTION, "--rounds", "0"], "--rounds is 0"),
        (["ask", QUESTION, "--candidates", "-1"], "--candidates is -1"),
        (["ask", QUESTION, "--budget-seconds", "nan"], "--budget-seconds"),
        (["ask", QUESTION, "--preset", "papers"], "--preset"),
        (["ask", QUESTION, "--role", "king=nano"], "king=nano"),
        (["ask", QUESTION, "--store", "none.db"], "none.db"),
        (["ask", QUESTION, "--store", "text.db"], "text.db"),
        (["ask", QUESTION, "--trace", "text.db"], "text.db exists"),
        (["ask", QUESTION, "--trace", "text.db/sub/t.jsonl"], "t.jsonl"),
        (["search", QUESTION, "--store", "text.db"], "text.db"),
        (["ingest", "nowhere"], "nowhere"),
        (["trace", "replay", "text.db"], "text.db"),
        (["trace", "show", "nowhere"], "nowhere"),
    ],
)
def test_wrong_input_gives_one_line_and_exit_code_2_and_changes_nothing(
    home: Path, write_model: Writer, words: list[str], line: str
) -> None:
    _text(home / "text.db", "I am a text file, not a store. " * 100)
    _text(home / "damaged.gguf", write_model().read_bytes()[:5000])
    before = {p: p.read_bytes() for p in home.iterdir() if p.is_file()}
    done = run(*words)
    assert done.exit_code == 2, done.output
    told = [text for text in done.stderr.splitlines() if text.startswith(("preflexor: ", "Error: "))]
    assert len(told) == 1 and line in told[0]
    assert done.stdout == ""
    assert {p: p.read_bytes() for p in home.iterdir() if p.is_file()} == before


def test_ollama_that_does_not_run_and_models_it_lacks_give_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:9")
    done = run("ask", QUESTION, "--model", "ollama:qwen3:4b")
    assert done.exit_code in (1, 2) and "ollama serve" in done.stderr
    with OllamaStub() as stub:
        monkeypatch.setenv("OLLAMA_HOST", stub.host)
        done = run("ask", QUESTION, "--model", "ollama:nobody:1b")
    assert done.exit_code == 2 and "ollama pull nobody:1b" in done.stderr


def test_a_trace_that_can_not_be_written_costs_the_trace_and_not_the_answer(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = TraceWriter.write, iter(range(5))

    def full(self: TraceWriter, event: Event) -> None:
        if next(written, None) is None:
            raise TraceError("No space left on device")
        write(self, event)

    monkeypatch.setattr(TraceWriter, "write", full)
    done = run("ask", QUESTION, "--rounds", "1", "--trace", "t.jsonl")
    assert done.exit_code == 1
    assert done.stdout.startswith("\nAnswer") and "the trace is not complete (No space left on device)" in done.stderr
    assert len(list(read_trace(home / "t.jsonl"))) == 5
