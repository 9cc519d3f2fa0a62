"""Types, plans, importance and measures: what a file holds is what was planned, and numbers are what they claim."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="needs the quantize extra")

import gguf
import numpy as np

from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.errors import InputError, ModelError, PreflexorError
from preflexor_quantize import imatrix, job, scoring, thinking
from preflexor_quantize.engine import Engine
from preflexor_quantize.files import Written, check_room, replacing
from preflexor_quantize.ftypes import NEED_IMPORTANCE, file_type, file_types
from preflexor_quantize.imatrix import _Sums, collect, windows_of
from preflexor_quantize.job import Budget, Job, outline, run
from preflexor_quantize.llama_quantize import quantize
from preflexor_quantize.plan import Plan, check_kept, even, plan
from preflexor_quantize.plot import plot
from preflexor_quantize.texts import calibration_text, scored_text

Make = Callable[[str], Path]
SIX = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "IQ4_XS")
SLOW = (*NEED_IMPORTANCE, "IQ3_S", "IQ3_M")
"""Seconds each, for their tables; one of them is made in other tests."""


def facts(file: Path) -> dict[str, object]:
    fields = gguf.GGUFReader(file).fields
    return {name: fields[name].contents() for name in fields if name.startswith("quantize.")}


def test_every_type_of_llama_cpp_is_written_as_planned(tmp_path: Path) -> None:
    for type_name in file_types():
        if type_name in SLOW:
            assert plan(nano_path(), type_name, importance=even(nano_path())).tensors
            continue
        planned = plan(nano_path(), type_name)
        out = tmp_path / f"{type_name}.gguf"
        quantize(nano_path(), out, type_name)
        check_kept(planned, out)
        assert abs(planned.size_bytes - out.stat().st_size) < 2048
        out.unlink()


def test_a_row_that_no_block_fits_falls_back_as_the_plan_says(converted: Make) -> None:
    planned = plan(converted("stories"), "Q4_K_M")
    notes = {t.name: (t.after, t.note) for t in planned.fallbacks}
    assert notes["blk.0.attn_q.weight"] == ("Q5_0", "row of 64 is no multiple of 256")
    assert notes["blk.0.ffn_down.weight"] == ("F16", "row of 172 is no multiple of 32")
    assert plan(nano_path(), "Q4_K_M").fallbacks == ()


def test_a_file_with_another_type_than_planned_is_found_out(tmp_path: Path) -> None:
    quantize(nano_path(), tmp_path / "q8.gguf", "Q8_0")
    with pytest.raises(PreflexorError, match="planned was Q6_K"):
        check_kept(plan(nano_path(), "Q4_K_M"), tmp_path / "q8.gguf")


def test_a_quantised_file_is_not_quantised_again(tmp_path: Path) -> None:
    quantize(nano_path(), tmp_path / "q8.gguf", "Q8_0")
    with pytest.raises(ModelError, match=r"quantised already \(Q8_0\)"):
        run(Job(source=tmp_path / "q8.gguf", out=tmp_path, types=("Q4_K_M",)), announce=lambda _: None)
    assert [p.name for p in tmp_path.iterdir()] == ["q8.gguf"]


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    short = tmp_path / "short.gguf"
    short.write_bytes(nano_path().read_bytes()[:-100_000])
    with pytest.raises(ModelError, match=r"short\.gguf"):
        plan(short, "Q4_K_M")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nano", "stories"])
def test_six_types_are_made_and_reported(name: str, folders: Make, converted: Make, tmp_path: Path) -> None:
    source = converted(name)
    report = run(Job(source=source, out=tmp_path, types=SIX), announce=lambda _: None)
    assert report.failed == {}
    assert [m.type_name for m in report.files] == list(SIX)
    kept = [(tmp_path / m.file).stat().st_size for m in report.files]
    assert kept == [m.size_bytes for m in report.files]
    kl = {m.type_name: m.fidelity.mean_kl for m in report.files}
    assert 0 < kl["Q8_0"] <= kl["Q6_K"] < kl["Q5_K_M"] < kl["Q4_K_M"] < kl["Q3_K_M"]
    said = json.loads((tmp_path / f"{name}-report.json").read_text(encoding="utf-8"))
    assert [f["type_name"] for f in said["files"]] == list(SIX)
    page = (tmp_path / f"{name}-report.md").read_text(encoding="utf-8")
    assert all(f"| {t} |" in page for t in SIX) and f"({name}-report.svg)" in page
    assert (tmp_path / f"{name}-report.svg").read_text(encoding="utf-8").count("<circle") == len(SIX)
    assert ("thinking" in page) and ((report.thinking_before is None) == (name == "stories"))


def test_a_type_that_loses_the_thinking_is_measured_but_not_kept(tmp_path: Path) -> None:
    report = run(Job(source=nano_path(), out=tmp_path, types=("IQ2_XXS",)), announce=lambda _: None)
    assert report.importance is not None
    made = report.files[0]
    assert made.verdict.startswith("lost the thinking: ") and made.file == "" and made.fidelity.mean_kl > 0.1
    assert {p.name for p in tmp_path.iterdir()} == {f"nano-report.{end}" for end in ("json", "md", "svg")}


def test_auto_takes_the_smallest_type_within_the_budget_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "LADDER", ("Q8_0", "Q3_K_M", "Q6_K", "Q4_K_M"))
    budget = Budget(max_kl=0.05)
    report = run(Job(source=nano_path(), out=tmp_path, auto=True, budget=budget), announce=lambda _: None)
    *tried, chosen = report.files
    assert chosen.verdict == "ok" and chosen.fidelity.mean_kl <= 0.05
    assert all(m.verdict != "ok" and m.size_bytes <= chosen.size_bytes for m in tried) and tried
    assert [p.name for p in tmp_path.glob("*.gguf")] == [chosen.file]


def test_auto_says_what_is_nearest_if_nothing_fits(tmp_path: Path) -> None:
    budget = Budget(max_kl=0.05, max_memory_bytes=1000)
    with pytest.raises(PreflexorError, match=r"no type is within .* 0\.0 MB of memory: IQ2_M needs"):
        run(Job(source=nano_path(), out=tmp_path, auto=True, budget=budget), announce=lambda _: None)
    assert list(tmp_path.glob("*.gguf*")) == []


def test_an_importance_matrix_is_the_mean_square_of_what_torch_multiplies(folders: Make, converted: Make) -> None:
    import torch
    from transformers import LlamaForCausalLM

    text, _ = calibration_text(None)
    found = collect(converted("stories"), text, dataset="notes")
    model = LlamaForCausalLM.from_pretrained(folders("stories"), dtype=torch.float32)
    inputs: dict[str, list[torch.Tensor]] = {"q_proj": [], "down_proj": []}
    layer = model.model.layers[1]
    layer.self_attn.q_proj.register_forward_hook(lambda _, given, __: inputs["q_proj"].append(given[0][0]))
    layer.mlp.down_proj.register_forward_hook(lambda _, given, __: inputs["down_proj"].append(given[0][0]))
    with Engine(converted("stories")) as engine:
        windows = windows_of(engine.tokens_of(text), window_tok=256, most=imatrix.MOST_WINDOWS)
    with torch.no_grad():
        for window in windows:
            model(input_ids=torch.tensor([window]))
    for ours, theirs in (("blk.1.attn_q.weight", "q_proj"), ("blk.1.ffn_down.weight", "down_proj")):
        expected = torch.cat(inputs[theirs]).pow(2).mean(0).numpy()
        assert np.allclose(found.values[ours], expected, rtol=0.02, atol=1e-4 * expected.max())


def test_experts_count_the_tokens_that_are_routed_to_them() -> None:
    sums = _Sums()
    given = np.array([[[[1.0, 2.0]], [[3.0, 0.0]], [[0.0, 5.0]]]], dtype=np.float32)  # (1, 3 tokens, 1, 2 columns)
    sums._add("e", given, np.array([[0, 1], [1, 0], [1, 3]]), experts=4)
    mean_0, mean_1, mean_2, mean_3 = sums.means()["e"].reshape(4, 2)
    assert mean_0.tolist() == [5.0, 2.0] and mean_3.tolist() == [0.0, 25.0]
    assert np.allclose(mean_1, [10 / 3, 29 / 3])
    assert np.allclose(mean_2, [20 / 6, (8 + 50) / 6])


def test_a_file_tells_what_its_importance_matrix_was_made_from(tmp_path: Path) -> None:
    notes = tmp_path / "my notes.txt"
    notes.write_text(scored_text()[:6000], encoding="utf-8")
    wanted = Job(source=nano_path(), out=tmp_path / "small.gguf", types=("Q5_K_M",), calibration_file=notes)
    plain = scoring.compare(nano_path(), _made(tmp_path, "Q5_K_M"), scored_text())
    report = run(wanted, announce=lambda _: None)
    said = facts(tmp_path / "small.gguf")
    assert said["quantize.imatrix.dataset"] == "my notes.txt" and said["quantize.imatrix.entries_count"] == 29
    assert said["quantize.imatrix.chunks_count"] > 1  # type: ignore[operator]
    assert report.files[0].fidelity.mean_kl < plain.mean_kl


def _made(folder: Path, type_name: str) -> Path:
    out = folder / f"plain-{type_name}.gguf"
    quantize(nano_path(), out, type_name)
    return out


def test_interrupting_ends_the_work_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(now: Written) -> None:
        if now.what == "IQ2_XXS" and now.done_bytes:
            raise KeyboardInterrupt

    wanted = Job(source=nano_path(), out=tmp_path, types=("IQ2_XXS",))
    with pytest.raises(KeyboardInterrupt):
        run(wanted, announce=lambda _: None, watch=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert not [t for t in threading.enumerate() if t.name.startswith("quantize")]


def test_equal_files_have_no_divergence_and_worse_ones_more(tmp_path: Path) -> None:
    same = scoring.compare(nano_path(), nano_path(), scored_text())
    assert same.mean_kl == same.p99_kl == same.rms_dp == 0 and same.top1 == 1
    assert same.perplexity == same.base_perplexity > 1 and same.scored_tok > 400


def test_scores_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(1)
    p, q = rng.normal(size=(40, 7)).astype(np.float32), rng.normal(size=(40, 7)).astype(np.float32)
    targets = rng.integers(0, 7, 40)
    scores = scoring._score(p, q, targets)
    P, Q = (np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(1, keepdims=True) for x in (p, q))
    assert np.allclose(scores.kl, (P * np.log(P / Q)).sum(1))
    assert np.allclose(scores.nll, -np.log(Q[np.arange(40), targets]))
    assert (scores.same == (p.argmax(1) == q.argmax(1))).all()


def test_calibration_and_measuring_share_no_text() -> None:
    calibration, scored = calibration_text(None)[0], scored_text()
    lines = {line for line in scored.splitlines() if len(line) > 60}
    assert lines and not lines & set(calibration.splitlines())


def test_windows_cover_the_text_evenly() -> None:
    assert windows_of(range(1000), window_tok=100, most=3) == [range(0, 100), range(300, 400), range(600, 700)]
    assert windows_of(range(50), window_tok=100, most=3) == [range(50)]


def test_a_file_that_types_its_tags_control_is_refused(tmp_path: Path) -> None:
    data = bytearray(nano_path().read_bytes())
    reader = gguf.GGUFReader(nano_path())
    field = reader.fields["tokenizer.ggml.token_type"]
    visible = next(n for n, part in enumerate(field.data) if int(field.parts[part][0]) == gguf.TokenType.USER_DEFINED)
    start = sum(part.nbytes for part in field.parts[: field.data[visible]]) + field.offset
    assert data[start] == gguf.TokenType.USER_DEFINED
    data[start] = gguf.TokenType.CONTROL
    (tmp_path / "stock.gguf").write_bytes(data)
    with pytest.raises(ModelError, match=r"as a control token.*make it again from the model's folder"):
        run(Job(source=tmp_path / "stock.gguf", out=tmp_path, types=("Q8_0",)), announce=lambda _: None)


@pytest.mark.slow
def test_the_plan_of_a_folder_is_the_plan_of_its_file_and_writes_nothing(
    folders: Make, converted: Make, tmp_path: Path
) -> None:
    plans: list[Plan] = []
    outline(Job(source=folders("stories"), out=tmp_path, types=("Q4_K_M", "IQ2_XXS")), announce=plans.append)
    assert plans[0] == plan(converted("stories"), "Q4_K_M")
    assert plans[1].type_name == "IQ2_XXS" and list(tmp_path.iterdir()) == []


def test_a_type_that_does_not_exist_is_answered_with_those_that_do() -> None:
    assert file_type("q4_k_m") == "Q4_K_M"
    with pytest.raises(InputError, match=r"no type 'Q4'; llama\.cpp has F32, F16, "):
        file_type("Q4")


def test_thinking_is_lost_where_fewer_than_half_are_left() -> None:
    def replies(count: int) -> thinking.Thinking:
        return thinking.Thinking(asked=6, well_formed=count, cut=0)

    assert thinking.lost(replies(6), replies(2)) and not thinking.lost(replies(6), replies(3))
    assert not thinking.lost(replies(0), replies(0)) and not thinking.lost(None, None)


def test_a_disk_without_room_is_found_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(PreflexorError, match="free some, or give another folder"):
        check_room(tmp_path / "not yet there", 1 << 60)
    check_room(tmp_path, 1)


def test_what_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    out = tmp_path / "a.gguf"
    out.write_text("old", encoding="utf-8")
    with pytest.raises(ValueError, match="half way"), replacing(out) as fresh:
        fresh.write_text("new", encoding="utf-8")
        raise ValueError("half way")
    assert [p.name for p in tmp_path.iterdir()] == ["a.gguf"] and out.read_text(encoding="utf-8") == "old"


def test_the_plot_takes_any_numbers_and_names() -> None:
    import xml.etree.ElementTree as tree

    for points in ([], [("Q8_0", 10, 0.0)], [("<&>", 5, 1e-3), ("B", 9, 2.0)]):
        assert tree.fromstring(plot(points)).tag.endswith("svg")
