"""The verdicts of the table of results, on made-up results: what is shown is said to be, and what is not is not."""

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflexor_agents.evaluation.results import Result
from preflexor_agents.evaluation.systems import system
from preflexor_agents.evaluation.tasks import Task

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        parts = ("plan", "run", "claims", "found", "report")
        yield SimpleNamespace(**{part: import_module(f"results_{part}") for part in parts})


def answers(right: int, of: int = 100, *, column: str = "single", seed: int = 0, first: int = 0) -> list[Result]:
    """The first so many are right, from the `first` on."""
    return [
        Result(task=f"{column}-{n}", system="s", seed=seed, column=column, right=first <= n < first + right)
        for n in range(of)
    ]


def rounds(before: str, then: str, column: str = "single") -> list[Result]:
    """Runs of two rounds; a letter each, `r` is right."""
    return [
        Result(
            task=f"{column}-{n}", system="s", seed=0, column=column, right=b == "r", rounds_right=(a == "r", b == "r")
        )
        for n, (a, b) in enumerate(zip(before, then, strict=True))
    ]


def test_two_columns_with_separate_intervals_show_a_claim(bench: Any) -> None:
    first = [*answers(20), *answers(30, column="numeric"), *answers(50, column="comparison")]
    second = [*answers(60), *answers(70, column="numeric"), *answers(55, column="comparison")]
    text = bench.claims.is_over("Phase I over base", bench.claims.compared(first, second))
    assert text.startswith("**Phase I over base: shown.** Separate intervals in 2 of 3 columns (single 20.0 [")
    assert "the intervals overlap in 1 of 3 columns (comparison 50.0 [" in text


def test_one_column_is_not_enough(bench: Any) -> None:
    first, second = [*answers(20), *answers(50, column="numeric")], [*answers(90), *answers(50, column="numeric")]
    text = bench.claims.is_over("A over B", bench.claims.compared(first, second))
    assert text.startswith("**A over B: not shown.** Separate intervals in 1 of 2 columns")


def test_the_other_direction_is_no_claim_and_is_told(bench: Any) -> None:
    first, second = [*answers(90), *answers(90, column="numeric")], [*answers(20), *answers(20, column="numeric")]
    text = bench.claims.is_over("A over B", bench.claims.compared(first, second))
    assert (
        text.startswith("**A over B: not shown, and worse.**") and "**worse** with separate intervals in 2 of 2" in text
    )


def test_a_gain_that_costs_another_column_is_told_with_it(bench: Any) -> None:
    first = [*answers(20), *answers(20, column="numeric"), *answers(90, column="unanswerable")]
    second = [*answers(80), *answers(80, column="numeric"), *answers(30, column="unanswerable")]
    text = bench.claims.is_over("A over B", bench.claims.compared(first, second))
    assert text.startswith("**A over B: shown, and worse elsewhere.**")
    assert "**worse** with separate intervals in 1 of 3 columns (unanswerable 90.0 [" in text


def test_what_only_the_paired_test_tells_apart_does_not_show_a_claim(bench: Any) -> None:
    text = bench.claims.is_over("A over B", bench.claims.compared(answers(50), answers(62)))
    assert text.startswith("**A over B: not shown.**")
    assert "of these the paired test tells apart single +12.0 [" in text


def test_rounds_that_change_little_are_not_worse(bench: Any) -> None:
    runs = rounds("rrrwwwrrrw" * 5, "rrwrwwrrrw" * 5)
    text = bench.claims.is_kept("The gate", bench.claims.compared(bench.claims.first_round(runs), runs))
    assert text.startswith("**The gate: not worse than round 1.** Accuracy changes by +0.0 [")
    assert "5 answers became right and 5 wrong, p = 1" in text
    few = bench.claims.compared(*[rounds("r" * 14, "r" * 14)] * 2)
    assert "a loss of up to 21.5 points is not excluded" in bench.claims.is_kept("The gate", few)


def test_rounds_that_spoil_answers_are_worse_even_in_one_column(bench: Any) -> None:
    runs = [*rounds("r" * 30, "r" * 30, "numeric"), *rounds("r" * 30, "w" * 10 + "r" * 20)]
    text = bench.claims.is_kept("Always revising", bench.claims.compared(bench.claims.first_round(runs), runs))
    assert text.startswith("**Always revising: worse than round 1.**")
    assert "below round 1 by more than the interval in single -33.3 [" in text
    better = bench.claims.compared(runs, bench.claims.first_round(runs))
    assert "above it by more than the interval" in bench.claims.is_kept("Back", better)


