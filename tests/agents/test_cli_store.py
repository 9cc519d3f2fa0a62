"""`preflexor ingest` and `preflexor search` on a real store."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from preflexor_agents.cli import ingest
from preflexor_agents.cli.main import cli
from preflexor_agents.store.records import IngestProgress

NACRE = "# Nacre\n\nNacre is tough because its tablets slide. The toughness of nacre is 4.5 MPa m^0.5.\n"
SILK = "# Silk\n\nSpider dragline silk stretches by a third before it breaks.\n"


@pytest.fixture
def papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two notes, beside an empty home."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "nacre.md").write_text(NACRE, encoding="utf-8")
    (folder / "silk.md").write_text(SILK, encoding="utf-8")
    return folder


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_what_was_ingested_is_found_with_its_place(papers: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.db"
    done = run("ingest", papers, "--store", store)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("2 added; ") and str(store) in done.stdout
    found = run("search", "how tough is nacre", "--store", store, "-k", "1")
    assert found.exit_code == 0
    assert "[1] Nacre" in found.stdout and "4.5 MPa" in found.stdout and "nacre.md, characters" in found.stdout


def test_json_holds_the_exact_text_at_its_offsets(papers: Path, tmp_path: Path) -> None:
    run("ingest", papers, "--store", tmp_path / "a.db")
    found = json.loads(run("search", "dragline silk", "--store", tmp_path / "a.db", "--json").stdout)
    best = found["passages"][0]
    assert (found["query"], best["source"]) == ("dragline silk", str(papers / "silk.md"))
    assert best["text"] == SILK[best["start"] : best["end"]]


def test_without_a_store_option_the_users_own_is_made(papers: Path, tmp_path: Path) -> None:
    assert run("ingest", papers).exit_code == 0
    assert run("search", "silk").stdout.startswith("[1] Silk")
    assert [p for p in (tmp_path / "home").rglob("store.db")]


def test_ingesting_again_changes_nothing(papers: Path, tmp_path: Path) -> None:
    run("ingest", papers, "--store", tmp_path / "a.db")
    assert run("ingest", papers, "--store", tmp_path / "a.db").stdout.startswith("2 unchanged; 0 chunks written")


def test_one_bad_document_is_one_line_and_exit_code_1(papers: Path, tmp_path: Path) -> None:
    (papers / "picture.md").write_bytes(b"\x89PNG\x00\x00")
    done = run("ingest", papers, tmp_path / "gone.md", "--store", tmp_path / "a.db")
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and all(line.startswith("preflexor: ") for line in lines)
    assert "gone.md" in done.stderr and "picture.md" in done.stderr
    assert done.stdout.startswith("2 added, 2 failed; ")


def test_the_report_of_an_ingest_as_json(papers: Path, tmp_path: Path) -> None:
    (papers / "picture.md").write_bytes(b"\x89PNG\x00\x00")
    done = run("ingest", papers, "--store", tmp_path / "a.db", "--collection", "shells", "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["added"], len(report["failed"])) == (1, 2, 1)
    assert report["store"] == str(tmp_path / "a.db") and len(done.stderr.splitlines()) == 1


def test_a_pattern_in_quotes_is_expanded(papers: Path, tmp_path: Path) -> None:
    done = run("ingest", "papers/**/s*.md", "--store", tmp_path / "a.db")
    assert done.stdout.startswith("1 added; ")


def test_a_collection_without_a_name_is_refused(papers: Path, tmp_path: Path) -> None:
    done = run("ingest", papers, "--store", tmp_path / "a.db", "--collection", " ")
    assert done.exit_code == 2 and "is no name" in done.stderr and not (tmp_path / "a.db").exists()


def test_nothing_to_read_ends_with_2_and_makes_no_store(papers: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("ingest", tmp_path / "gone.md", tmp_path / "empty", "--store", tmp_path / "a.db")
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 2 and "gone.md" in done.stderr
    assert not (tmp_path / "a.db").exists()


def test_only_bad_documents_end_with_2(papers: Path, tmp_path: Path) -> None:
    (tmp_path / "blank.md").write_text("  \n", encoding="utf-8")
    assert run("ingest", tmp_path / "blank.md", "--store", tmp_path / "a.db").exit_code == 2


@pytest.mark.parametrize("words", [["search", "x"], ["ingest", "papers"]])
def test_a_file_that_is_no_store_is_refused_and_left_alone(papers: Path, tmp_path: Path, words: list[str]) -> None:
    file = tmp_path / "letter.db"
    file.write_text("Dear Sir or Madam, " * 100, encoding="utf-8")
    done = run(*words, "--store", file)
    assert done.exit_code == 2
    assert done.stderr.startswith("preflexor: ") and len(done.stderr.splitlines()) == 1
    assert file.read_text(encoding="utf-8").startswith("Dear Sir")


def test_searching_where_no_store_is_says_how_to_make_one(papers: Path, tmp_path: Path) -> None:
    done = run("search", "silk", "--store", tmp_path / "none.db")
    assert done.exit_code == 2 and "none.db" in done.stderr
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("words", [["search", " "], ["search", "x", "-k", "0"], ["ingest", "x", "--embedder", "magic"]])
def test_wrong_input_ends_with_2(papers: Path, words: list[str]) -> None:
    done = run(*words)
    assert done.exit_code == 2 and done.stderr


def test_a_query_full_of_syntax_is_only_words(papers: Path, tmp_path: Path) -> None:
    run("ingest", papers, "--store", tmp_path / "a.db")
    assert run("search", 'silk" AND (NEAR/ * -x col:', "--store", tmp_path / "a.db").exit_code == 0


def test_a_document_cannot_steer_the_terminal(papers: Path, tmp_path: Path) -> None:
    (papers / "evil.md").write_text(
        "# Evil \x1b[31m\n\nchitin \x1b]0;owned\x07 moulting " + "w " * 300, encoding="utf-8"
    )
    run("ingest", papers / "evil.md", "--store", tmp_path / "a.db")
    found = run("search", "chitin moulting", "--store", tmp_path / "a.db")
    assert "chitin" in found.stdout and "\x1b" not in found.stdout and "\x07" not in found.stdout


def test_an_interrupt_keeps_what_was_done(papers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupting(now: IngestProgress) -> None:
        if now.outcome is not None:
            raise KeyboardInterrupt

    monkeypatch.setattr(ingest, "plain_lines", lambda: interrupting)
    done = run("ingest", papers, "--store", tmp_path / "a.db")
    assert done.exit_code == 1 and "stopped: finished documents are kept" in done.stderr
    assert "Nacre" in run("search", "nacre", "--store", tmp_path / "a.db").stdout


def progress(done: int, *, chunks_done: int = 0, chunks_total: int = 0) -> IngestProgress:
    return IngestProgress(
        documents_done=done,
        documents_total=10,
        source="x.md",
        chunks_done=chunks_done,
        chunks_total=chunks_total,
        chunks_written=90 + chunks_done,
        file_bytes=200,
        bytes_done=400 if done else 0,
        bytes_total=1000,
    )


def test_plain_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([100.0, 102.0, 106.0, 107.0])
    monkeypatch.setattr(ingest, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    show = ingest.plain_lines()
    show(progress(1))
    show(progress(2, chunks_done=25, chunks_total=50))
    show(progress(4))
    assert capsys.readouterr().err == "2 of 10 documents, 115 chunks, 19/s, about 6 s left\n"
