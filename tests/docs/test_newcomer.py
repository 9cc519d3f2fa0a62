"""The newcomer's path: its commands are those of the pages, each step is checked, and what is wrong is noticed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import newcomer
from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.errors import ModelError
from tests.docs.following import DOCS, ROOT, blocks
from tests.store.files import pdf

try:
    nano_path()
except ModelError as e:
    pytest.skip(str(e), allow_module_level=True)

PROGRAM = ROOT / "benchmarks" / "newcomer.py"


@pytest.fixture
def who(tmp_path: Path) -> newcomer.Newcomer:
    here, python = tmp_path / "here", Path(sys.executable)
    here.mkdir()
    environment = newcomer.own_home(tmp_path, python.parent)
    return newcomer.Newcomer(here=here, repository=ROOT, python=python, environment=environment)


def commands_of(name: str) -> list[str]:
    found = [block.text.splitlines() for block in blocks(ROOT / name) if block.language == "sh"]
    return [line.split("  #")[0].strip().removeprefix(".venv/bin/") for lines in found for line in lines]


@pytest.mark.parametrize(
    ("command", "page"),
    [
        (newcomer.DEMO, "README.md"),
        (newcomer.DEMO_ALONE, "docs/tutorials/ollama.md"),
        (newcomer.INGEST, "README.md"),
        (newcomer.ASK, "docs/tutorials/ollama.md"),
        (newcomer.FORGE, "docs/forge.md"),
        (newcomer.TRAIN, "docs/training.md"),
        (newcomer.DEPLOY, "docs/deploy.md"),
    ],
)
def test_the_commands_are_those_of_the_pages(command: str, page: str) -> None:
    assert command in commands_of(page)


def test_the_questions_are_those_of_the_page() -> None:
    (given,) = [block.text for block in blocks(DOCS / "forge.md") if block.language == "json"][:1]
    assert tuple(given.splitlines()) == newcomer.QUESTIONS


def test_the_table_of_the_page_is_of_these_commands() -> None:
    table = (DOCS / "newcomer.md").read_text(encoding="utf-8").partition(newcomer.BEGIN)[2].partition(newcomer.END)[0]
    if not table.strip():
        pytest.skip("nothing is measured yet; python benchmarks/newcomer.py --out docs/newcomer.md does it")
    typed = [
        found for found in re.findall(r"^\|[^|]+\| `([^`]+)` \|", table, re.MULTILINE) if "pip install" not in found
    ]
    assert typed[0].startswith("git clone ")
    assert typed[1:] == [
        *(newcomer.SETUP, newcomer.DEMO, newcomer.INGEST, newcomer.ASK, newcomer.FORGE, newcomer.TRAIN),
        *(newcomer.QUANTIZE, newcomer.DEPLOY, newcomer.ASK_OLLAMA),
    ]


def test_the_steps_up_to_the_first_pair_do_what_is_told(who: newcomer.Newcomer) -> None:
    """Training, quantizing and deploying are typed by the tests of their own pages."""
    who.also = {newcomer.FORGE: ["--rows", "1"]}
    newcomer.first_answer(who, newcomer.DEMO_ALONE)
    newcomer.own_paper(who)
    newcomer.first_pair(who)
    assert [row.step for row in who.rows] == [
        *("first answer", "own papers read", "own paper answers", "first pair forged", "… to its end"),
    ]
    assert "page 2: “Along the stem, bamboo has a Young's modulus of 15 GPa" in newcomer.table(who.rows)[4]
    assert who.rows[-1].note == "1 of 1 rows kept"


def test_a_command_that_fails_ends_the_path_with_what_it_said(who: newcomer.Newcomer) -> None:
    with pytest.raises(SystemExit, match=r"newcomer: preflexor ingest papers/: exit code 2; .*\n.*papers"):
        newcomer.typed(who, newcomer.INGEST)


def test_a_command_that_ends_well_has_to_have_done_something(who: newcomer.Newcomer) -> None:
    command = shlex.join([sys.executable, "-c", "print('done')"])
    assert newcomer.typed(who, command, shows=["done"]).text == "done\n"
    with pytest.raises(SystemExit, match=r"nothing like 'Answer' in what it said; .*\ndone"):
        newcomer.typed(who, command, shows=["Answer"])
    with pytest.raises(SystemExit, match="did not do what it is for"):
        newcomer.typed(who, command, until=lambda: False)


def test_a_quote_that_is_not_on_its_page_is_noticed() -> None:
    said = "Answer\nTough [1].\n  [1] A (b) (~/papers/a.pdf, page 2, characters 5-20)\n      “Very tough in-\ndeed.”\n"
    cited = newcomer.citation(said, "a.pdf", "ask")
    assert (cited["page"], cited["source"]) == ("2", "~/papers/a.pdf")
    newcomer.check_quote(cited, "It is very. Very\ntough indeed.", "ask")
    with pytest.raises(SystemExit, match=r"“Very tough in-\ndeed.” is not on page 2 of ~/papers/a.pdf"):
        newcomer.check_quote(cited, "Brittle.", "ask")
    with pytest.raises(SystemExit, match=r"cites nothing of b.pdf, only \['~/papers/a.pdf'\]"):
        newcomer.citation(said, "b.pdf", "ask")


def test_whoever_ingests_only_a_scan_is_told_that_the_store_is_empty(who: newcomer.Newcomer) -> None:
    (who.here / "scan.pdf").write_bytes(pdf([[]]))
    newcomer.typed(who, "preflexor ingest scan.pdf", shows=["has no text layer; OCR it first"], code=2)
    newcomer.typed(who, "preflexor search nacre", shows=["nothing found; the store holds no documents yet: .*ingest"])
    newcomer.typed(who, newcomer.ASK, shows=[r"store \S+ holds no documents: answering without passages .*ingest"])


def test_whoever_trains_without_the_extra_is_told_what_to_install(who: newcomer.Newcomer) -> None:
    without = f"""
import importlib.util, sys
from preflexor_agents.cli.doctor import EXTRAS
gone = {{*EXTRAS["train"], *EXTRAS["mlx"], "safetensors", "gguf", "matplotlib"}}
known = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.split(".")[0] in gone else known(name, package)
sys.modules.update(dict.fromkeys(gone))
sys.argv = {shlex.split(newcomer.TRAIN)}
from preflexor_agents.cli.main import main
main()
"""
    said = newcomer.typed(who, shlex.join([sys.executable, "-c", without]), shows=["install with: .*torch=="], code=2)
    assert len(said.text.splitlines()) == 1 and not list(who.here.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "none.md"], "none.md is no page with a place for results"),
        (["--keep", "."], ". is there already; name a new folder"),
        (["--no-setup", "none/python"], "beside none/python is no preflexor"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_done(tmp_path: Path, words: list[str], said: str) -> None:
    done = subprocess.run([sys.executable, str(PROGRAM), *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("newcomer: ") and said in done.stderr
    assert list(tmp_path.iterdir()) == []