@pytest.mark.parametrize(("second", "told"), [(80, "better"), (52, "no difference shown"), (20, "worse")])
def test_a_change_is_named_by_its_direction(bench: Any, second: int, told: str) -> None:
    assert f"**No mask: {told}.**" in bench.claims.changes(
        "No mask", bench.claims.compared(answers(50), answers(second))
    )


def test_more_seeds_do_not_make_an_interval_narrower(bench: Any) -> None:
    once = bench.claims.compared(answers(50), answers(60))[0]
    first, second = ([result for seed in range(9) for result in answers(k, seed=seed)] for k in (50, 60))
    (many,) = bench.claims.compared(first, second)
    assert (many.first, many.second, many.questions) == (once.first, once.second, 100)


def test_nothing_that_both_were_asked_is_no_comparison(bench: Any) -> None:
    assert bench.claims.compared(answers(5), answers(5, column="numeric")) == []


def test_p_is_raised_for_as_many_tests_as_there_are(bench: Any) -> None:
    assert bench.claims.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_run_is_cut_after_a_round(bench: Any) -> None:
    run = Result(
        task="t",
        system="s",
        seed=0,
        column="c",
        right=False,
        rounds_right=(False, True, False),
        proposed_right=(True, False),
        accepted=(True, True),
        changed=(True, True),
        rounds_calls=(1, 4, 7),
        rounds_tokens=(10, 40, 70),
        rounds_seconds=(0.1, 0.4, 0.7),
        tokens_generated=80,
        calls=8,
        seconds=0.9,
        supported=1,
    )
    cut = bench.run.after(run, 2)
    assert (cut.right, cut.calls, cut.tokens_generated, cut.seconds) == (True, 4, 40, 0.4)
    assert (cut.rounds_right, cut.accepted, cut.supported) == ((False, True), (True,), 0)
    assert bench.run.after(run, 3) == bench.run.after(run, 4) == run, "what ended earlier is whole"


PHASES = ("base", "phase1", "phase2")


@pytest.mark.parametrize("models", [("base",), ("base", "phase1"), (*PHASES, "no mask")])
def test_every_row_is_a_protocol_that_eval_knows_with_a_label_of_its_own(bench: Any, models: tuple[str, ...]) -> None:
    listed = bench.plan.entries(models)
    assert all(system(f"nano::{entry.protocol}").protocol == entry.protocol for entry in listed)
    assert len({(entry.label, entry.kind == "seeds") for entry in listed}) == len(listed)
    assert {entry.model for entry in listed} == set(models)


def costs(entry: Any) -> float:
    known = {"think": 50, "default": 300, "paper": 400, "gate:rounds=4": 200, "revise:rounds=4": 380}
    return {**known, "best-of:candidates=4": 230, "gate:candidates=4": 450}[entry.protocol]


def test_a_cheap_row_spends_the_rest_on_drafts(bench: Any) -> None:
    budget = bench.plan.at_equal_budget(bench.plan.entries(PHASES), costs)
    assert (budget.tokens, budget.limit, budget.dearest) == (450, False, "Phase II + gate, best of 4")
    found = {entry.label: entry.protocol for entry in budget.entries}
    assert found["base"] == "answer" and found["Phase II, 8 drafts"] == "best-of:candidates=8"
    assert found["Phase II + gate, 5 drafts"] == "gate:candidates=5"
    assert found["Phase II + recursion, 2 drafts"] == "paper:candidates=2"


def test_a_limit_that_is_given_holds_for_every_row(bench: Any) -> None:
    budget = bench.plan.at_equal_budget(bench.plan.entries(PHASES), costs, given=300)
    assert budget.limit and budget.tokens == 300
    for entry in budget.entries:
        config = system(f"nano::{entry.protocol}").config
        assert config.budget_tok == 300 if config is not None else entry.protocol == "answer"


def suite(bench: Any, count: int) -> Any:
    columns = {
        name: tuple(Task(id=f"{name}-{n}", question="?", kind="exact", answer="x", column=name) for n in range(count))
        for name in ("single", "puzzles")
    }
    return bench.plan.Suite(columns, frozenset({"puzzles"}))


