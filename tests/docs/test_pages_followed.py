"""Every command block of the pages is typed, in the order of the page, and shows what the page shows."""

import gc
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.backends.model_cache import MODELS
from preflexor_agents.errors import ModelError
from tests.docs.following import DOCS, ROOT, Reader, blocks, reader

try:
    nano_path()
except ModelError as e:
    pytest.skip(str(e), allow_module_level=True)

PDFS = ROOT.parent / "shared" / "data" / "pdf-samples"
PLAIN = ("tutorials/ollama.md", "tutorials/autogen.md", "algorithm.md", "troubleshooting.md")
ELSEWHERE = ("papers.md", "packs.md", "recipes.md", "performance.md", "tutorials/mac.md", "tutorials/terminal.md")
OWN = (*PLAIN, *ELSEWHERE, "comparison.md", "security.md")
SMALL = {
    "phases.0.rounds": 1,
    "phases.1.rounds": 1,
    "phases.0.rows_per_round": 4,
    "phases.1.rows_per_round": 4,
    "phases.0.accumulation": 1,
    "phases.1.accumulation": 1,
    "phases.0.passes": 1,
    "phases.1.passes": 1,
    "data.damaged_share": 0.9,
    "data.held_out_share": 0.0,
    "phases.0.samples": [],
    "phases.1.samples": [],
}


@pytest.fixture
def someone(tmp_path: Path) -> Iterator[Reader]:
    with reader(tmp_path) as found:
        yield found
    with warnings.catch_warnings():  # a store leaves its embedder's connection to the collector
        warnings.simplefilter("ignore", ResourceWarning)
        MODELS.free_idle()
        gc.collect()


def sets(**changes: object) -> list[str]:
    return [word for key, value in {**SMALL, **changes}.items() for word in ("--set", f"{key}={value}")]


def small_training(words: list[str]) -> list[str]:
    """Options that make an hour's training a matter of seconds."""
    match words[:2]:
        case ["forge", "run"]:
            return ["--rows", "6", "--passages", "1"]
        case ["ask", _] | ["eval", "run"] if "mlx:" in " ".join(words):
            return ["--budget-tokens", "40"]
    is_new_run = words[0] == "train" and words[1] not in ("show", "recipes") and "--resume" not in words
    return sets() if is_new_run else []


@pytest.mark.parametrize("page", PLAIN)
def test_the_page_can_be_followed(page: str, someone: Reader) -> None:
    someone.follow(DOCS / page)
    assert someone.typed


@pytest.mark.train
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning")
def test_own_papers_become_answers_facts_and_a_taught_model(someone: Reader, cached: None, taught_base: Path) -> None:
    grounded = {"forge.prompt": "grounded", "forge.passages": 1}  # nano thinks only where it sees passages
    short = {"data.max_length_tok": 1400, "forge.student_thinking_drawing.max_tok": 150}
    small = sets(**grounded, **short)
    someone.also = lambda words: small if words[:2] == ["train", "laptop"] else []
    someone.follow(DOCS / "papers.md")
    told = dict(someone.typed)
    taught = next(said for command, said in told.items() if "papers_to_model.py" in command)
    assert "reason is merged into" in taught and "F16 is equal to the folder" in taught
    assert "\nAnswer\nThe fracture toughness of nacre is " in taught
    assert "nacre.pdf, page 2" in told["preflexor ask 'How tough is nacre?'"]


def test_what_cannot_be_read_is_told_as_the_page_tells_it(someone: Reader) -> None:
    if not PDFS.is_dir():
        pytest.skip("no pdf-samples among the shared data")
    from click.testing import CliRunner

    from preflexor_agents.cli.main import cli

    done = CliRunner().invoke(cli, ["ingest", str(PDFS / "py-pdf-sample-files")])
    page = (DOCS / "papers.md").read_text(encoding="utf-8")
    told = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert done.exit_code == 1 and len(told) == 3
    assert [line for line in told if line not in done.output] == []


@pytest.mark.train
def test_a_pack_of_ones_own_reads_facts_and_makes_rows(someone: Reader) -> None:
    someone.also = small_training
    someone.follow(DOCS / "packs.md")
    rows = [json.loads(line) for line in Path("cases/pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["pack"] for row in rows} == {"law"}


@pytest.mark.train
def test_recipes_are_listed_changed_and_copied(someone: Reader, in_place_of_nano: list[str]) -> None:
    someone.also = lambda words: [*small_training(words), *(in_place_of_nano if "--out" in words else [])]
    someone.follow(DOCS / "recipes.md")
    assert 'kind = "none"' in Path("runs/unmasked/config.toml").read_text(encoding="utf-8")


def test_the_page_on_speed_ends_with_an_evaluation(someone: Reader) -> None:
    someone.follow(DOCS / "performance.md")
    assert "think" in someone.typed[-1][1]


@pytest.mark.train
def test_a_mac_is_told_everything(someone: Reader, in_place_of_nano: list[str]) -> None:
    pytest.importorskip("mlx_lm", reason="needs the mlx extra")
    Path("models/Qwen3-0.6B").symlink_to(Path("small").absolute())
    someone.also = lambda words: [*small_training(words), *(in_place_of_nano if "tiny" in words else [])]
    someone.follow(DOCS / "tutorials" / "mac.md")


def test_a_page_that_shows_what_is_not_printed_is_noticed(someone: Reader) -> None:
    Path("page.md").write_text("```sh\npreflexor models list\n```\n\n```text\nfour models\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"page.md:1 shows something else than was printed:\n(?s:.*)nano"):
        someone.follow(Path("page.md"))


def test_every_page_with_commands_is_followed_by_a_test() -> None:
    mine = {page for page in OWN if any(block.language == "sh" for block in blocks(DOCS / page))}
    assert mine == {*PLAIN, *ELSEWHERE}
    assert {f"tutorials/{page.name}" for page in (DOCS / "tutorials").glob("*.md")} <= set(OWN)


def test_there_are_no_blocks_that_nobody_runs() -> None:
    for page in OWN:
        for block in blocks(DOCS / page):
            assert block.language in ("sh", "text") or block.title, f"{page}:{block.line}"
