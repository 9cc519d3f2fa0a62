"""Layers that compute their activations again in the backward pass instead of keeping them.

MLX runs the Python of such a layer twice, so that what is drawn in it has to be drawn from the same state again:
otherwise the gradient is that of another dropout than the loss's.
"""

from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from preflexor_training.mlx_backend.sharing import PromptCache, ReplyCache
from preflexor_training.mlx_backend.trees import random_state


def checkpoint_layers(model: Any) -> None:
    """Let every layer of this model keep its inputs only. Other models of the same class stay as they are."""
    made: dict[type[Module], type[Module]] = {}
    for layer in model.layers:
        kind = type(layer)
        if kind not in made:
            made[kind] = type(kind.__name__, (kind,), {"__call__": _call(kind)})
        layer.__class__ = made[kind]


def _call(kind: Any) -> Any:
    plain = kind.__call__

    def call(self: Any, x: mx.array, mask: Any = None, cache: Any = None, **rest: Any) -> Any:
        if not self.training or not isinstance(cache, PromptCache | ReplyCache | None):
            return plain(self, x, mask, cache, **rest)
        drawn_from = random_state()
        before = [cache.keys, cache.values] if isinstance(cache, ReplyCache) else []

        def run(weights: Any, x: mx.array, *before: mx.array) -> list[mx.array]:
            mx.random.seed(drawn_from)
            self.update(weights)
            if isinstance(cache, ReplyCache):
                cache.keys, cache.values = before
            out = plain(self, x, mask, cache, **rest)
            return [out, *cache.kept()] if isinstance(cache, PromptCache) else [out]

        weights = self.trainable_parameters()
        out, *kept = mx.checkpoint(run)(weights, x, *before)
        self.update(weights)
        if isinstance(cache, PromptCache):
            cache.keys, cache.values = kept
        elif isinstance(cache, ReplyCache):
            cache.keys, cache.values = before
        return out

    return call
