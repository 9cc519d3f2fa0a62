"""What the page on MLX says: its commands run as written, its table is what the code finds."""

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("mlx.core", reason="needs the mlx extra")
pytest.importorskip("mlx_lm", reason="needs the mlx extra")

from preflexor_agents.cli.main import cli
from preflexor_agents.errors import ConfigError
from preflexor_training.mlx_backend.memory import GB, Size, defaults, needed_bytes
from tests.training.mlx_teaching import pairs, small_base

PAGE = (Path(__file__).parents[2] / "docs" / "training_mlx.md").read_text(encoding="utf-8")
SIZES = {
    "1B": Size(1_236_000_000, 2048, 8192, 16, 128_256),
    "3B": Size(3_213_000_000, 3072, 8192, 28, 128_256),
    "8B": Size(8_030_000_000, 4096, 14336, 32, 128_256),
}


def told(size: Size, gb: int) -> str:
    try:
        plan = defaults(size, gb * GB)
    except ConfigError:
        return "–"
    again = ", again" if plan.gradient_checkpointing else ""
    batch = f"{plan.batch_pairs} x {plan.accumulation}, {plan.max_length_tok} tokens"
    return f"bits {plan.bits}, rank {plan.rank}, {batch}{again}: {needed_bytes(size, plan) / GB:.1f} GB"


def test_the_table_is_what_the_code_finds() -> None:
    rows = re.findall(r"^\| (\d+) GB \| (.*) \|$", PAGE, re.M)
    assert [int(gb) for gb, _ in rows] == [8, 16, 24, 32, 48, 64, 96, 128]
    for gb, cells in rows:
        assert cells.split(" | ") == [told(size, int(gb)) for size in SIZES.values()]


@pytest.mark.slow
def test_the_commands_run_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    small_base(tmp_path / "base")
    with (tmp_path / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for pair in pairs(8):
            replies = {
                side: f"<|thinking|>\n{reply.thinking}\n<|/thinking|>\n{reply.answer}"
                for side, reply in (("chosen", pair.chosen), ("rejected", pair.rejected))
            }
            file.write(json.dumps({"id": pair.id, "prompt": pair.prompt[0].content, **replies}) + "\n")
    lines = [
        shlex.split(line)
        for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
        for line in block.splitlines()
        if line.startswith("preflexor ")
    ]
    assert len(lines) == 5
    for words in lines:
        done = CliRunner().invoke(cli, words[1:])
        assert done.exit_code == 0, (words, done.output)
    assert (tmp_path / "merged" / "model.safetensors").is_file()
