"""Which tokens ORPO's likelihood term covers."""

from typing import Literal

import numpy as np

from preflexor_training.tokenized import Mask, Masked, TokenizedReply

NllScope = Literal["none", "all", "completion", "unmasked"]
"""Tokens of ORPO's likelihood term: none, prompt and chosen reply (TRL), the chosen reply, or what its mask leaves.
Inserted pads are in none of them."""


def labels(reply: TokenizedReply) -> Mask:
    """Tokens of a reply that can be learnt."""
    return np.ones(len(reply.ids), dtype=np.bool_) if reply.labels is None else reply.labels


def nll_masks(row: Masked, scope: NllScope) -> tuple[Mask, Mask]:
    """Tokens of prompt and chosen reply that the likelihood term covers."""
    prompt, reply = row.pair.prompt, row.pair.chosen
    nothing = np.zeros(len(reply.ids), dtype=np.bool_)
    match scope:
        case "all":
            before = np.ones(len(prompt), dtype=np.bool_)
            before[:1] = False
            return before, labels(reply)
        case "completion":
            return np.zeros(0, dtype=np.bool_), labels(reply)
        case "unmasked":
            return np.zeros(0, dtype=np.bool_), row.chosen
        case "none":
            return np.zeros(0, dtype=np.bool_), nothing
