"""Rounds of training: in their order, resumed from any kill, refused when something is wrong."""

import json
import os
import random
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from preflexor_agents.backends.base import Backend
from preflexor_agents.backends.scripted import ScriptedBackend
from preflexor_agents.errors import BackendError, InputError, TrainingError
from preflexor_agents.run_folder import RunFolder
from preflexor_training import bases
from preflexor_training.learner import Held
from preflexor_training.phases import BackendName, opener
from preflexor_training.prepared import Rows, open_renderer
from preflexor_training.recipes import Phase, Recipe
from preflexor_training.schedule import best_round, duration, has_ended, planned_steps
from preflexor_training.sources import Student, open_source
from preflexor_training.tokenized import Masked
from tests.training.fake_learner import FakeLearner, model_of, open_learner
from tests.training.small_runs import (
    Quiet,
    facts,
    killed,
    marks,
    processes,
    run,
    run_torch,
    small_base,
    small_recipe,
    write_pairs,
)

pytestmark = pytest.mark.train
KILLS = int(os.environ.get("PREFLEXOR_KILL_ROUNDS", "3"))


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def base(own_cache: None) -> Path:
    return bases.resolve("nano")


@pytest.fixture
def recipe(base: Path, tmp_path: Path) -> Recipe:
    return small_recipe(base, write_pairs(tmp_path / "pairs.jsonl"))


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


class Watched(FakeLearner):
    """Notes what it was trained on, and what was in the log by then."""

    trained: list[tuple[str, int, set[str], set[str]]]

    def train(self, steps: Any, **rest: Any) -> None:
        logged = {row["id"] for row in lines(self.folder.parents[1] / "pairs.jsonl") if not row["held_out"]}
        rows = {row.pair.id for step in steps for batch in step for row in batch}
        self.trained.append((self.phase.name, rest["first"], rows, logged))
        super().train(steps, **rest)


def test_each_phase_starts_from_the_merged_model_of_the_one_before(recipe: Recipe, tmp_path: Path) -> None:
    bases_seen: list[Path] = []

    def opened(recipe: Recipe, phase: Phase, base: Path, folder: Path) -> FakeLearner:
        bases_seen.append(base)
        return open_learner(recipe, phase, base, folder)

    out = tmp_path / "run"
    assert run(recipe, out, opened) == out / "reason" / "model"
    assert bases_seen == [Path(recipe.base), out / "integrate" / "model"]
    assert model_of(out / "integrate" / "model") != model_of(out / "reason" / "model")


def test_steps_are_counted_through_rounds_and_phases(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe, out, open_learner)
    taken = [line for line in lines(out / "metrics.jsonl") if "loss" in line]
    assert [line["step"] for line in taken] == list(range(1, planned_steps(recipe) + 1))
    assert sorted({(line["phase"], line["round"]) for line in taken}) == [(1, 1), (1, 2), (2, 3), (2, 4)]
    reader = RunFolder(out)
    reader.refresh()
    assert not reader.problems and reader.samples[-1].round == 4
    assert {"loss", "margin", "accuracy", "masked_fraction", "tokens_per_s", "held_out_margin"} <= set(reader.names())


def test_rows_are_logged_before_they_are_trained_on_and_held_out_rows_never_are(recipe: Recipe, tmp_path: Path) -> None:
    Watched.trained = []
    run(recipe, tmp_path / "run", Watched)
    held = {row["id"] for row in lines(tmp_path / "run" / "pairs.jsonl") if row["held_out"]}
    assert held and all(rows <= logged and not rows & held for _, _, rows, logged in Watched.trained)


def test_later_rounds_replay_earlier_rows(recipe: Recipe, tmp_path: Path) -> None:
    Watched.trained = []
    run(recipe, tmp_path / "run", Watched)
    (_, _, first, _), (_, _, second, _) = Watched.trained[:2]
    fresh = {row["id"] for row in lines(tmp_path / "run" / "pairs.jsonl") if row["round"] == 1}
    assert fresh <= second and second & first


