"""Pictures of a run, its sparklines, and what is sent to TensorBoard."""

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from preflexor_agents.cli.train_show import sparkline
from preflexor_agents.errors import InputError
from preflexor_training.plots import PICTURES, draw
from preflexor_training.trackers import tracking

pytestmark = pytest.mark.train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines: list[dict[str, Any]] = []
    for step in range(1, 41):
        numbers = {"loss": 2 / step, "margin": step / 10, "accuracy": 0.5, "masked_fraction": 0.3, "chosen_tok": 20}
        lines.append({"step": step, "round": 1 + step // 20, "t_s": step, **numbers})
        if step % 20 == 0:
            lines.append({"step": step, "round": step // 20, "held_out_margin": math.nan if step == 20 else 1.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path


def test_every_picture_is_there_as_svg_and_as_png(folder: Path) -> None:
    made = draw(folder)
    assert [path.stem for path in made] == [picture.name for picture in PICTURES]
    for path in made:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.rglob("*.partial*"))


def test_the_same_run_gives_the_same_picture(folder: Path) -> None:
    (first, *_) = draw(folder)
    before = first.read_bytes()
    draw(folder)
    assert first.read_bytes() == before


def test_what_has_no_values_is_not_drawn(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n', encoding="utf-8")
    assert [path.stem for path in draw(folder)] == ["loss"]


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        draw(tmp_path / "gone")


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([0, 0, 7, 7], 2, "▁█"),
        ([1, math.nan, 2], 9, "▁ █"),
        ([3, 3], 9, "▁▁"),
        ([math.inf], 9, " "),
        ([], 9, ""),
    ],
)
def test_a_sparkline_keeps_the_shape(values: list[float], width: int, line: str) -> None:
    assert sparkline(values, width=width) == line


def test_tensorboard_reads_what_was_tracked(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracking(("tensorboard",), folder=tmp_path, config={}) as track:
        track({"step": 3, "round": 1, "t_s": 1.0, "loss": 0.5})
        track({"step": 4, "round": 1, "t_s": 2.0, "loss": 0.25})
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(3, 0.5), (4, 0.25)]


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with (
        pytest.raises(InputError, match=r"preflexor-agents\[wandb\]"),
        tracking(("wandb",), folder=tmp_path, config={}),
    ):
        pass
