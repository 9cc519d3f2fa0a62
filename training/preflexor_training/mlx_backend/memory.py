"""How much memory a step takes, and settings that fit a Mac, where what is too much swaps for hours.

An estimate that is meant to be too high rather than too low; the test beside it holds it against what MLX measures.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from preflexor_agents.errors import ConfigError

FREE_SHARE = 0.6
"""Part of the machine's memory that training may plan with. The rest is for the system, other programs, and what the
estimate leaves out; macOS lets a GPU have two thirds to three quarters."""
GB = 1 << 30
_CHUNK_BYTES = 3 * 4 * 2**26
"""Logits in float32, their log-softmax and its gradient, of one chunk of tokens."""


class Size(NamedTuple):
    """What of a model decides how much memory it takes."""

    parameters: int
    hidden: int
    inner: int
    """Width of the feed-forward layers."""
    layers: int
    vocabulary: int


class Plan(NamedTuple):
    """Settings of a recipe that decide how much memory a step takes, by their names there."""

    bits: int
    rank: int
    batch_pairs: int
    accumulation: int
    max_length_tok: int
    gradient_checkpointing: bool


PREFERRED = (
    Plan(16, 64, 4, 1, 2048, False),
    Plan(16, 64, 2, 2, 2048, False),
    Plan(16, 32, 1, 4, 2048, False),
    Plan(16, 32, 1, 4, 2048, True),
    Plan(16, 16, 1, 4, 1024, True),
    Plan(8, 16, 1, 4, 1024, True),
    Plan(4, 16, 1, 4, 1024, True),
    Plan(4, 8, 1, 4, 512, True),
)
"""From the most comfortable to the most frugal; a step sees four pairs in all of them."""


def size_of(config: Mapping[str, Any], *, parameters: int) -> Size:
    """The size that a model's configuration tells."""
    text = config.get("text_config")
    about = {**config, **(text if isinstance(text, dict) else {})}
    hidden = int(about.get("hidden_size") or about.get("n_embd") or 0)
    return Size(
        parameters=parameters,
        hidden=hidden,
        inner=int(about.get("intermediate_size") or 4 * hidden),
        layers=int(about.get("num_hidden_layers") or about.get("n_layer") or 0),
        vocabulary=int(about.get("vocab_size") or 0),
    )


def needed_bytes(size: Size, plan: Plan, *, number_bytes: int = 2, full: bool = False) -> int:
    """Memory of training at its peak.

    Args:
        size: of the model.
        plan: the settings; a pair is taken to be one prompt and two replies of `max_length_tok` tokens in all.
        number_bytes: of an activation, and of a weight that is not quantised.
        full: whether every weight is trained, in float32, instead of updates.
    """
    per_layer = 4 * 2 * size.hidden + 3 * (size.hidden + size.inner)  # inputs and outputs of the seven targets
    updates = 0 if full else size.layers * plan.rank * per_layer
    weight_bytes = 4.0 if full else number_bytes if plan.bits == 16 else plan.bits / 8 + 1 / 16
    trained = size.parameters if full else updates
    fixed = size.parameters * weight_bytes + trained * (12 if full else 16)  # gradients, and two moments
    tokens = plan.batch_pairs * plan.max_length_tok
    kept = 20 * size.hidden + 6 * size.inner  # what a layer keeps for its gradient, in numbers a token
    again = plan.gradient_checkpointing
    numbers = size.layers * 3 * size.hidden + 2 * kept if again else size.layers * kept
    logits = min(_CHUNK_BYTES, 3 * 4 * tokens * size.vocabulary)
    return int(fixed + tokens * numbers * number_bytes + logits)


def defaults(size: Size, memory_bytes: int) -> Plan:
    """The most comfortable settings that fit a machine.

    Raises:
        ConfigError: none of them does.
    """
    found = next(_fitting(size, memory_bytes), None)
    if found is None:
        least = needed_bytes(size, PREFERRED[-1])
        raise ConfigError(
            f"a model of {size.parameters / 1e9:.1f}B parameters takes {least / GB:.0f} GB in its most frugal form, of"
            f" {memory_bytes / GB:.0f} GB here {FREE_SHARE:.0%} can be used; take a smaller model"
        )
    return found


def check(size: Size, plan: Plan, memory_bytes: int, *, number_bytes: int, full: bool) -> None:
    """See that a recipe fits a machine.

    Raises:
        ConfigError: its step takes more than all of the memory; names settings that fit.
    """
    wanted = needed_bytes(size, plan, number_bytes=number_bytes, full=full)
    if wanted <= memory_bytes:
        return
    other = next(_fitting(size, memory_bytes), None)
    remedy = "take a smaller model"
    if other is not None:
        kind = 'adapter.kind = "lora", ' if full else ""
        remedy = (
            f"set {kind}adapter.bits = {other.bits}, adapter.rank = {other.rank}, batch_pairs = {other.batch_pairs},"
            f" data.max_length_tok = {other.max_length_tok}, step.gradient_checkpointing ="
            f" {str(other.gradient_checkpointing).lower()}"
        )
    raise ConfigError(f"a step takes about {wanted / GB:.0f} GB, there are {memory_bytes / GB:.0f} GB; {remedy}")


def machine_bytes() -> int:
    """Memory of this machine."""
    return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))


def _fitting(size: Size, memory_bytes: int) -> Iterator[Plan]:
    return (plan for plan in PREFERRED if needed_bytes(size, plan) <= FREE_SHARE * memory_bytes)
