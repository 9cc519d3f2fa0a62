"""The folder that `preflexor deploy --dir` writes: whole, checkable, and enough to run the model."""

import json
import os
import resource
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.cli.main import cli
from preflexor_quantize.modelfile import modelfile, opened


def deploy(source: Path, out: Path, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(cli, ["deploy", str(source), "--dir", str(out), *words])
    assert done.exit_code == code, done.output
    return done.stderr


@contextmanager
def longest_file(size_bytes: int) -> Iterator[None]:
    """Writing beyond this size fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def no_links(*_: object) -> None:
    raise OSError("another disk")


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)


def test_the_folder_holds_the_model_and_all_that_belongs_to_it(tmp_path: Path) -> None:
    out = tmp_path / "my model"
    deploy(nano_path(), out)
    assert sorted(f.name for f in out.iterdir()) == [
        "MODEL_CARD.md",
        "Modelfile",
        "README.md",
        "SHA256SUMS",
        "nano.gguf",
    ]
    assert (out / "nano.gguf").read_bytes() == nano_path().read_bytes()
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=out, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout.count(": OK")) == (0, 4)
    assert os.stat(out).st_mode & 0o777 == 0o755


def test_the_modelfile_says_what_the_server_is_told(tmp_path: Path) -> None:
    deploy(nano_path(), tmp_path / "out", "--context", "1024", "--system", "Speak briefly.")
    lines = (tmp_path / "out" / "Modelfile").read_text(encoding="utf-8")
    with opened(nano_path()) as model:
        template = modelfile(model).template
    assert lines == (
        f'FROM ./nano.gguf\nTEMPLATE """{template}"""\nPARAMETER num_ctx 1024\nPARAMETER temperature 0.1\n'
        "PARAMETER top_k 50\nPARAMETER top_p 0.9\nPARAMETER repeat_penalty 1.0\n"
        'PARAMETER stop "<|end|>"\nSYSTEM """Speak briefly."""\n'
    )


def test_the_commands_of_the_readme_name_the_file_that_is_there(tmp_path: Path) -> None:
    odd = tmp_path / "my $(model) v1.gguf"
    odd.write_bytes(nano_path().read_bytes())
    deploy(odd, tmp_path / "out dir")
    (name,) = (f.name for f in (tmp_path / "out dir").glob("*.gguf"))
    page = (tmp_path / "out dir" / "README.md").read_text(encoding="utf-8")
    commands = {words[0]: words for words in (shlex.split(part) for part in page.split("`")[1::2]) if words}
    assert commands["llama-server"][2] == commands["lms"][2] == name
    assert commands["ollama"][:5] == ["ollama", "create", "out-dir", "-f", "Modelfile"]
    asked = cli.get_command(click.Context(cli), "ask")
    assert asked is not None
    assert asked.make_context("ask", commands["preflexor"][2:]).params["model"] == f"gguf:{name}"


def test_the_card_says_what_is_known_and_the_report_comes_along(tmp_path: Path) -> None:
    source = tmp_path / "m-Q8_0.gguf"
    source.write_bytes(nano_path().read_bytes())
    fidelity = {"mean_kl": 1.25e-4, "p99_kl": 0.002, "top1": 0.97, "perplexity": 8.5}
    made = [{"file": "other.gguf", "fidelity": {}}, {"file": source.name, "fidelity": fidelity}]
    (tmp_path / "m-report.json").write_text(json.dumps({"files": made}), encoding="utf-8")
    (tmp_path / "m-report.md").write_text("# m\n", encoding="utf-8")
    (tmp_path / "z-report.json").write_text("[", encoding="utf-8")
    deploy(source, tmp_path / "out")
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "| Against its F16 original | mean_kl 0.000125, p99_kl 0.002, top1 0.97, perplexity 8.5 |" in card
    assert "[m-report.json](m-report.json), [m-report.md](m-report.md)" in card
    assert "| Numbers | F16 |" in card and "| Trained context | 2048 tokens |" in card
    assert (tmp_path / "out" / "m-report.md").is_file()


@pytest.mark.usefixtures("copies")
def test_without_links_the_file_is_copied(tmp_path: Path) -> None:
    deploy(nano_path(), tmp_path / "out")
    copy = tmp_path / "out" / "nano.gguf"
    assert copy.read_bytes() == nano_path().read_bytes() and copy.stat().st_nlink == 1


@pytest.mark.usefixtures("copies")
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with longest_file(1_000_000):
        error = deploy(nano_path(), tmp_path / "out", code=1)
    assert error.startswith("preflexor: ") and "could not be written: File too large" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("copies")
def test_a_disk_without_room_is_seen_before_anything_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = type(shutil.disk_usage(tmp_path))(2_000_000, 1_000_000, 1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "1.0 MB free" in deploy(nano_path(), tmp_path / "out", code=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("copies")
def test_an_interrupted_copy_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from preflexor_quantize import bundle

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "Written", interrupted)
    deploy(nano_path(), tmp_path / "out", code=1)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine", encoding="utf-8")
    assert "exists already" in deploy(nano_path(), tmp_path / "out", code=2)
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "cannot be made" in deploy(nano_path(), tmp_path / "file" / "out", code=2)
