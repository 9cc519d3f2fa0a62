"""Which tokens of a reply are in the loss. The model attends to all of them: a mask only takes labels away.

What is drawn depends on seed, row, side and, if it is to change, the pass: so policy and reference, two backends and a
resumed run see the same mask.
"""

from hashlib import sha256
from typing import Literal

import numpy as np

from preflexor_training.damage import Damaged
from preflexor_training.recipe_parts import Mask as MaskSettings
from preflexor_training.tokenized import Mask, Masked, Section, TokenizedPair, TokenizedReply

Side = Literal["chosen", "rejected"]


def masked(pair: TokenizedPair, mask: MaskSettings, *, seed: int, epoch: int = 0) -> Masked:
    """The pair with both its masks; `epoch` counts the passes and matters only to masks that are drawn again.

    Raises:
        Damaged: a closing tag is missing where the mask needs it, or nothing is left.
    """
    return Masked(
        pair=pair,
        chosen=loss_mask(pair.chosen, mask, key=draw_key(pair.id, "chosen", mask, seed=seed, epoch=epoch)),
        rejected=loss_mask(pair.rejected, mask, key=draw_key(pair.id, "rejected", mask, seed=seed, epoch=epoch)),
    )


def draw_key(row: str, side: Side, mask: MaskSettings, *, seed: int, epoch: int) -> str:
    """What the draw of one reply's mask is seeded with."""
    return f"mask\0{seed}\0{row}\0{side}\0{epoch if mask.redraw else 0}"


def generator(key: str) -> np.random.Generator:
    """A source of chance that depends on nothing but the key."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(sha256(key.encode("utf-8", "replace")).digest()[:16])))


def loss_mask(reply: TokenizedReply, mask: MaskSettings, *, key: str) -> Mask:
    """The tokens in the loss, (L,) bool.

    Args:
        reply: as ids.
        mask: what is left out.
        key: seeds what is drawn.

    Raises:
        Damaged: as `masked`.
    """
    kept = np.ones(len(reply.ids), dtype=np.bool_) if reply.labels is None else reply.labels.copy()
    match mask.kind:
        case "answer_only":
            last = _last_section(reply, mask)
            kept[: last.close] = False
            kept[last.close : last.end] &= mask.keep_tag
        case "fraction":
            chance = generator(key)
            for section in reply.sections:
                if section.channel == "thinking" or mask.reflection:
                    kept[_drawn(section, mask, chance)] = False
        case "none" | "pauses":
            pass
    if not kept.any():
        raise Damaged("nothing_left", f"a mask of {mask.kind} leaves none of a reply's {len(kept)} tokens")
    return kept


def _last_section(reply: TokenizedReply, mask: MaskSettings) -> Section:
    """The section that the answer follows."""
    thinking = [section for section in reply.sections if section.channel == "thinking"]
    if not thinking:
        raise Damaged("unclosed", "a reply has no closing thinking tag, before which answer_only leaves all out")
    return reply.sections[-1] if mask.reflection else thinking[-1]


def _drawn(
    section: Section, mask: MaskSettings, chance: np.random.Generator
) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Positions that are left out: of the words, or of words and tags, without putting back (published)."""
    first, end = (section.body, section.close) if mask.keep_tag else (section.start, section.end)
    count = int((end - first) * mask.fraction)
    return first + chance.permutation(end - first)[:count]
