"""What both phases teach a real model of 260 thousand weights, and the commands of the page that says so."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.training_evidence import show, table
from preflexor_agents.evaluation.statistics import wilson
from tests.training import stories

pytestmark = [pytest.mark.train, pytest.mark.slow, stories.needs_data]
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training_torch.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    blocks = PAGE.split("```")[1::2]
    return [line for block in blocks for line in block.strip().splitlines() if line.startswith("python ")]


def test_both_phases_teach_a_real_model_to_prefer(tmp_path: Path) -> None:
    found = show(tmp_path, tied=True, kind="lora", train=120, held_out=60, passes=(1, 2))
    for phase in found.phases:
        assert phase.loss[1] < phase.loss[0]
        assert phase.margin[1] > phase.margin[0]
        assert phase.merged < 1e-5
    assert wilson(*found.phases[1].held_out).low > 0.5, f"{found.phases[1].held_out} of the held-out pairs"
    assert found.still_tied
    assert table([found]).count("\n") == 3


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_page_run(command: str) -> None:
    words = [word for word in command.split()[1:] if word != "--memory"]
    done = subprocess.run([sys.executable, *words, "--small"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "nan" not in done.stdout
    assert done.stdout.count("\n") > 3
