"""Rows and steps as JSON, for the processes that do not read the run themselves. A row is sent once."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from preflexor_training.tokenized import Ids, Mask, Masked, Section, Step, TokenizedPair, TokenizedReply


def packed(steps: Sequence[Step]) -> dict[str, Any]:
    """Steps as a list of rows and, for each micro-batch, their places in it."""
    numbers: dict[int, int] = {}
    rows: list[Masked] = []
    for row in (row for step in steps for micro in step for row in micro):
        if id(row) not in numbers:
            numbers[id(row)] = len(rows)
            rows.append(row)
    return {
        "rows": [_row(row) for row in rows],
        "steps": [[[numbers[id(row)] for row in micro] for micro in step] for step in steps],
    }


def unpacked(data: dict[str, Any]) -> tuple[Step, ...]:
    """The steps that `packed` was given."""
    rows = [_masked(row) for row in data["rows"]]
    return tuple(tuple(tuple(rows[n] for n in micro) for micro in step) for step in data["steps"])


def _row(row: Masked) -> dict[str, Any]:
    pair = row.pair
    return {
        "id": pair.id,
        "round": pair.round,
        "prompt": pair.prompt.tolist(),
        "chosen": _reply(pair.chosen, row.chosen),
        "rejected": _reply(pair.rejected, row.rejected),
    }


def _reply(reply: TokenizedReply, mask: Mask) -> dict[str, Any]:
    return {
        "ids": reply.ids.tolist(),
        "mask": _bits(mask),
        "labels": None if reply.labels is None else _bits(reply.labels),
        "sections": [[s.channel, s.start, s.body, s.close, s.end] for s in reply.sections],
    }


def _masked(data: dict[str, Any]) -> Masked:
    replies = {
        side: TokenizedReply(
            ids=_ids(data[side]["ids"]),
            sections=tuple(Section(*section) for section in data[side]["sections"]),
            labels=None if data[side]["labels"] is None else _mask(data[side]["labels"]),
        )
        for side in ("chosen", "rejected")
    }
    pair = TokenizedPair(id=data["id"], round=data["round"], prompt=_ids(data["prompt"]), **replies)
    return Masked(pair=pair, chosen=_mask(data["chosen"]["mask"]), rejected=_mask(data["rejected"]["mask"]))


def _ids(values: Iterable[int]) -> Ids:
    return np.array(list(values), dtype=np.int32)


def _bits(mask: Mask) -> str:
    return "".join("1" if bit else "0" for bit in mask)


def _mask(bits: str) -> Mask:
    return np.array([bit == "1" for bit in bits], dtype=np.bool_)
