"""FSDP2: parameters and optimizer state gathered into whole tensors to be written, and cut into shards when read.

Checkpoints are the same whether a model was sharded or not, so that a run goes on with any number of processes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import Module
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME


def whole(value: Any) -> Any:
    """A tensor that is spread over processes, all of which call this, in one piece; anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


@contextmanager
def ties_shown(model: Module) -> Iterator[None]:
    """Let embeddings with trainable token rows show the matrix below for a while.

    accelerate puts tied embeddings into one group of shards, and knows them by having the same `weight`; PEFT answers
    each question for it with a new matrix, in which the rows are worked in.
    """
    wrappers = [module for module in model.modules() if isinstance(module, TrainableTokensWrapper)]
    before = [wrapper._disable_adapters for wrapper in wrappers]
    for wrapper in wrappers:
        wrapper._disable_adapters = True
    try:
        yield
    finally:
        for wrapper, disabled in zip(wrappers, before, strict=True):
            wrapper._disable_adapters = disabled


def trained(model: Module) -> dict[str, Tensor]:
    """Every parameter that is trained, whole and on the CPU, by each of its names. All processes call this."""
    pieces = [(name, p) for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad]
    found: dict[int, Tensor] = {}
    for _, parameter in pieces:
        if id(parameter) not in found:
            found[id(parameter)] = whole(parameter.detach()).cpu()
    return {name: found[id(parameter)] for name, parameter in pieces}


def save_states(folder: Path, *, optimizer: Any, scheduler: Any, write: bool) -> None:
    """Write them under the names that Transformers reads. All processes call this, and one of them is to `write`."""
    state = _whole_state(optimizer.state_dict())
    if write:
        torch.save(state, folder / OPTIMIZER_NAME)
        torch.save(scheduler.state_dict(), folder / SCHEDULER_NAME)


def load_states(folder: Path, *, optimizer: Any, scheduler: Any) -> None:
    """Take over what any number of processes wrote; each keeps its shards."""
    state = torch.load(folder / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, held in state["state"].items():
        held |= {name: _like(value, parameters[number]) for name, value in held.items()}
    optimizer.load_state_dict(state)
    scheduler.load_state_dict(torch.load(folder / SCHEDULER_NAME, weights_only=True))


def _whole_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's `state_dict` with whole tensors on the CPU."""
    moments = {
        number: {name: whole(value).cpu() if isinstance(value, Tensor) else value for name, value in held.items()}
        for number, held in state["state"].items()
    }
    return {**state, "state": moments}


def _like(value: Any, parameter: Tensor) -> Any:
    """A moment cut as its parameter is; what is no moment, as the count of steps, stays whole."""
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
