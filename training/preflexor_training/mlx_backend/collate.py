"""Micro-batches as arrays: the prompts once and both replies behind them, or each reply behind its own prompt.

Beside the token ids stands where the loss is: which hidden states predict a token that counts, and where in the
(B, L) tables of log-probs that token belongs. Nothing else reaches the LM head.
"""

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from preflexor_training.scopes import NllScope, nll_masks
from preflexor_training.tokenized import Masked, Reference


class Batch(NamedTuple):
    """A micro-batch of B pairs. N tokens count."""

    prompts: mx.array | None
    """(B, P) ids, padded at the left so that every prompt ends in the last column; None if each reply has its own."""
    pads: tuple[int, ...]
    """Of each prompt."""
    replies: mx.array
    """(2B, L) ids, padded at the right, chosen ones first; with their prompts if `prompts` is None."""
    select: mx.array
    """(N,) hidden states: those of the prompts, B x P, come before those of the replies, 2B x L."""
    targets: mx.array
    """(N,) the tokens that they predict."""
    places: mx.array
    """Of the tables, one after the other: the number of each place's token, N where none counts."""
    nll_mask: mx.array  # (B, T + Lc) prompt and chosen
    chosen_mask: mx.array  # (B, Lc)
    rejected_mask: mx.array  # (B, Lr)
    chosen_reference: mx.array | None = None  # (B, Lc)
    rejected_reference: mx.array | None = None  # (B, Lr)

    @property
    def prompt_width(self) -> int:
        """Columns of the prompts' table of log-probs; 0 unless the likelihood term covers them."""
        return int(self.nll_mask.shape[1] - self.chosen_mask.shape[1])


class _Scored(NamedTuple):
    """Tokens of one text that count."""

    sources: NDArray[np.int64]
    targets: NDArray[np.int32]
    places: NDArray[np.int64]


def collate(
    rows: Sequence[Masked],
    *,
    shared: bool,
    nll_scope: NllScope = "none",
    references: Sequence[Reference] | None = None,
) -> Batch:
    """The pairs as arrays.

    Args:
        rows: pairs with their masks; no prompt and no reply is empty.
        shared: whether each prompt stands there once.
        nll_scope: what of ORPO's likelihood term to score.
        references: of each row.
    """
    nll = [nll_masks(row, nll_scope) for row in rows]
    prompts = [row.pair.prompt for row in rows]
    chosen, rejected = [row.pair.chosen.ids for row in rows], [row.pair.rejected.ids for row in rows]
    before = max(map(len, prompts))
    texts = [*chosen, *rejected]
    if not shared:
        texts = [np.concatenate([prompt, text]) for prompt, text in zip([*prompts, *prompts], texts, strict=True)]
    width = max(map(len, texts))
    tables = [max(len(mask) for mask, _ in nll), max(map(len, chosen)), max(map(len, rejected))]
    starts = np.cumsum([0, *(len(rows) * table for table in tables)])
    scored = [
        _Scored(sources, ids[which].astype(np.int32), starts[table] + n * tables[table] + which)
        for n, row in enumerate(rows)
        for table, ids, which, sources in _sources(n, row, nll[n], before if shared else None, width, len(rows))
    ]
    select, targets, where = (np.concatenate([piece[k] for piece in scored]) for k in range(3))
    places = np.full(int(starts[-1]), len(targets), dtype=np.int32)
    places[where] = np.arange(len(targets))
    chosen_mask, rejected_mask = _table([row.chosen for row in rows]), _table([row.rejected for row in rows])
    pads = tuple(before - len(prompt) for prompt in prompts)
    given = references or ()
    return Batch(
        prompts=mx.array(np.stack([np.pad(p, (pad, 0)) for p, pad in zip(prompts, pads, strict=True)]))
        if shared
        else None,
        pads=pads if shared else (0,) * len(rows),
        replies=mx.array(_table(texts, width=width)),
        select=mx.array(select.astype(np.int32)),
        targets=mx.array(targets),
        places=mx.array(places),
        nll_mask=mx.array(np.concatenate([_table([m for m, _ in nll]), _table([m for _, m in nll])], axis=1)),
        chosen_mask=mx.array(chosen_mask),
        rejected_mask=mx.array(rejected_mask),
        chosen_reference=_spread(chosen_mask, [of.chosen for of in given]),
        rejected_reference=_spread(rejected_mask, [of.rejected for of in given]),
    )


def _sources(
    n: int, row: Masked, nll: tuple[NDArray[np.bool_], NDArray[np.bool_]], before: int | None, width: int, count: int
) -> list[tuple[int, NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]]:
    """For each table: its number, its ids, the tokens that count, and the hidden states that predict them.

    `before` is the prompts' common width, None if they are not shared.
    """
    prompt, made = row.pair.prompt, []
    scored = (
        (0, prompt, nll[0], n),
        (1, row.pair.chosen.ids, row.chosen | nll[1], n),
        (2, row.pair.rejected.ids, row.rejected, count + n),
    )
    for table, ids, mask, line in scored:
        which = np.flatnonzero(mask)
        if before is None:
            sources = line * width + which - 1 + (len(prompt) if table else 0)
        elif table == 0:
            sources = n * before + before - len(prompt) + which - 1
        else:
            last_of_prompt = n * before + before - 1
            sources = np.where(which == 0, last_of_prompt, count * before + line * width + which - 1)
        made.append((table, ids, which, sources))
    return made


def _table(values: Sequence[NDArray[np.generic]], *, width: int | None = None) -> NDArray[np.generic]:
    """The rows, padded at the right with zeros."""
    table = np.zeros((len(values), max(map(len, values)) if width is None else width), dtype=values[0].dtype)
    for n, value in enumerate(values):
        table[n, : len(value)] = value
    return table


def _spread(mask: NDArray[np.generic], numbers: Sequence[NDArray[np.float32]]) -> mx.array | None:
    """Numbers of the tokens in each row's mask at their places; None if there are none."""
    if not numbers:
        return None
    table = np.zeros(mask.shape, dtype=np.float32)
    table[mask.astype(np.bool_)] = np.concatenate(numbers)
    return mx.array(table)
