"""`preflexor train` as users type it: what the page says, rows on the fly, and everything that is refused."""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from preflexor_agents.backends.base import Backend
from preflexor_agents.backends.scripted import ScriptedBackend
from preflexor_agents.cli.main import cli
from preflexor_training import plots, sources
from tests.training.small_runs import small_base, write_pairs
from tests.training.teaching import teach

pytestmark = pytest.mark.train
PAGE = Path(__file__).parents[2] / "docs" / "training.md"
SMALL = {
    "phases.0.rows_per_round": 4,
    "phases.1.rows_per_round": 4,
    "phases.0.rounds": 2,
    "phases.1.rounds": 1,
    "phases.0.passes": 1,
    "phases.1.passes": 1,
    "data.damaged_share": 0.9,
    "data.max_length_tok": 1280,
    "forge.passages": 1,
}
"""What makes a recipe a matter of seconds; forge's own sizes follow from it."""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def base(home: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module", autouse=True)
def one_picture() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "PICTURES", plots.PICTURES[:1])
        yield


@pytest.fixture(scope="module")
def done_run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at its end, and its rows beside it."""
    folder = tmp_path_factory.mktemp("done")
    write_pairs(folder / "pairs.jsonl")
    done = preflexor("train", "tiny", "--pairs", folder / "pairs.jsonl", "--out", folder / "run", *fast(base))
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "pairs.jsonl")
    return tmp_path


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[ScriptedBackend]:
    """The teachers that were opened; they say what they were told to."""
    opened: list[ScriptedBackend] = []

    async def open_model(spec: str) -> Backend:
        opened.append(ScriptedBackend(teach, spec=spec))
        return opened[-1]

    monkeypatch.setitem(sources.open_source.__kwdefaults__, "open_model", open_model)
    return opened


def preflexor(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def sets(**changes: object) -> list[str]:
    return [word for key, value in {**SMALL, **changes}.items() for word in ("--set", f"{key}={value}")]


def fast(base: object) -> list[object]:
    return ["--base", base, *sets()]


def test_the_page_can_be_followed(base: Path, here: Path, taught: list[ScriptedBackend]) -> None:
    (here / "models").mkdir()
    (here / "models" / "SmolLM2-1.7B-Instruct").symlink_to(base)
    own = {"tiny": "nano", "laptop": base}
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    typed = [shlex.split(line) for line in "".join(blocks).splitlines()]
    assert len(typed) == 9
    for words in typed:
        if words[1] == "quantize":
            continue
        begins = words[1] == "train" and words[2] in own
        done = preflexor(*words[1:], *(fast(own[words[2]]) if begins else ()))
        assert done.exit_code == 0, (words, done.output)
    assert (here / "merged" / "model.safetensors").exists() and (here / "between" / "config.json").exists()
    asked = [repr(request) for teacher in taught for request in teacher.requests]
    assert asked and len(asked) == len(set(asked)), "what was asked ahead is not asked again"
    log = [json.loads(line) for line in (here / "runs/first/rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({line["origin"]["adapter_sha256"] for line in log}) == len(log) == 3, "each round has its own student"


def test_rows_in_the_page_can_be_read(here: Path, base: Path) -> None:
    (example,) = re.findall(r"^```json\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    rows = [{**json.loads(example), "id": str(n)} for n in range(12)]
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = preflexor("train", "tiny", "--pairs", "rows.jsonl", "--out", "run", *fast(base))
    assert done.exit_code == 0, done.output


def test_the_published_recipe_makes_its_first_refresh(here: Path, taught: list[ScriptedBackend]) -> None:
    changes = ("phases.0.rounds=1", "phases.0.rows_per_round=2", "phases.1.rounds=1", "phases.1.rows_per_round=2")
    sizes = [word for change in (*changes, "data.damaged_share=0.9") for word in ("--set", change)]
    done = preflexor("train", "paper", "--base", "nano", "--out", "run", "--json", *sizes)
    log = [json.loads(line) for line in (here / "run/rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    assert log and log[0]["rows"] > 0 and log[0]["origin"]["generator"] == "ollama:llama3.1:8b", done.output
    assert taught[0].spec == "ollama:llama3.1:8b"
    steps = [json.loads(line) for line in (here / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len([s for s in steps if s["round"] == 1 and "loss" in s]) == -(-log[0]["rows"] * 6 // 2)
    if done.exit_code == 0:
        assert json.loads(done.stdout)["steps"] == len([s for s in steps if "loss" in s])


def test_show_tells_the_run_in_one_object(done_run: Path) -> None:
    told = json.loads(preflexor("train", "show", done_run, "--json").stdout)
    assert told["state"]["phase"] == 2 and told["last"]["loss"] > 0 and len(told["audits"]) == 3
    assert [entry["round"] for entry in told["rounds"]] == [1, 2, 3]
    shown = preflexor("train", "show", done_run).stdout
    assert "done: " in shown and "held out" in shown and "What makes nacre tough?" in shown


def test_what_a_model_wrote_cannot_steer_the_terminal(done_run: Path) -> None:
    with (done_run / "samples.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"round": 3, "step": 9, "prompt": "p\x1b[2J", "text": "\x1b]0;owned\x07 text"}) + "\n")
    shown = preflexor("train", "show", done_run).stdout
    assert "owned" in shown and "\x1b" not in shown


def test_recipes_are_listed_with_a_sentence(here: Path) -> None:
    found = json.loads(preflexor("train", "recipes", "--json").stdout)
    assert set(found) >= {"paper", "laptop", "tiny"} and all(len(sentence) > 20 for sentence in found.values())
    assert preflexor("train", "recipes").stdout.splitlines()[0].startswith("graph ")


def test_refusals_are_one_line_and_leave_no_folder(base: Path, here: Path) -> None:
    (here / "empty.jsonl").touch()
    (here / "noise.jsonl").write_bytes(bytes(range(256)) * 9)
    (here / "wrong.toml").write_text("base = 1\n", encoding="utf-8")
    (here / "other").mkdir()
    start = ("train", "tiny", "--out", "run", "--base", base)
    cases: list[tuple[tuple[object, ...], str]] = [
        ((*start, "--pairs", "gone.jsonl"), "--pairs gone.jsonl does not exist"),
        ((*start, "--pairs", "empty.jsonl"), "holds neither JSON lines nor a JSON array"),
        ((*start, "--pairs", "noise.jsonl"), "holds neither JSON lines nor a JSON array"),
        ((*start, "--pairs", "pairs.jsonl", "--set", "phases.0.betta=1"), "did you mean beta?"),
        ((*start, "--pairs", "pairs.jsonl", "--set", "phases"), "is no key=value"),
        ((*start, "--pairs", "pairs.jsonl", "--set", "data.max_length_tok=20"), "rows cannot be trained on"),
        ((*start, "--pairs", "pairs.jsonl", "--resume"), "holds no run to resume"),
        ((*start, "--store", "gone.db"), "--store gone.db does not exist"),
        ((*start, "--teacher", "what:ever"), "names no model"),
        (("train", "tiny", "--pairs", "pairs.jsonl", "--base", "other", "--out", "run"), "no config.json"),
        (("train", "wrong.toml", "--out", "run"), "base is 1"),
        (("train", "gone.toml", "--out", "run"), "cannot be read"),
        (("train", "unheard", "--out", "run"), "recipe 'unheard' is unknown"),
        (("train", "show", "other"), "holds no training run"),
        (("train", "show", "gone"), "is no folder"),
    ]
    for words, said in cases:
        done = preflexor(*words)
        line = done.stderr.splitlines()[-1]
        assert (done.exit_code, line.startswith("preflexor: ")) == (2, True), (words, done.output)
        assert said in line and not (here / "run").exists(), (words, done.output)


def test_a_run_goes_on_only_as_what_it_was(base: Path, done_run: Path) -> None:
    pairs = done_run.parent / "pairs.jsonl"
    start = ("train", "tiny", "--pairs", pairs, "--out", done_run, *fast(base))
    on = ("train", done_run / "config.toml", "--out", done_run, "--resume")
    assert "exists already; go on with it by --resume" in preflexor(*start).stderr
    assert preflexor(*start, "--resume").exit_code == preflexor(*on).exit_code == 0
    write_pairs(pairs, 30)
    cases = [
        ((*start, "--resume", "--set", "phases.0.beta=0.3"), "was begun with phases.0.beta = 0.1, now 0.3"),
        ((*on, "--backend", "mlx"), "backend"),
        (on, "changed since it was begun"),
    ]
    for words, said in cases:
        done = preflexor(*words)
        assert (done.exit_code, said in done.stderr) == (2, True), done.output


@pytest.mark.parametrize(("backend", "module"), [("trl", "torch"), ("mlx", "mlx_lm")])
def test_a_library_that_is_absent_is_named(
    backend: str, module: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import util

    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == module else found(name, *rest))
    done = preflexor("train", "tiny", "--pairs", "pairs.jsonl", "--out", "run", "--backend", backend)
    assert done.exit_code == 2 and f"--backend {backend} needs" in done.stderr and "install with: " in done.stderr
    assert not (here / "run").exists() and sys.executable in done.stderr


def test_options_may_stand_before_the_recipe(base: Path, here: Path) -> None:
    done = preflexor("train", "--out", "run", "--pairs", "gone.jsonl", "tiny")
    assert done.exit_code == 2 and "gone.jsonl does not exist" in done.stderr
