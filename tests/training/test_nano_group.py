import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs the train extra")

import torch

from preflexor_training.nano.group import Group, join_group

MEMBER = """
import sys, torch
from preflexor_training.nano.group import join_group
group = join_group()
model = torch.nn.Linear(2, 1)
model.weight.grad = torch.full((1, 2), 1.0 + 2 * group.rank)
model.bias.grad = torch.tensor([10.0 * group.rank])
group.average_gradients(model)
told = group.agree(0.25 if group.rank == 0 else 0.75)
torch.save([model.weight.grad, model.bias.grad, torch.tensor(told)], sys.argv[1])
torch.distributed.destroy_process_group()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_process_alone_is_a_group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    group = join_group()
    assert group == Group(rank=0, size=1)
    assert group.agree(0.5) == 0.5


@pytest.mark.slow
def test_two_processes_take_the_mean_gradient_and_the_first_ones_word(tmp_path: Path) -> None:
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    members = [
        subprocess.Popen([sys.executable, "-c", MEMBER, str(tmp_path / name)], env={**shared, "RANK": name})
        for name in ("0", "1")
    ]
    assert [member.wait(timeout=120) for member in members] == [0, 0]
    for name in ("0", "1"):
        weight, bias, told = torch.load(tmp_path / name, weights_only=True)
        assert weight.tolist() == [[2.0, 2.0]]
        assert bias.tolist() == [5.0]
        assert float(told) == 0.25