def keys(bench: Any, kind: str, questions: int, seeds: tuple[int, ...], part: int | None = None) -> list[Any]:
    entry = bench.plan.Entry(label="x", model="base", protocol="think", kind=kind)
    made = bench.plan.jobs(entry, suite(bench, 60), bench.plan.Sizes.of(questions), seeds, part=part)
    return [key for job in made for key in job.asked()]


@settings(max_examples=30)
@given(
    kind=st.sampled_from(["draft", "loop", "equal", "sweep", "seeds"]),
    questions=st.integers(1, 70),
    seeds=st.sampled_from([(0,), (3, 1), (0, 1, 2)]),
)
def test_the_parts_are_all_there_is_to_ask_and_more_questions_keep_the_old(
    bench: Any, kind: str, questions: int, seeds: tuple[int, ...]
) -> None:
    whole = keys(bench, kind, questions, seeds)
    parts = [key for part in range(bench.plan.PARTS + 1) for key in keys(bench, kind, questions, seeds, part)]
    assert sorted(parts) == sorted(whole) and len(set(whole)) == len(whole)
    assert set(whole) <= set(keys(bench, kind, questions + 10, seeds))


def test_a_question_is_asked_with_one_seed_in_turn_and_with_all_where_seeds_are_compared(bench: Any) -> None:
    drafts, loops = keys(bench, "draft", 30, (0, 1)), keys(bench, "loop", 30, (0, 1))
    assert len(drafts) == len(dict(drafts)) == 30 + 10 and {seed for _, seed in drafts} == {0, 1}
    assert set(loops) <= set(drafts) and len(loops) == 10 + 4
    assert len(keys(bench, "seeds", 30, (0, 1))) == 2 * (8 + 3)


def test_a_column_that_there_is_not_is_named(bench: Any) -> None:
    with pytest.raises(Exception, match="there is no column 'poems'; there are: single; puzzles"):
        bench.plan.only(suite(bench, 1), ["poems"])


def measured(bench: Any, better: int, *, missing: int = 0) -> Any:
    found = {}
    for entry in bench.plan.entries((*PHASES, "no mask")):
        right = {"base": 20, "phase1": 20 + better, "phase2": 20 + 2 * better}.get(entry.model, 20)
        results = [*answers(right), *answers(right, column="numeric")]
        several = {"rounds_right": (True, False), "proposed_right": (False,), "accepted": (True,), "changed": (True,)}
        if entry.kind == "loop":  # the second round spoils what was right
            results = [replace(result, **several) for result in results]
        found[entry] = [replace(result, system=entry.label, tokens_generated=50) for result in results]
    how = bench.run.Asking(sizes=bench.plan.Sizes.of(100), seeds=(0,), slots=1, budget_tok=None)
    return bench.found.Measured(
        found=found,
        by_round={"with the gate": ()},
        budget=None,
        columns=("single", "numeric"),
        models=(bench.run.Model("base", Path("folder/base.gguf"), "ab" * 32),),
        how=how,
        command="python benchmarks/results.py",
        machine="a machine",
        missing=missing,
    )


@pytest.mark.parametrize(("better", "verdict"), [(35, "shown"), (0, "not shown"), (2, "not shown")])
def test_the_page_says_what_was_found(bench: Any, better: int, verdict: str) -> None:
    text = bench.report.report(measured(bench, better), {})
    assert f"**Phase I over base: {verdict}.**" in text and f"**Phase II over Phase I: {verdict}.**" in text
    assert f"| base | base.gguf | {'ab' * 32} |" in text and "folder" not in text
    assert "Not complete" not in text and "Always revising: worse than round 1" in text
    assert "## Ablations" in text and "**Ablation: no mask against Phase II:" in text
    assert "| ablation: no mask | 20.0 [" in text


def test_seeds_are_compared_on_the_questions_that_were_asked_with_all(bench: Any) -> None:
    entry = bench.plan.Entry(label="Phase II", model="phase2", protocol="think", kind="seeds")
    found = {entry: [*answers(50), *answers(50, seed=1, first=10), *answers(1, 1, column="late")]}
    how = replace(measured(bench, 0).how, seeds=(0, 1))
    (seeds,) = bench.found.by_seed(replace(measured(bench, 0), found=found, how=how))
    assert (seeds.questions, seeds.by_seed[0].value, seeds.by_seed[1].value, seeds.split.value) == (100, 0.5, 0.5, 0.2)


def test_a_page_that_is_not_complete_says_so(bench: Any) -> None:
    assert "**Not complete:** 7 answers are not there yet" in bench.report.report(measured(bench, 0, missing=7), {})
