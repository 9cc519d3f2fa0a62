"""`preflexor search` with its options, and what docs/search.md tells a reader to type."""

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from preflexor_agents.cli.main import cli
from tests.store.conftest import NACRE, SILK

PAGE = Path(__file__).parents[2] / "docs" / "search.md"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store in an empty home, of two collections in two folders."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for folder, name, text in (("papers", "nacre.md", NACRE), ("notes", "silk.md", SILK)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text, encoding="utf-8")
    assert run("ingest", "papers", "--collection", "reviews").exit_code == 0
    assert run("ingest", "notes").exit_code == 0
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def titles(*words: str) -> set[str]:
    done = run("search", *words, "-k", "50", "--json")
    assert done.exit_code == 0, done.stderr
    return {passage["title"] for passage in json.loads(done.stdout)["passages"]}


def test_every_command_of_the_page_works(shelf: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("preflexor")]
    assert len(lines) == 5
    for line in lines:
        done = run(*shlex.split(line)[1:])
        assert done.exit_code == 0 and done.stdout, (line, done.stderr)


def test_the_program_of_the_page_works(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ingest", "papers", "--store", "papers.db").exit_code == 0
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    exec(compile(program, "search.md", "exec"), {})
    assert capsys.readouterr().out.startswith("Nacre 1 1\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"Nacre", "Spider silk"}),
        (["--collection", "reviews"], {"Nacre"}),
        (["--collection", "none"], set()),
        (["--source", "notes"], {"Spider silk"}),
        (["--source", "./notes/"], {"Spider silk"}),
        (["--source", "*.md", "--until", "1999"], set()),
        (["--since", "1999"], {"Nacre", "Spider silk"}),
    ],
)
def test_filters_at_the_command_line(shelf: Path, words: list[str], expected: set[str]) -> None:
    assert titles("strength", *words) == expected


def test_an_explanation_adds_up(shelf: Path) -> None:
    shown = run("search", "tensile strength of dragline silk", "-k", "1", "--explain").stdout
    found = re.search(r"words: bm25 [\d.]+, rank 1; meaning: cosine [\d.]+, rank 1; score (.*) = ([\d.]+)", shown)
    assert (
        found is not None and found[1] == "1/(60+1) + 1/(60+1)" and float(found[2]) == pytest.approx(2 / 61, abs=1e-5)
    )


def test_a_side_that_did_not_find_a_passage_is_named(shelf: Path) -> None:
    assert "words: not among the best; meaning:" in run("search", "frakture thoughness", "--explain").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--since", "soon"], "since is 'soon'; write a date as"),
        (["--since", "2024", "--until", "2023"], "swap them"),
        (["--diversity", "2"], "2"),
        (["--rerank", "magic"], "magic"),
        (["--source", ""], "name a document"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(shelf: Path, words: list[str], said: str) -> None:
    done = run("search", "silk", *words)
    assert done.exit_code == 2 and said in done.stderr and "Traceback" not in done.output
