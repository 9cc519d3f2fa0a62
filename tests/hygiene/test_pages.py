"""What README and docs tell a reader to type works as written."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from preflexor_agents.cli.main import cli
from tests.fakes.ollama_stub import OllamaStub, StubModel, says

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[tuple[str, list[str]]]:
    """Every line of every shell block, with its page."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            for line in block.splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words:
                    found.append((page.name, words))
    return found


def of(program: str) -> list[list[str]]:
    return [words[1:] for _, words in commands() if words[0].removeprefix(".venv/bin/") == program]


def test_the_pages_hold_commands() -> None:
    assert len(of("preflexor")) >= 3 and len(of("make")) >= 2


@pytest.mark.parametrize("words", of("preflexor"), ids=" ".join)
def test_every_preflexor_command_is_one(words: list[str]) -> None:
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
    command.make_context("preflexor", list(words))


@pytest.mark.parametrize("target", sorted({w for words in of("make") for w in words if "=" not in w}))
def test_every_make_target_is_one(target: str) -> None:
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("words", of("python"), ids=" ".join)
def test_every_python_program_is_there(words: list[str]) -> None:
    if words[0] == "-m":
        words = ["-m", words[1], *[w for w in words[2:3] if w.isalpha()], "--help"]
    else:
        words = [str(ROOT / words[0]), "--help"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_readme_leads_from_a_folder_to_an_answer_of_an_ollama_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "papers").mkdir()
    note = "# Squid beak\n\nSquid beak is stiffened by histidine-rich proteins.\n"
    (tmp_path / "papers" / "beak.md").write_text(note, encoding="utf-8")
    steps = [words for words in of("preflexor") if words[0] in ("ingest", "ask")]
    model = next(words[1] for words in of("ollama") if words[0] == "pull")
    reply = says("Histidine-rich proteins stiffen squid beak [1].")
    with OllamaStub(StubModel(name=model)) as stub:
        stub.script.extend([reply] * 20)
        monkeypatch.setenv("OLLAMA_HOST", stub.host)
        for words in steps[:2]:
            done = CliRunner().invoke(cli, words)
            assert done.exit_code == 0, done.output
    assert "stiffen squid beak [1]." in done.stdout and "beak.md" in done.stdout
