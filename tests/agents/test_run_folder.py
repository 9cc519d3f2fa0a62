"""The folder of a training run, read while it is written."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflexor_agents import run_folder
from preflexor_agents.errors import InputError
from preflexor_agents.run_folder import RunFolder, described, find_runs
from preflexor_tui.braille import plot, thinned


def append(folder: Path, text: str, name: str = "metrics.jsonl") -> None:
    folder.mkdir(exist_ok=True)
    with (folder / name).open("a", encoding="utf-8", newline="") as file:
        file.write(text)


def line(step: int, **values: object) -> str:
    return json.dumps({"step": step, **values}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    return made


def test_a_run_without_files_is_empty(folder: Path) -> None:
    run = RunFolder(folder)
    assert run.refresh() is False
    assert (run.points, run.names(), run.problems) == ([], [], ())


def test_what_is_written_later_is_read_later(folder: Path) -> None:
    append(folder, line(1, loss=2.0, note="warm"))
    run = RunFolder(folder)
    assert run.refresh()
    append(folder, line(2, loss=1.5, margin=0.1, vram_gb=3))
    assert run.refresh() and not run.refresh()
    assert run.series("loss") == [(1.0, 2.0), (2.0, 1.5)]
    assert run.names() == ["loss", "margin", "vram_gb"]


def test_half_a_line_waits_for_its_other_half(folder: Path) -> None:
    whole = line(1, loss=2.5)
    append(folder, whole[:9])
    run = RunFolder(folder)
    run.refresh()
    assert (run.points, run.problems) == ([], ())
    append(folder, whole[9:])
    run.refresh()
    assert run.series("loss") == [(1.0, 2.5)]


def test_a_file_that_begins_anew_is_read_anew(folder: Path) -> None:
    append(folder, line(1, loss=2.0) + line(2, loss=1.0))
    run = RunFolder(folder)
    run.refresh()
    (folder / "metrics.jsonl").write_text(line(1, loss=9.0), encoding="utf-8")
    run.refresh()
    assert run.series("loss") == [(1.0, 9.0)]


def test_a_file_that_was_replaced_by_a_longer_one_is_read_anew(folder: Path) -> None:
    append(folder, line(1, loss=2.0))
    run = RunFolder(folder)
    run.refresh()
    (folder / "new").write_text(line(1, loss=9.0) + line(2, loss=8.0), encoding="utf-8")
    (folder / "new").replace(folder / "metrics.jsonl")
    run.refresh()
    assert run.series("loss") == [(1.0, 9.0), (2.0, 8.0)]


def test_damaged_lines_are_counted_and_the_rest_is_read(folder: Path) -> None:
    append(folder, 'no json\n[1]\n\n{"loss": 3}\n{"step": "x"}\n{"step": Infinity}\n' + "[" * 5000 + "\n")
    append(folder, line(5, loss=1.0))
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 6, "loss": "\xff"}\n')
    run = RunFolder(folder)
    run.refresh()
    assert [p.step for p in run.points] == [5]
    assert run.problems == ("metrics.jsonl: 7 of 9 lines are no JSON objects, left out",)


def test_a_value_that_is_not_finite_is_a_gap(folder: Path) -> None:
    append(folder, '{"step": 1, "loss": 2}\n{"step": 2, "loss": NaN}\n{"step": 3, "loss": 1' + "0" * 400 + "}\n")
    run = RunFolder(folder)
    run.refresh()
    assert described(run.series("loss")) == "2 → 2 over steps 1-1; lowest 2 at 1, highest 2 at 1; 2 not finite"


def test_a_long_run_stays_small_and_keeps_its_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "MOST_POINTS", 100)
    append(folder, "".join(line(step, loss=float(step)) for step in range(1, 1001)))
    run = RunFolder(folder)
    run.refresh()
    assert len(run.points) <= 101
    assert run.points[-1].step == 1000


def test_a_long_file_is_read_in_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "_MOST_BYTES", 64)
    append(folder, "".join(line(step, loss=1.0) for step in range(10)))
    run = RunFolder(folder)
    run.refresh()
    assert 0 < len(run.points) < 10 and run.more
    while run.more:
        run.refresh()
    assert len(run.points) == 10


def test_a_line_without_an_end_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "_MOST_BYTES", 64)
    append(folder, "x" * 100)
    with pytest.raises(InputError, match="a line of more than 64 bytes"):
        RunFolder(folder).refresh()


def test_samples_and_config_are_read(folder: Path) -> None:
    append(folder, 'base = "nano"\n', "config.toml")
    append(folder, '{"round": 1, "step": 10, "prompt": "Q", "text": "A"}\n{"round": 1}\n', "samples.jsonl")
    run = RunFolder(folder)
    run.refresh()
    assert run.config == 'base = "nano"\n'
    assert [tuple(s) for s in run.samples] == [(1, 10, "Q", "A")]


def test_a_broken_config_is_said_and_shown(folder: Path) -> None:
    append(folder, "base = ", "config.toml")
    run = RunFolder(folder)
    run.refresh()
    assert run.config == "base = " and run.problems[0].startswith("config.toml: Invalid value")


def test_a_folder_that_is_gone_is_said(folder: Path) -> None:
    run = RunFolder(folder)
    folder.rmdir()
    with pytest.raises(InputError, match="is no folder"):
        run.refresh()


def test_runs_are_found_in_a_folder_and_as_the_folder(tmp_path: Path) -> None:
    append(tmp_path / "a", line(1))
    append(tmp_path / "b", line(1))
    (tmp_path / "empty").mkdir()
    assert set(find_runs(tmp_path)) == {tmp_path / "a", tmp_path / "b"}
    assert find_runs(tmp_path / "a") == [tmp_path / "a"]
    assert find_runs(tmp_path / "gone") == []


def test_a_falling_line_falls() -> None:
    lines = plot([(0, 3.0), (1, 2.0), (2, 1.0), (3, 0.0)], width=4, height=2)
    assert lines == ["⠑⢄⠀⠀", "⠀⠀⠑⢄"]


def test_a_gap_is_left_open() -> None:
    (line_,) = plot([(0, 1.0), (1, math.nan), (2, 1.0)], width=3, height=1)
    assert line_[1] == "⠀" and line_[0] != "⠀" and line_[2] != "⠀"


@given(
    st.lists(st.tuples(st.integers(0, 10**6).map(float), st.floats()), max_size=60),
    st.integers(0, 30),
    st.integers(0, 8),
)
def test_any_points_make_a_picture_of_the_asked_size(
    points: list[tuple[float, float]], width: int, height: int
) -> None:
    lines = plot(points, width=width, height=height)
    assert len(lines) == (height if width else 0)
    assert all(len(line_) == width for line_ in lines)


@given(st.lists(st.floats(-100, 100) | st.just(math.nan), min_size=1, max_size=400), st.integers(1, 20))
def test_thinning_keeps_peaks_ends_and_gaps(values: list[float], columns: int) -> None:
    points = [(float(i), value) for i, value in enumerate(values)]
    kept = thinned(points, columns)
    finite = [value for value in values if math.isfinite(value)]
    left = [value for _, value in kept if math.isfinite(value)]
    assert len(kept) <= max(5 * columns * 2 + 5, 5) or len(kept) == len(points)
    if finite:
        assert (min(left), max(left), left[0], left[-1]) == (min(finite), max(finite), finite[0], finite[-1])
