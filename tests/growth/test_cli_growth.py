"""`graph extract`, `graph grow` and `ask --keep` as they are called."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from preflexor_agents import backends
from preflexor_agents.backends.scripted import ScriptedBackend
from preflexor_agents.cli.main import cli
from preflexor_agents.store import Store
from tests.growth.conftest import NOTES, facts_in


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of the notes, beside an empty home."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name, text in NOTES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with Store.open(tmp_path / "store.db") as store:
        store.ingest([tmp_path / name for name in NOTES])
    return tmp_path / "store.db"


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every SPEC opens a model that thinks, answers with a sentence about bone, and reads the facts it knows."""

    async def open_backend(spec: str) -> ScriptedBackend:
        answer = "<|thinking|>so<|/thinking|>Bone is built of collagen and apatite."
        return ScriptedBackend(lambda r: facts_in(r) if r.json_schema else answer, spec=spec)

    monkeypatch.setattr(backends, "open_backend", open_backend)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_facts_are_read_once_and_shown_with_their_quotes(file: Path, scripted: None):
    first = run("graph", "extract", "--store", file, "--model", "ollama:any", "--pack", "materials")
    assert first.exit_code == 0, first.stderr
    assert first.stdout.startswith("3 of 3 passages read: 4 quotes for 4 new relations and 7 new entities; 1 facts")
    assert "refused: dopa | is used for | gold: its quote is not in the text" in first.stderr
    again = run("graph", "extract", "--store", file, "--model", "ollama:any", "--pack", "materials")
    assert again.stdout.startswith("nothing left to read")
    assert "Bone is built of collagen and apatite." in run("graph", "show", "bone", "--store", file).stdout


def test_only_what_is_named_is_read(file: Path, scripted: None):
    some = run("graph", "extract", "--store", file, "--model", "ollama:any", "--source", "bone.md")
    assert some.stdout.startswith("1 of 1 passages read")
    assert run("graph", "extract", "--store", file, "--model", "ollama:any", "--limit", "1").stdout.startswith("1 of 1")


def test_the_graph_asks_and_keeps_what_documents_support(file: Path, scripted: None):
    run("graph", "extract", "--store", file, "--model", "ollama:any", "--source", "nacre.md")
    grown = run("graph", "grow", "--store", file, "--model", "ollama:any", "--questions", "1")
    assert grown.exit_code == 0, grown.stderr
    assert "What is known about" in grown.stdout and "ended: all questions asked" in grown.stdout
    with Store.open(file) as store:
        assert [r.kind for r in store.graph.runs()] == ["extract", "grow"]


def test_an_answer_can_be_kept(file: Path, scripted: None):
    asked = ("ask", "What is bone built of?", "--store", file, "--model", "ollama:any", "--rounds", "1")
    plain = run(*asked)
    kept = run(*asked, "--keep", "materials")
    assert (plain.exit_code, kept.exit_code) == (0, 0), kept.stderr
    assert "kept in the store" not in plain.stderr
    assert "kept in the store: the supported sentences, 2 new relations of the graph" in kept.stderr
    with Store.open(file) as store:
        assert [finding.title for finding in store.findings()] == ["What is bone built of?"]


def test_nano_reads_under_the_schema_and_says_that_it_is_too_small(file: Path):
    done = run("graph", "extract", "--store", file, "--limit", "1", "--pack", "materials")
    assert done.exit_code == 0, done.stderr
    assert "1 of 1 passages read" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("graph", "extract", "--pack", "physics"), "domain pack 'physics' is unknown"),
        (("graph", "extract", "--model", "x"), "x"),
        (("graph", "extract", "--limit", "0"), "0"),
        (("graph", "extract", "--budget-seconds", "-1"), "-1"),
        (("graph", "grow"), "the graph is empty"),
        (("ask", "What?", "--keep", "physics"), "domain pack 'physics' is unknown"),
    ],
)
def test_wrong_input_is_told_in_one_line(file: Path, words: tuple[str, ...], said: str):
    done = run(*words, "--store", file)
    assert done.exit_code == 2 and said in done.stderr


def test_a_store_that_is_missing_is_told(tmp_path: Path):
    done = run("graph", "extract", "--store", tmp_path / "none.db")
    assert done.exit_code == 2 and "does not exist; ingest documents into it first" in done.stderr
