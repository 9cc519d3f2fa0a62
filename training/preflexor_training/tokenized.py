"""Pairs as token ids, masks, and the micro-batches that both backends train on in the same order. NumPy only."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Section:
    """Where a tagged section lies in a reply's ids."""

    channel: Literal["thinking", "reflection"]
    start: int
    """First token of the opening tag; the same as `body` where the template has written it before the reply."""
    body: int
    """First token after the opening tag."""
    close: int
    """First token of the closing tag."""
    end: int
    """First token after the closing tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedReply:
    """A reply as ids, its end-of-turn token included."""

    ids: Ids  # (L,)
    sections: tuple[Section, ...] = ()
    labels: Mask | None = None  # (L,)
    """Tokens that can be learnt at all; None is all of them. Inserted pads of the pause mode are no labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedPair:
    """A pair as ids; `prompt` ends where the reply begins (the template's generation prompt included)."""

    id: str
    round: int
    prompt: Ids  # (P,)
    chosen: TokenizedReply
    rejected: TokenizedReply


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """A pair with the tokens of each reply that are in the loss."""

    pair: TokenizedPair
    chosen: Mask  # (Lc,) True is in the loss
    rejected: Mask  # (Lr,)


class Reference(NamedTuple):
    """Log-probs of the tokens in a row's masks under the reference, in order."""

    chosen: NDArray[np.float32]  # (number of True in the mask,)
    rejected: NDArray[np.float32]


MicroBatch = tuple[Masked, ...]
"""Pairs whose losses are averaged in one forward."""
Step = tuple[MicroBatch, ...]
"""Micro-batches whose gradients are accumulated for one optimizer step."""
