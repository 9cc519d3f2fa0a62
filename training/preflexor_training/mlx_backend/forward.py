"""Log-probs of the tokens that count, in one forward, with no logits for any other token.

Whether two replies can stand behind one prompt, and whether the LM head alone makes a model's logits, is found out by
trying: some architectures scale their logits afterwards, others keep more than keys and values.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from preflexor_agents.backends.mlx_rows import ends, module_at, vocabulary
from preflexor_training.mlx_backend.collate import Batch, collate
from preflexor_training.mlx_backend.sharing import PromptCache, ReplyCache
from preflexor_training.tokenized import Masked, TokenizedPair, TokenizedReply

CHUNK_VALUES = 2**26
"""Most logits that are there at once; more are made, used and made again in the backward pass."""


class Tables(NamedTuple):
    """Log-probs at their places, 0 where nothing was scored."""

    prompt: mx.array  # (B, T), T = 0 unless the likelihood term covers the prompt
    chosen: mx.array  # (B, Lc)
    rejected: mx.array  # (B, Lr)


@dataclass(frozen=True, slots=True)
class Abilities:
    """How a model can be called."""

    shared_prompt: bool
    """Two replies can stand behind one prompt."""
    scored_head: bool
    """What its body makes and its LM head takes are its logits, so that the head need only see what counts."""


def score(model: Any, batch: Batch, *, scored_head: bool) -> Tables:
    """Log-probs of the tokens that count, float32.

    Args:
        model: mlx-lm's.
        batch: of `collate`.
        scored_head: see `Abilities`.
    """
    call: Callable[..., mx.array] = _body(model) if scored_head else model
    states = _states(model, call, batch)[batch.select]  # (N, D) or (N, V)
    logps = _chunked(model, states, batch.targets) if scored_head else _logps(states, batch.targets)
    found = mx.concatenate([logps, mx.zeros((1,))])[batch.places]
    count, width = batch.chosen_mask.shape
    before, other = batch.prompt_width, batch.rejected_mask.shape[1]
    prompt, chosen, rejected = mx.split(found, [count * before, count * (before + width)])
    return Tables(prompt.reshape(count, before), chosen.reshape(count, width), rejected.reshape(count, other))


def abilities(model: Any) -> Abilities:
    """Find out how a model can be called, by comparing with the plain way on made-up pairs of unequal lengths."""
    rows = _made_up(vocabulary(model))
    training = model.training
    model.eval()
    try:
        apart, together = collate(rows, shared=False), collate(rows, shared=True)
        plain = score(model, apart, scored_head=False)
        scored = _tries(model, apart, plain, scored_head=True)
        shared = _tries(model, together, plain, scored_head=scored)
    finally:
        model.train(training)
    return Abilities(shared, scored)


def _states(model: Any, call: Callable[..., mx.array], batch: Batch) -> mx.array:
    """What `call` makes of all tokens, (B x P + 2B x L, ·)."""
    if batch.prompts is None:
        made = call(batch.replies)
        return made.reshape(-1, made.shape[-1])
    prompts = [PromptCache(batch.pads) for _ in model.layers]
    first = call(batch.prompts, cache=prompts)
    second = call(batch.replies, cache=[ReplyCache(prompt) for prompt in prompts])
    return mx.concatenate([first.reshape(-1, first.shape[-1]), second.reshape(-1, second.shape[-1])])


def _body(model: Any) -> Callable[..., mx.array]:
    """What makes hidden states of ids."""
    name = ends(model).embedding.rpartition(".")[0]
    found: Callable[..., mx.array] = module_at(model, name)
    return found


def _head(model: Any) -> tuple[Any, Callable[[mx.array], mx.array]]:
    """What makes logits of hidden states: the module, and how it is called."""
    embedding, head = ends(model)
    table = module_at(model, embedding if head is None else head)
    return table, table.as_linear if head is None else table


def _chunked(model: Any, states: mx.array, targets: mx.array) -> mx.array:
    table, head = _head(model)
    size = max(1, CHUNK_VALUES // vocabulary(model))
    if len(states) <= size:
        return _logps(head(states), targets)
    weights = table.trainable_parameters()
    pieces = []
    for at in range(0, len(states), size):

        def piece(weights: Any, states: mx.array, wanted: mx.array = targets[at : at + size]) -> mx.array:
            table.update(weights)
            return _logps(head(states), wanted)

        pieces.append(mx.checkpoint(piece)(weights, states[at : at + size]))
    table.update(weights)
    return mx.concatenate(pieces)


def _logps(logits: mx.array, targets: mx.array) -> mx.array:
    """Log-probs of the targets, (N,) float32, from (N, V)."""
    logits = logits.astype(mx.float32)
    picked = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return picked - mx.logsumexp(logits, axis=-1)


def _tries(model: Any, batch: Batch, plain: Tables, *, scored_head: bool) -> bool:
    """Some architectures refuse our caches, each with an error of its own."""
    try:
        found = score(model, batch, scored_head=scored_head)
        mx.eval(found)
    except (ValueError, RuntimeError, TypeError, LookupError, AttributeError):
        return False
    close = 1e-3 if plain.chosen.dtype == mx.float32 else 0.1
    return all(
        a.shape == b.shape and bool(mx.allclose(a, b, atol=close, rtol=close).item())
        for a, b in zip(found[1:], plain[1:], strict=True)
    )


def _made_up(tokens: int) -> tuple[Masked, Masked]:
    def ids(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return (np.array(numbers) * 7919 % tokens).astype(np.int32)

    def pair(prompt: int) -> Masked:
        chosen, rejected = ids(5, 6, 7, 8), ids(9, 6, 5)
        replies = {"chosen": TokenizedReply(ids=chosen), "rejected": TokenizedReply(ids=rejected)}
        made = TokenizedPair(id="probe", round=0, prompt=ids(*range(1, prompt)), **replies)
        return Masked(pair=made, chosen=np.ones(4, dtype=np.bool_), rejected=np.ones(3, dtype=np.bool_))

    return pair(4), pair(7)
