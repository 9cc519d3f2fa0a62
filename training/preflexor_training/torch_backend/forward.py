"""Log-probs of the tokens that count, in one forward, with no logits for any other token.

The model is called as a whole, so that whatever wraps it (adapters, DDP, FSDP) sees its forward; only what its LM head
does is replaced meanwhile. Whether a model can be called so, and can have two replies share a prompt, is found out by
trying: not every architecture takes a mask of ours, and some scale their logits afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module, functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from preflexor_training.tokenized import Masked, TokenizedPair, TokenizedReply
from preflexor_training.torch_backend.collate import Tensors, collate

CHUNK_VALUES = 2**27
"""Most logits that are there at once; more are made, used and made again in the backward pass."""


class Tables(NamedTuple):
    """Log-probs at their places, 0 where nothing was scored."""

    prompt: Tensor  # (B, P), P = 0 unless the likelihood term covers the prompt
    chosen: Tensor  # (B, Lc)
    rejected: Tensor  # (B, Lr)


@dataclass(frozen=True, slots=True)
class Abilities:
    """How a model can be called."""

    shared_prompt: bool
    """Two replies can stand behind one prompt, by a mask."""
    scored_head: bool
    """Its LM head's output is its logits, so that the head can return log-probs instead."""
    window_tok: int
    """Longest text, prompt and one reply, for which a mask of ours is the model's own."""


PLAIN = Abilities(shared_prompt=False, scored_head=False, window_tok=0)


def score(model: Module, head: Module, batch: Tensors, *, scored_head: bool) -> Tables:
    """Log-probs of the tokens that count.

    Args:
        model: what is called; it may be wrapped.
        head: the LM head inside it.
        batch: of `collate`, on the model's device.
        scored_head: whether the head may return log-probs, see `Abilities`.
    """
    inputs = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"]}
    inputs["attention_mask"] = attention(batch["part"]) if "part" in batch else batch["attention_mask"]
    with _scoring(head, batch["select"], batch["targets"], scored_head):
        logits = model(**inputs, use_cache=False).logits
    logps = logits.reshape(-1) if scored_head else _logps(logits.reshape(-1, logits.shape[-1]), batch["targets"])
    return tables(logps, batch)


def attention(part: Tensor) -> Tensor:
    """Who sees whom, (R, 1, T, T): each token its own reply and prompt up to itself; padding sees itself."""
    asking, seen = part[:, :, None], part[:, None, :]
    mine = torch.tril(((asking == seen) | (seen == 0)) & (asking >= 0))
    return (mine | torch.eye(part.shape[1], dtype=torch.bool, device=part.device))[:, None]


def abilities(model: PreTrainedModel, head: Module) -> Abilities:
    """Find out how the model can be called, by comparing with the plain way on a made-up pair."""
    rows = (_made_up(model.config.get_text_config().vocab_size),)
    device = next(model.parameters()).device
    training = model.training
    model.train(mode=False)
    try:
        with torch.no_grad():
            apart = {name: value.to(device) for name, value in collate(rows, shared=False).items()}
            together = {name: value.to(device) for name, value in collate(rows, shared=True).items()}
            plain = score(model, head, apart, scored_head=False)
            scored = _agrees(score(model, head, apart, scored_head=True), plain)
            shared = _tries_shared(model, head, together, plain, scored_head=scored)
    finally:
        model.train(training)
    return Abilities(shared, scored, _window(model))


def _tries_shared(model: Module, head: Module, batch: Tensors, plain: Tables, *, scored_head: bool) -> bool:
    """Some architectures refuse the mask, each with an error of its own."""
    try:
        return _agrees(score(model, head, batch, scored_head=scored_head), plain)
    except (ValueError, RuntimeError, TypeError, IndexError, AttributeError):
        return False


def _agrees(found: Tables, plain: Tables) -> bool:
    close = 1e-3 if plain.chosen.dtype == torch.float32 and not torch.is_autocast_enabled() else 0.1
    return all(
        a.shape == b.shape and torch.allclose(a, b, atol=close, rtol=close) for a, b in zip(found, plain, strict=True)
    )


def _made_up(vocabulary: int) -> Masked:
    def ids(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return np.array(numbers, dtype=np.int32) * 7919 % vocabulary

    chosen, rejected = ids(5, 6, 7, 8), ids(9, 6, 5)
    pair = TokenizedPair(
        id="probe",
        round=0,
        prompt=ids(1, 2, 3),
        chosen=TokenizedReply(ids=chosen),
        rejected=TokenizedReply(ids=rejected),
    )
    return Masked(pair=pair, chosen=np.ones(4, dtype=np.bool_), rejected=np.ones(3, dtype=np.bool_))


def _window(model: PreTrainedModel) -> int:
    """Layers with a sliding window see less than a mask of ours says once a text is longer than it."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if not isinstance(window, int) or getattr(config, "use_sliding_window", True) is False:
        return 2**31
    return window


@contextmanager
def _scoring(head: Module, select: Tensor, targets: Tensor, scored_head: bool) -> Iterator[None]:
    """Let the head see the selected hidden states only; its own forward is back afterwards."""
    plain, before = head.forward, head.__dict__.get("forward")

    def selected(hidden: Tensor) -> Tensor:
        kept = hidden.reshape(-1, hidden.shape[-1]).index_select(0, select)  # (N, D)
        if not scored_head:
            return plain(kept)[None]  # type: ignore[no-any-return]
        size = max(1, CHUNK_VALUES // max(1, getattr(head, "out_features", 1)))
        if len(kept) <= size:
            return _logps(plain(kept), targets)[None, :, None]
        pieces = [
            checkpoint(
                lambda h, t: _logps(plain(h), t), kept[at : at + size], targets[at : at + size], use_reentrant=False
            )
            for at in range(0, len(kept), size)
        ]
        return torch.cat(pieces)[None, :, None]

    head.forward = selected
    try:
        yield
    finally:
        del head.forward
        if before is not None:
            head.forward = before


def _logps(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probs of the targets, (N,) float32, from (N, V)."""
    with torch.autocast(logits.device.type, enabled=False):
        return -functional.cross_entropy(logits.float(), targets, reduction="none")


def tables(logps: Tensor, batch: Tensors) -> Tables:
    """The flat log-probs at their places; every place is written at most once, so this is exact and repeatable."""
    count, width = batch["chosen_mask"].shape
    other = batch["rejected_mask"].shape[1]
    before = batch["nll_mask"].shape[1] - width
    flat = logps.new_zeros(count * (before + width + other)).index_copy(0, batch["slots"], logps)
    prompt, chosen, rejected = torch.split(flat, [count * before, count * width, count * other])
    return Tables(prompt.view(count, before), chosen.view(count, width), rejected.view(count, other))