def test_the_reference_is_asked_for_every_row_of_a_phase_that_needs_one(recipe: Recipe, tmp_path: Path) -> None:
    seen: list[FakeLearner] = []

    def opened(*given: Any) -> FakeLearner:
        seen.append(open_learner(*given))
        return seen[-1]

    run(recipe, tmp_path / "run", opened)
    rows = {row["id"] for row in lines(tmp_path / "run" / "pairs.jsonl") if row["phase"] == 1}
    assert set(seen[1].referred) == rows and all(learner.closed for learner in seen)


def test_a_phase_that_gets_worse_ends_early_with_its_best_round(recipe: Recipe, tmp_path: Path) -> None:
    class Worse(FakeLearner):
        def evaluate(self, rows: Sequence[Masked]) -> Held:
            return Held(loss=1.0, margins=(1 / self.step,) * len(rows))

    patient = {"patience": 2, "min_gain": 0.0}
    phase = recipe.phases[0].model_copy(
        update={"rounds": 9, "early_stop": type(recipe.phases[0].early_stop)(**patient)}
    )
    watch = Quiet()
    run(recipe.model_copy(update={"phases": (phase,)}), tmp_path / "run", Worse, watch=watch)
    kept = json.loads((tmp_path / "run/integrate/rounds/001/adapter.json").read_text(encoding="utf-8"))
    assert model_of(tmp_path / "run/integrate/model") == str(kept[1])
    assert sorted(path.name for path in (tmp_path / "run/integrate/rounds").iterdir()) == ["001", "002", "003"]
    assert any("weights of round 1" in line for line in watch.lines)


@pytest.mark.parametrize(
    ("margins", "ended", "best"),
    [([0.1, 0.2, 0.1], False, 1), ([0.3, 0.2, 0.1], True, 0), ([None, None, None], False, 2), ([], False, -1)],
)
def test_early_stop_counts_rounds_since_the_best(
    recipe: Recipe, margins: list[float | None], ended: bool, best: int
) -> None:
    stop = type(recipe.phases[0].early_stop)(patience=2)
    phase = recipe.phases[0].model_copy(update={"rounds": 9, "early_stop": stop})
    assert (has_ended(phase, margins), best_round(phase, margins)) == (ended, best)


def test_an_unreadable_row_is_named_and_left_out(base: Path, tmp_path: Path) -> None:
    file = write_pairs(tmp_path / "pairs.jsonl")
    rows = file.read_text(encoding="utf-8").splitlines()
    rows[6] = '{"prompt": "What?", "chosen": '
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    watch = Quiet()
    run(small_recipe(base, file), tmp_path / "run", open_learner, watch=watch)
    assert any("pairs.jsonl row 7" in line for line in watch.lines)


def test_too_many_unreadable_rows_are_refused_with_the_numbers(base: Path, tmp_path: Path) -> None:
    file = write_pairs(tmp_path / "pairs.jsonl", 10)
    file.write_text(file.read_text(encoding="utf-8") + '{"no": 1}\n' * 5, encoding="utf-8")
    with pytest.raises(InputError, match=r"5 of 15 rows .* data.damaged_share 0.1; the first is row 11: "):
        run(small_recipe(base, file), tmp_path / "run", open_learner)


def test_damaged_rows_are_refused_before_the_first_step(base: Path, tmp_path: Path) -> None:
    recipe = small_recipe(base, write_pairs(tmp_path / "pairs.jsonl"), "data.max_length_tok=40")
    with pytest.raises(InputError, match=r"rows cannot be trained on.*too_long"):
        run(recipe, tmp_path / "run", open_learner)
    assert not (tmp_path / "run/metrics.jsonl").exists()
    assert lines(tmp_path / "run/audit.jsonl")[0]["dropped"]["too_long"] > 0


def test_a_student_that_cannot_answer_a_sample_question_ends_nothing(recipe: Recipe, tmp_path: Path) -> None:
    class Mute(FakeLearner):
        def student(self) -> Backend:
            return ScriptedBackend(lambda _: BackendError("the prompt does not fit"))

    run(recipe, tmp_path / "run", Mute)
    assert lines(tmp_path / "run/samples.jsonl")[0]["text"] == "(no sample: the prompt does not fit)"


