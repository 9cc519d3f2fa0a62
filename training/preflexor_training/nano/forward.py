"""Run a Llama over a token forest: each branch attends to its ancestors and to itself, and to nothing else."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, LlamaForCausalLM

from preflexor_training.nano.batches import Branch, Forest

FOREST_ATTENTION = "preflexor_forest"
BLOCK_TOK = 192
"""Queries that are handled together; smaller blocks waste less on pairs that causality forbids."""
ROUND_TOK = 64
"""Sizes are rounded up to this: the CPU's matrix kernels are generated per shape, which costs more than the padding."""


def round_up(size: int, *, multiple: int = ROUND_TOK) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple


def hidden_states(model: LlamaForCausalLM, forest: Forest) -> Tensor:
    """The last layer's normed output for each node, (N, H)."""
    device, n = model.device, len(forest.ids)
    padding = (0, round_up(n, multiple=4 * ROUND_TOK) - n)
    positions = torch.from_numpy(np.pad(forest.depth, padding)).to(device)[None]  # (1, N')
    ids = torch.from_numpy(np.pad(forest.ids, padding)).to(device)[None]
    views = [view for branch in forest.branches for view in _views(branch, device=device)]
    usual = model.config._attn_implementation
    model.config._attn_implementation = FOREST_ATTENTION
    try:
        hidden = model.model.embed_tokens(ids)  # (1, N', H)
        rotary = model.model.rotary_emb(hidden, position_ids=positions)
        for layer in model.model.layers:
            hidden = layer(hidden, position_embeddings=rotary, branches=views)
        return torch.as_tensor(model.model.norm(hidden)[0, :n])
    finally:
        model.config._attn_implementation = usual


class _View(NamedTuple):
    """Some queries of one branch and their keys, built once for all layers."""

    queries: slice
    keys: list[slice]
    mask: Tensor
    """(n, m), 0 or minus infinity, both sizes rounded up."""


def _views(branch: Branch, *, device: torch.device) -> Iterator[_View]:
    above = sum(b - a for a, b in branch.ancestors)
    for start in range(branch.start, branch.stop, BLOCK_TOK):
        stop = min(start + BLOCK_TOK, branch.stop)
        first = above + start - branch.start  # the first query's own place among the keys
        mask = torch.full((round_up(stop - start), round_up(first + stop - start)), -torch.inf, device=device)
        mask.triu_(first + 1)
        keys = [*(slice(a, b) for a, b in branch.ancestors), slice(branch.start, stop)]
        yield _View(slice(start, stop), keys, mask)


def _gather(x: Tensor, parts: list[slice], size: int) -> Tensor:
    """The parts of (1, heads, N, D) after one another, zeros up to `size`, as a leaf that wants a gradient."""
    gathered = x.new_zeros(1, x.shape[1], size, x.shape[3])
    at = 0
    for part in parts:
        end = at + part.stop - part.start
        gathered[:, :, at:end] = x[:, :, part]
        at = end
    return gathered.requires_grad_()


class _ForestAttention(torch.autograd.Function):
    """Attention view by view. The gradients of keys that many branches share are summed in one buffer."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, views: list[_View], scale: float) -> Tensor:
        """Inputs (1, heads, N, D); returns the same shape."""
        out = torch.zeros_like(q)
        parts = []
        for view in views:
            n, m = view.mask.shape
            leaves = (_gather(q, [view.queries], n), _gather(k, view.keys, m), _gather(v, view.keys, m))
            with torch.enable_grad():
                scores = (leaves[0] * scale) @ leaves[1].transpose(2, 3) + view.mask.to(q.dtype)  # (1, heads, n, m)
                part = scores.softmax(-1) @ leaves[2]
            out[:, :, view.queries] = part.detach()[:, :, : view.queries.stop - view.queries.start]
            parts.append((leaves, part))
        ctx.parts, ctx.views = parts, views
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients for q, k and v."""
        grad = grads[0]
        dq, dk, dv = torch.zeros_like(grad), torch.zeros_like(grad), torch.zeros_like(grad)
        for view, (leaves, part) in zip(ctx.views, ctx.parts, strict=True):
            wanted = _gather(grad, [view.queries], part.shape[2]).detach()
            part_dq, part_dk, part_dv = torch.autograd.grad(part, leaves, wanted)
            dq[:, :, view.queries] = part_dq[:, :, : view.queries.stop - view.queries.start]
            at = 0
            for keys in view.keys:
                end = at + keys.stop - keys.start
                dk[:, :, keys] += part_dk[:, :, at:end]
                dv[:, :, keys] += part_dv[:, :, at:end]
                at = end
        ctx.parts = None
        return dq, dk, dv, None, None


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    branches: list[_View],
    scaling: float,
    dropout: float = 0.0,
    position_ids: Tensor | None = None,
    use_cache: bool | None = None,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls; returns (1, N, heads, D)."""
    attend: Callable[..., Tensor] = _ForestAttention.apply
    out = attend(query, key, value, branches, scaling)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(FOREST_ATTENTION, _attend)
