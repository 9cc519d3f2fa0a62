"""Trainable rows of the embeddings for new tokens, stored as PEFT stores them and computed without copying the table.

PEFT puts the rows into a copy of the whole table in every forward, and so takes a gradient of the whole table too; it
drops the output head's bias and hides it from whoever asks for it, which stops TRL with tied embeddings. The two
classes below take the place of PEFT's on the modules of one model; PEFT itself is left alone.
"""

import torch
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn
from torch.nn import Module, functional


class TokenRowsLayer(TrainableTokensLayer):
    """The rows of one adapter, over an embedding or an output head."""

    def forward_adapters(self, x: Tensor, active_adapters: list[str], *args: object, **kwargs: object) -> Tensor:
        """As PEFT's, from the rows alone: (…,) ids to (…, D), or (…, D) to logits (…, V)."""
        base = self.base_layer
        held = isinstance(base, nn.Embedding | nn.Linear) and getattr(base, "max_norm", None) is None
        if self.disable_adapters or self.merged or len(active_adapters) != 1 or not held:
            return super().forward_adapters(x, active_adapters, *args, **kwargs)
        rows = self.trainable_tokens_delta[active_adapters[0]]  # (K, D)
        ids = torch.tensor(self.token_indices[active_adapters[0]], device=x.device)  # (K,)
        if isinstance(base, nn.Embedding):
            return self._embedded(base, x, rows, ids)
        plain: Tensor = base(x)
        bias = base.bias[ids] if isinstance(base.bias, Tensor) else None
        own = functional.linear(x, rows.to(x.dtype), None if bias is None else bias.to(x.dtype))
        return plain.index_copy(-1, ids, own.to(plain.dtype))

    def _embedded(self, base: nn.Embedding, x: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
        """One-hot products instead of look-ups of the rows: their gradient is the same in every run, on any device."""
        plain: Tensor = base(x)
        hits = x[..., None] == ids  # (…, K)
        own = hits.to(rows.dtype) @ rows
        scale = self._get_embed_scale()  # type: ignore[no-untyped-call]
        own = own if scale is None else own * scale.to(own.dtype)
        return torch.where(hits.any(-1, keepdim=True), own.to(plain.dtype), plain)


class TokenRowsWrapper(TrainableTokensWrapper):
    """Where the layer hangs in the model."""

    @property
    def bias(self) -> Tensor | None:
        """The output head's bias, for those who compute logits from weight and bias themselves."""
        return getattr(self.token_adapter.base_layer, "bias", None)


def install(model: Module) -> None:
    """Let the token rows of this model be computed by the classes here. Idempotent."""
    for module in model.modules():
        if type(module) is TrainableTokensWrapper:
            module.__class__ = TokenRowsWrapper
            module.token_adapter.__class__ = TokenRowsLayer
