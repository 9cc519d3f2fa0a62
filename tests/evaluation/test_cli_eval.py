"""`preflexor eval` as a person runs it: the bundled model, its library, real files."""

import json
import re
import shlex
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner, Result

from preflexor_agents.cli.main import cli
from preflexor_agents.evaluation.folder import RESULTS
from preflexor_agents.evaluation.tasks import Kind
from preflexor_training.nano.suite import library_tasks

pytestmark = pytest.mark.usefixtures("home")
ROWS = [
    {"question": "What is the density of bamboo?", "answer": "0.7 g/cm^3", "column": "facts"},
    {"question": "What is the main component of pangolin scale?", "answer": "keratin", "column": "facts"},
    {"question": "What is the price of bamboo?", "kind": "unanswerable", "column": "refusals"},
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home with a file of questions."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "questions.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["eval", *words])


def test_the_table_says_that_thinking_beats_the_bare_answer_and_running_again_asks_nothing(home: Path) -> None:
    words = ("run", "questions.jsonl", "--system", "bare=nano::answer", "--system", "nano::think", "--out", "e")
    first = run(*words)
    assert first.exit_code == 0, first.stderr
    assert "| nano think | 100.0 [34.2, 100.0] | 100.0 [20.7, 100.0] |" in first.stdout
    assert "Against bare on the same questions" in first.stdout
    lines = (home / "e" / RESULTS).read_text().count("\n")
    again = run(*words, "--json")
    found = json.loads(again.stdout)
    assert lines == 6 == (home / "e" / RESULTS).read_text().count("\n")
    assert [s["system"] for s in found["systems"]] == ["bare", "nano think"] and found["systems"][1]["errors"] == 0
    assert run("show", "e").stdout == first.stdout == (home / "e" / "table.md").read_text()


def test_two_evaluations_are_compared_question_by_question(home: Path) -> None:
    for out, protocol in (("a", "answer"), ("b", "think")):
        assert run("run", "questions.jsonl", "--system", f"nano=nano::{protocol}", "--out", out).exit_code == 0
    (found,) = json.loads(run("compare", "a", "b", "--json").stdout)
    assert (found["first"], found["second"], found["questions"], found["worse"]) == ("a: nano", "b: nano", 3, 0)
    assert "| b: nano |" in run("compare", "a", "b").stdout


def test_puzzles_and_the_library_are_suites(home: Path) -> None:
    ran = run(
        "run", "knights:3:2", "library:comparison,unanswerable", "--limit", "2", "--system", "nano::think", "--json"
    )
    assert ran.exit_code == 0, ran.stderr
    (system,) = json.loads(ran.stdout)["systems"]
    assert set(system["accuracy"]) == {"knights, 3 people", "comparison", "unanswerable", "all"}
    assert system["results"] == 6


def test_open_questions_are_judged(home: Path) -> None:
    (home / "open.jsonl").write_text('{"question": "Why is bamboo light?"}\n')
    systems = ("--system", "a=nano::answer", "--system", "b=nano::think")
    ran = run("run", "open.jsonl", *systems, "--judge", "nano")
    assert ran.exit_code == 0, ran.stderr
    assert "Open questions by the judge" in ran.stdout and "| b | a |" in ran.stdout


def test_pictures_are_drawn_beside_the_results(home: Path) -> None:
    pytest.importorskip("matplotlib")
    run("run", "questions.jsonl", "--system", "nano::answer", "--out", "e")
    assert run("show", "e", "--plot").exit_code == 0
    for name in ("accuracy.svg", "cost.svg"):
        assert "nano answer" in (home / "e" / name).read_text()
    assert (home / "e" / "cost.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_that_is_gone_is_an_error_and_what_was_asked_is_kept(home: Path) -> None:
    ran = run("run", "questions.jsonl", "--system", "nano::answer", "--system", "gguf:none.gguf::answer", "--out", "e")
    assert ran.exit_code == 2 and "none.gguf" in ran.stderr
    assert (home / "e" / RESULTS).read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "none.jsonl"), "suite 'none.jsonl' is neither a file nor a known suite"),
        (("run", "library:colours"), "has no column 'colours'; it has comparison"),
        (("run", "knights:many"), "is not knights:PEOPLE:COUNT"),
        (("run", "knights:9"), "2 to 8 people"),
        (("run", "questions.jsonl", "--seeds", "one"), "--seeds is 'one'"),
        (("run", "questions.jsonl", "--seeds", "-1"), "--seeds is '-1'"),
        (("run", "questions.jsonl", "questions.jsonl"), "of another suite; rename one"),
        (("run", "questions.jsonl", "--system", "nano::think", "--system", "nano::think"), "two systems are called"),
        (("run", "questions.jsonl", "--store", "x.db", "--no-store"), "exclude one another"),
        (("run", "questions.jsonl", "--system", "nano::x"), "protocol 'x' is unknown"),
        (("run", "open.jsonl"), "some questions are open; name a model to judge"),
        (("show", "."), "holds no results"),
        (("compare", ".", "."), "holds no results"),
    ],
)
def test_wrong_input_is_one_line_with_the_remedy(home: Path, words: tuple[str, ...], said: str) -> None:
    (home / "open.jsonl").write_text('{"question": "Why?"}\n')
    ran = run(*words)
    assert ran.exit_code == 2 and said in ran.stderr and ran.stderr.count("\n") == 1
    assert not (home / "eval").exists()


def test_the_protocols_are_listed() -> None:
    assert "paper-self" in run("protocols").stdout


def test_every_command_of_the_page_works(home: Path) -> None:
    pytest.importorskip("matplotlib")
    page = (Path(__file__).parents[2] / "docs" / "eval.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 5
    for line in lines:
        done = run(*shlex.split(line)[2:])
        assert done.exit_code == 0 and done.stdout, (line, done.stderr)


def test_the_page_names_every_kind_of_question_and_every_column() -> None:
    page = (Path(__file__).parents[2] / "docs" / "eval.md").read_text(encoding="utf-8")
    assert all(f"| `{kind}` |" in page for kind in get_args(Kind))
    assert all(f"`{column}`" in page for column in {task.column for task in library_tasks()})
