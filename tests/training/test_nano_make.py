"""The bundled model made by the pipeline: all stages for real, small, on the bundled model itself."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="needs the train extra")

from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.errors import ConfigError, InputError, ModelError, TrainingError
from preflexor_training.forge.records import read_rows
from preflexor_training.nano import make as making
from preflexor_training.nano.__main__ import main
from preflexor_training.nano.make import Made, Order, make
from tests.training.small_runs import Quiet

pytestmark = pytest.mark.train
RECIPES = Path(__file__).parents[2] / "training" / "recipes"
DRAWING = "forge.student_thinking_drawing"
SMALL = (
    *(f"phases.{n}.{key}" for n in (0, 1) for key in ("rounds=1", "rows_per_round=8", "passes=1")),
    *("forge.samples=3", f"{DRAWING}.temperature=1.5", f"{DRAWING}.top_p=1.0", f"{DRAWING}.max_tok=128"),
    *("data.held_out_share=0.0", "phases.0.warmup_steps=0", "phases.1.warmup_steps=0"),
)


def order(out: Path, **changes: object) -> Order:
    values = {"out": out, "phases": RECIPES / "nano_phases.toml", "base_recipe": RECIPES / "nano.toml", "limit": 1}
    return Order(**{**values, "base": str(nano_path()), "changes": SMALL, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, tuple[Made, ...], Quiet]]:
    out, watch = tmp_path_factory.mktemp("nano"), Quiet()
    yield out, make(order(out), watch=watch), watch


def test_the_command_goes_on_with_the_same_run(
    run: tuple[Path, tuple[Made, ...], Quiet], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made, _ = run
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    changes = [word for change in (SMALL[2], *SMALL[5:]) for word in ("--set", change)]
    recipes = ["--recipe", str(RECIPES / "nano_phases.toml"), "--base-recipe", str(RECIPES / "nano.toml")]
    sizes = ["--rounds", "1", "--rows", "8", "--limit", "1"]
    said = CliRunner().invoke(
        main.commands["make"], ["--out", str(out), "--base", str(nano_path()), *recipes, *sizes, *changes]
    )
    assert said.exit_code == 0 and said.stdout.strip() == str(made[-1].gguf), said.output
    assert all(m.line() in said.stderr for m in made)


def test_every_command_of_the_page_is_one() -> None:
    page = (RECIPES.parents[1] / "docs" / "nano.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python -m preflexor_training\.nano (\w+) (.*)$", page, re.MULTILINE)
    assert {name for name, _ in commands} == {"train", "evaluate", "make"}
    for name, words in commands:
        given = [word.replace("nano.gguf", str(nano_path())) for word in words.split()]
        main.commands[name].make_context(name, given)
    assert "make nano\n" in page and "\nnano: setup-dev\n" in (RECIPES.parents[1] / "Makefile").read_text("utf-8")


def test_every_stage_leaves_its_model_proven_small_and_measured(run: tuple[Path, tuple[Made, ...], Quiet]) -> None:
    _, made, watch = run
    assert [m.name for m in made] == ["base", "integrate", "reason"]
    files = [m.gguf.read_bytes() for m in made]
    assert files[0] == nano_path().read_bytes() and len(set(files)) == 3
    assert all(len(data) <= making.MOST_BYTES for data in files)
    for m in made:
        assert set(m.columns) == {"single", "numeric", "comparison", "two-hop", "multi-hop", "unanswerable"}
        assert all(share["of"] == 1 for share in m.columns.values())
        assert m.line() in watch.lines


def test_rows_are_the_readers_answers_against_wrong_ones_of_the_model_in_training(
    run: tuple[Path, tuple[Made, ...], Quiet],
) -> None:
    out, _, _ = run
    asked = []
    for phase in ("integrate", "reason"):
        rows = list(read_rows(out / "phases" / "forge" / f"{phase}-001"))
        kept = [row for row in rows if row.state == "kept"]
        assert len(rows) == 8 and kept
        for row in kept:
            assert row.chosen.thinking and row.chosen.thinking.startswith("Find: ")
            assert row.scores["chosen"] == 1 and row.scores["rejected"] == 0
        asked += [row.question for row in rows]
    assert len(set(asked)) == 16


def test_the_same_command_does_nothing_twice(run: tuple[Path, tuple[Made, ...], Quiet]) -> None:
    out, made, _ = run
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.gguf")}
    watch = Quiet()
    assert make(order(out), watch=watch) == made
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.gguf")} == before
    assert watch.lines == [m.line() for m in made]


def test_another_recipe_is_refused_by_name(run: tuple[Path, tuple[Made, ...], Quiet]) -> None:
    out, _, _ = run
    with pytest.raises(InputError, match=r"phases\.0\.beta = .*, now 0\.7"):
        make(order(out, changes=(*SMALL, "phases.0.beta=0.7")), watch=Quiet())


def test_a_model_that_is_too_large_is_refused(
    run: tuple[Path, tuple[Made, ...], Quiet], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _, _ = run
    monkeypatch.setattr(making, "MOST_BYTES", 1000)
    with pytest.raises(TrainingError, match="more than 1000; make the model smaller"):
        make(order(out), watch=Quiet())


def test_measures_of_another_size_are_taken_again(run: tuple[Path, tuple[Made, ...], Quiet]) -> None:
    out, _, _ = run
    file = out / "base.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**found, "sha256": "of another file", "columns": {}}), encoding="utf-8")
    assert make(order(out), watch=Quiet())[0].columns == found["columns"]


@pytest.mark.parametrize(
    ("base", "words"),
    [("nowhere.gguf", "nowhere.gguf does not exist"), ("broken.gguf", "broken.gguf cannot be unpacked")],
)
def test_a_base_that_is_none_is_refused(tmp_path: Path, base: str, words: str) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF, or so it says")
    with pytest.raises((InputError, ModelError), match=words):
        make(order(tmp_path / "out", base=str(tmp_path / base)), watch=Quiet())


def test_a_recipe_without_rows_made_on_the_fly_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    text = (RECIPES / "nano_phases.toml").read_text(encoding="utf-8")
    no_forge = tmp_path / "no_forge.toml"
    no_forge.write_text(text.split("[forge]")[0], encoding="utf-8")
    with pytest.raises(ConfigError, match="its rows are made on the fly"):
        make(order(tmp_path / "out", base="", changes=("phases.0.name=one",), phases=no_forge), watch=Quiet())
    assert not list((tmp_path / "out").iterdir())


def test_a_run_that_came_to_nothing_does_not_stand_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'bogus' names no model"):
        make(order(tmp_path, changes=(*SMALL, "data.teacher=bogus")), watch=Quiet())
    assert not (tmp_path / "phases").exists()


def test_questions_that_were_changed_are_not_gone_on_with(run: tuple[Path, tuple[Made, ...], Quiet]) -> None:
    out, _, _ = run
    file = out / "questions.jsonl"
    before = file.read_bytes()
    file.write_bytes(b"".join(before.splitlines(keepends=True)[1:]))
    try:
        with pytest.raises(InputError, match="holds other questions than are drawn now"):
            make(order(out), watch=Quiet())
    finally:
        file.write_bytes(before)
