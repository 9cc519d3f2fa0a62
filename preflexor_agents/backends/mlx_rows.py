"""Rows of the embeddings that differ from the table's: what new tags have learnt, at input and at output.

mlx-lm can adapt whole embeddings but not single rows. A row is stored as PEFT stores it, by its value.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.quantized import QuantizedEmbedding
from mlx.utils import tree_unflatten

from preflexor_agents.errors import ModelError


class TokenRows(Module):
    """An embedding, or an output head, with rows of its own for some tokens."""

    def __init__(self, base: Module, ids: Sequence[int], rows: mx.array) -> None:
        """Lay rows, (K, D), over those of `ids`."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.base = base
        self.rows = rows
        self._ids = mx.array(list(ids), dtype=mx.int32)
        self._slots = mx.full((_height(base),), -1, dtype=mx.int32)
        self._slots[self._ids] = mx.arange(len(ids), dtype=mx.int32)
        mx.eval(self._ids, self._slots)

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens whose rows these are."""
        return tuple(self._ids.tolist())  # type: ignore[arg-type]

    def __call__(self, x: mx.array) -> mx.array:
        """Of an embedding (…,) ids to (…, D); of a head (…, D) to logits (…, V)."""
        if not isinstance(self.base, Embedding | QuantizedEmbedding):
            return self._over(self.base(x), x)
        plain: mx.array = self.base(x)
        slots = self._slots[x]
        own = self.rows[mx.maximum(slots, 0)].astype(plain.dtype)
        return mx.where((slots >= 0)[..., None], own, plain)

    def as_linear(self, x: mx.array) -> mx.array:
        """Logits (…, V) of tied embeddings."""
        return self._over(self.base.as_linear(x), x)

    def _over(self, logits: mx.array, x: mx.array) -> mx.array:
        own = x @ self.rows.astype(x.dtype).T
        if "bias" in self.base:
            own = own + self.base.bias[self._ids]
        logits[..., self._ids] = own.astype(logits.dtype)
        return logits


class Ends(NamedTuple):
    """Where a model's embeddings are, by the names of their modules."""

    embedding: str
    head: str | None
    """None if the embeddings are the output head too."""


def ends(model: Module) -> Ends:
    """Find the embeddings. Raises ModelError for an architecture that hides them."""
    modules: list[tuple[str, Module]] = model.named_modules()  # type: ignore[no-untyped-call]
    tables = [name for name, module in modules if isinstance(module, Embedding | QuantizedEmbedding)]
    heads = [name for name, _ in modules if name.rpartition(".")[2] == "lm_head"]
    wanted = [name for name in tables if name.removesuffix(".base").rpartition(".")[2] in ("embed_tokens", "wte")]
    if len(wanted) != 1 or len(heads) > 1:
        kind = getattr(model, "model_type", type(model).__name__)
        raise ModelError(f"the embeddings of a {kind} model cannot be told apart; use a Llama, Qwen, Gemma or Mistral")
    return Ends(wanted[0].removesuffix(".base"), heads[0] if heads else None)


def module_at(model: Module, name: str) -> Any:
    """The module of a name as `model.layers.0.self_attn`."""
    found: Any = model
    for part in name.split("."):
        found = found[int(part)] if isinstance(found, list) else getattr(found, part)
    return found


def put(model: Module, modules: dict[str, Module]) -> None:
    """Put modules in the places of their names."""
    if modules:
        model.update_modules(tree_unflatten(list(modules.items())))


def tables(model: Module) -> Iterator[tuple[str, Any]]:
    """The embeddings, and the output head if it is one of its own."""
    for name in ends(model):
        if name is not None:
            yield name, module_at(model, name)


def vocabulary(model: Module) -> int:
    """Rows of the embeddings."""
    table = module_at(model, ends(model).embedding)
    return _height(table.base if isinstance(table, TokenRows) else table)


def grow(model: Module, tokens: int) -> None:
    """Give embeddings and head room for so many tokens; new rows are zero, and rows beyond stay."""
    for _, table in tables(model):
        missing = tokens - _height(table)
        if missing <= 0:
            continue
        for name in ("weight", "scales", "biases", "bias"):
            if name in table:
                old = table[name]
                table[name] = mx.concatenate([old, mx.zeros((missing, *old.shape[1:]), dtype=old.dtype)])
        mx.eval(table.parameters())
    if hasattr(model, "args") and getattr(model.args, "vocab_size", tokens) < tokens:
        model.args.vocab_size = tokens


def rows_of(table: Any, ids: Sequence[int] | slice) -> mx.array:
    """Rows of an embedding or a head as float32, (K, D); of quantised ones what they stand for."""
    picked = ids if isinstance(ids, slice) else mx.array(list(ids), dtype=mx.int32)
    weight: mx.array = table.weight[picked]
    if not hasattr(table, "scales"):
        return weight.astype(mx.float32)
    biases = table.biases[picked] if "biases" in table else None
    return mx.dequantize(
        weight, table.scales[picked], biases, group_size=table.group_size, bits=table.bits, mode=table.mode
    ).astype(mx.float32)


def set_rows(table: Any, ids: Sequence[int], rows: mx.array) -> None:
    """Write rows, (K, D), into an embedding or a head; a quantised one holds them rounded."""
    at = mx.array(list(ids), dtype=mx.int32)
    if not hasattr(table, "scales"):
        table.weight[at] = rows.astype(table.weight.dtype)
    else:
        made = mx.quantize(
            rows.astype(table.scales.dtype), group_size=table.group_size, bits=table.bits, mode=table.mode
        )
        for name, value in zip(("weight", "scales", "biases"), made, strict=False):
            table[name][at] = value
    mx.eval(table.parameters())


def _height(table: Module) -> int:
    return int(table.weight.shape[0])