def test_a_merge_that_unties_the_embeddings_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    class Untying(FakeLearner):
        def merge(self, folder: Path) -> None:
            super().merge(folder)
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}), encoding="utf-8")

    with pytest.raises(TrainingError, match=r"embeddings are tied in .* and untied"):
        run(recipe, tmp_path / "run", Untying)
    assert not (tmp_path / "run/integrate/model").exists()


def test_an_interrupt_finishes_the_step_and_the_run_goes_on_from_it(recipe: Recipe, tmp_path: Path) -> None:
    class Interrupting(Quiet):
        def show(self, what: str, *, done: int = 0, total: int = 0, note: str = "") -> None:
            if done == 3 and "of 2" in what:
                os.kill(os.getpid(), signal.SIGINT)

    out, whole = tmp_path / "run", tmp_path / "whole"
    with pytest.raises(KeyboardInterrupt):
        run(recipe, out, open_learner, watch=Interrupting())
    assert json.loads((out / "integrate/learner/checkpoint.json").read_text(encoding="utf-8"))[0] == 3
    run(recipe, out, open_learner, resume=True)
    run(recipe, whole, open_learner)
    assert facts(out) == facts(whole)


@pytest.mark.parametrize("run_it", ["fake", pytest.param("torch", marks=pytest.mark.slow)])
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    run_it: str, tmp_path: Path, server: ForkServerContext
) -> None:
    work = small_base(tmp_path / "base") if run_it == "torch" else bases.resolve("nano")
    recipe = small_recipe(work, write_pairs(tmp_path / "pairs.jsonl"))
    target = run_torch if run_it == "torch" else run_fake
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert not killed(server, target, (recipe, whole, False), out=whole, at=10**9)
    moments = sorted(random.Random(7).sample(range(1, marks(whole) * 9 // 10), KILLS))
    kills = [killed(server, target, (recipe, out, (out / "state.json").exists()), out=out, at=at) for at in moments]
    assert all(kills), moments
    assert not killed(server, target, (recipe, out, (out / "state.json").exists()), out=out, at=10**9)
    assert facts(out) == facts(whole)
    for phase in ("integrate", "reason"):
        name = "model.safetensors" if run_it == "torch" else "weight.txt"
        weights = [(folder / phase / "model" / name).read_bytes() for folder in (out, whole)]
        assert weights[0] == weights[1]


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize(("backend", "library"), [("trl", "torch"), ("mlx", "mlx")])
def test_a_real_learner_takes_back_the_weights_of_an_earlier_round(
    backend: BackendName, library: str, kind: str, tmp_path: Path
) -> None:
    pytest.importorskip(library)
    base = small_base(tmp_path / "base")
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    recipe = small_recipe(base, pairs, f"adapter.kind={kind}", "phases.0.rounds=1", "phases.1.rounds=1")
    phase = recipe.phases[0]
    source, rows = open_source(recipe, tmp_path, Quiet()), Rows(recipe, phase, open_renderer(base, recipe))
    learner = opener(backend)(recipe, phase, base, tmp_path / "learner")
    rows.take(source.refresh(0, 0, student=Student(learner.student, learner.fingerprint)))
    steps = rows.steps(0)
    seen = []
    for first in (0, 2):
        learner.train(steps[first : first + 2], first=first, on_step=lambda *_: None)
        learner.save_adapter(tmp_path / str(first))
        seen.append(learner.fingerprint())
    learner.load_adapter(tmp_path / "0")
    assert seen[0] == learner.fingerprint() != seen[1]
    learner.close()


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    return processes("preflexor_training.torch_backend.learner")


def run_fake(recipe: Recipe, out: Path, resume: bool) -> None:
    run(recipe, out, open_learner, resume=resume)


def test_durations_fit_a_line() -> None:
    assert [duration(s) for s in (0.4, 59.6, 125, 3600 * 3 + 60 * 20)] == ["0 s", "1:00 min", "2:05 min", "3:20 h"]
