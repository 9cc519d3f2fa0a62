"""Micro-batches as tensors: both replies behind one copy of their prompt, or each behind its own.

Beside the token ids stands where the loss is: which hidden states predict a token that counts, and where in the
(B, L) tables of log-probs that token belongs. Nothing else reaches the LM head.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preflexor_training.scopes import NllScope as NllScope
from preflexor_training.scopes import nll_masks
from preflexor_training.tokenized import Mask, Masked, Reference

Tensors = dict[str, Tensor]
"""A micro-batch. T is tokens of a row, N tokens that count.

`input_ids`, `position_ids` (R, T); `part` (R, T): 0 prompt, 1 chosen, 2 rejected, -1 padding, or
`attention_mask` (R, T) if each reply has a row; `select` (N,) hidden states among R x T; `targets` (N,) the tokens they
predict; `slots` (N,) their places in the tables; `chosen_mask` (B, Lc); `rejected_mask` (B, Lr); `nll_mask` (B,
P + Lc); `chosen_reference`, `rejected_reference` as the masks, if given; `reply_starts` (B,), if each reply has a row.
"""


def collate(
    rows: Sequence[Masked],
    *,
    shared: bool,
    nll_scope: NllScope = "none",
    references: Sequence[Reference] | None = None,
) -> Tensors:
    """The pairs as tensors.

    Args:
        rows: pairs with their masks; no prompt is empty.
        shared: one row a pair, `prompt chosen rejected`; else a row for each reply, the chosen ones first.
        nll_scope: what of ORPO's likelihood term to score.
        references: of each row.
    """
    nll = [nll_masks(row, nll_scope) for row in rows]
    places = _Places(shared, rows, nll)
    tensors = {name: torch.from_numpy(value) for name, value in places.arrays().items()}
    tensors["chosen_mask"] = _table([row.chosen for row in rows], np.bool_)
    tensors["rejected_mask"] = _table([row.rejected for row in rows], np.bool_)
    if not shared:
        tensors["reply_starts"] = torch.tensor([len(row.pair.prompt) for row in rows])
    prompt_mask = _table([prompt for prompt, _ in nll], np.bool_)
    tensors["nll_mask"] = torch.cat([prompt_mask, _table([reply for _, reply in nll], np.bool_)], 1)
    if references is not None:
        tensors["chosen_reference"] = _under(
            [(row.chosen, of.chosen) for row, of in zip(rows, references, strict=True)]
        )
        tensors["rejected_reference"] = _under(
            [(row.rejected, of.rejected) for row, of in zip(rows, references, strict=True)]
        )
    return tensors


class _Places:
    """Where everything lies."""

    def __init__(self, shared: bool, rows: Sequence[Masked], nll: Sequence[tuple[Mask, Mask]]) -> None:
        self._shared, self._rows, self._nll = shared, rows, nll
        pairs = [row.pair for row in rows]
        if shared:
            self._texts = [np.concatenate([p.prompt, p.chosen.ids, p.rejected.ids]) for p in pairs]
        else:
            self._texts = [np.concatenate([p.prompt, p.chosen.ids]) for p in pairs]
            self._texts += [np.concatenate([p.prompt, p.rejected.ids]) for p in pairs]
        self._width = max(map(len, self._texts))
        self._prompt_width = max(len(prompt) for prompt, _ in nll)
        self._chosen_width = max(len(p.chosen.ids) for p in pairs)
        self._rejected_width = max(len(p.rejected.ids) for p in pairs)

    def arrays(self) -> dict[str, NDArray[np.int64]]:
        found = {"input_ids": self._filled(self._texts, 0)}
        positions, parts = [], []
        for row in self._rows:
            p, c, r = len(row.pair.prompt), len(row.pair.chosen.ids), len(row.pair.rejected.ids)
            positions.append(np.concatenate([np.arange(p + c), np.arange(p, p + r)]))
            parts.append(np.repeat([0, 1, 2], [p, c, r]))
        if self._shared:
            found |= {"position_ids": self._filled(positions, 0), "part": self._filled(parts, -1)}
        else:
            found["attention_mask"] = self._filled([np.ones(len(text), dtype=np.int64) for text in self._texts], 0)
            found["position_ids"] = self._filled([np.arange(len(text)) for text in self._texts], 0)
        scored = [piece for n in range(len(self._rows)) for piece in self._scored(n)]
        for at, name in enumerate(("select", "targets", "slots")):
            found[name] = np.concatenate([piece[at] for piece in scored])
        return found

    def _scored(self, n: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """Hidden states, tokens and places of what counts in a pair."""
        row, count = self._rows[n], len(self._rows)
        prompt, chosen, rejected = row.pair.prompt, row.pair.chosen.ids, row.pair.rejected.ids
        nll_prompt, nll_chosen = self._nll[n]
        here = n * self._width
        there, offset = (here, len(chosen)) if self._shared else ((count + n) * self._width, 0)
        tables = np.cumsum([0, count * self._prompt_width, count * self._chosen_width]).tolist()
        pieces = []
        for mask, ids, row_at, before, table, width in (
            (nll_prompt, prompt, here, 0, tables[0], self._prompt_width),
            (row.chosen | nll_chosen, chosen, here, 0, tables[1], self._chosen_width),
            (row.rejected, rejected, there, offset, tables[2], self._rejected_width),
        ):
            which = np.flatnonzero(mask)
            starts = 0 if ids is prompt else len(prompt)
            source: NDArray[np.int64] = np.where(which == 0, starts - 1, starts + before + which - 1)
            pieces.append((row_at + source, ids[which].astype(np.int64), table + n * width + which))
        return pieces

    def _filled(self, values: Sequence[NDArray[np.integer]], pad: int) -> NDArray[np.int64]:
        table = np.full((len(values), self._width), pad, dtype=np.int64)
        for n, value in enumerate(values):
            table[n, : len(value)] = value
        return table


def _table(values: Sequence[NDArray[np.generic]], kind: type[np.generic]) -> Tensor:
    table = np.zeros((len(values), max(map(len, values))), dtype=kind)
    for n, value in enumerate(values):
        table[n, : len(value)] = value
    return torch.from_numpy(table)


def _under(values: Sequence[tuple[Mask, NDArray[np.float32]]]) -> Tensor:
    """Values of the tokens in each mask, at their places."""
    spread = []
    for mask, numbers in values:
        row = np.zeros(len(mask), dtype=np.float32)
        row[mask] = numbers
        spread.append(row)
    return _table(spread, np.float32)
