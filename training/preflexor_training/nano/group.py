"""Several processes that train one model: each makes its own data, and all take the same step.

The processes are started with the variables of torch.distributed (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), as
`torchrun` does. Two single-threaded processes use two cores better than one process with two threads.
"""

import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True, slots=True)
class Group:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    def agree(self, value: float) -> float:
        """The first process's value."""
        if self.size == 1:
            return value
        told = torch.tensor([value if self.rank == 0 else 0.0], dtype=torch.float64)
        distributed.all_reduce(told)
        return float(told)

    def average_gradients(self, model: torch.nn.Module) -> None:
        """Give all processes the mean of their gradients."""
        if self.size == 1:
            return
        gradients: list[Tensor] = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients]).div_(self.size)
        distributed.all_reduce(flat)
        at = 0
        for gradient in gradients:
            gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
            at += gradient.numel()


def join_group() -> Group:
    """The group that the environment names; a process alone if it names none."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Group()
    if not distributed.is_initialized():
        distributed.init_process_group("gloo")
    return Group(distributed.get_rank(), size)
