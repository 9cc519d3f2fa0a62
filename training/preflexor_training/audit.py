"""Looks at the rows of a round before a step is taken on them: which are damaged and why, and what is in the loss."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from preflexor_agents.errors import InputError
from preflexor_training.damage import KINDS, Damaged, Kind
from preflexor_training.masks import masked
from preflexor_training.pairs import Pair
from preflexor_training.recipe_parts import Mask as MaskSettings
from preflexor_training.rendering import Renderer, tokenize
from preflexor_training.tokenized import Masked, TokenizedPair

MOST_EXAMPLES = 20
SLACK = 4
"""What normalising may shorten a text by."""


class Spread(NamedTuple):
    """Lengths in tokens."""

    least: int = 0
    median: float = 0.0
    most: int = 0


NOTHING = Spread()


class Drop(NamedTuple):
    """A row that is not trained on."""

    id: str
    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The numbers. Shares are of tokens over all kept rows; those of no rows are 0."""

    rows: int
    """Rows looked at."""
    kept: int
    dropped: Mapping[Kind, int] = field(default_factory=dict)
    examples: tuple[Drop, ...] = ()
    """The first of the dropped."""
    closed_chosen: float = 0.0
    """Share of kept rows whose chosen reply has closed thinking; likewise `closed_rejected`."""
    closed_rejected: float = 0.0
    masked_chosen: float = 0.0
    """Share of the chosen replies' tokens that are not in the loss; likewise `masked_rejected`."""
    masked_rejected: float = 0.0
    prompt_share: float = 0.0
    """Share of the prompts in all tokens of prompts, chosen and rejected replies; likewise the others."""
    thinking_share: float = 0.0
    """Of what stands between thinking and reflection tags, on both sides."""
    answer_share: float = 0.0
    """Of what follows the last closing tag, on both sides."""
    prompt_tok: Spread = NOTHING
    chosen_tok: Spread = NOTHING
    rejected_tok: Spread = NOTHING
    row_tok: Spread = NOTHING
    """Prompt and longer reply."""

    @property
    def damaged_share(self) -> float:
        """Share of the rows that were dropped."""
        return (self.rows - self.kept) / self.rows if self.rows else 0.0

    def check(self, most_damaged: float) -> None:
        """Refuse to train on what is left, if that is too little.

        Raises:
            InputError: no row is left, or a larger share than `most_damaged` was dropped; with the numbers.
        """
        if not self.rows:
            raise InputError("there are no rows to train on; name a file with preference rows")
        if self.kept and self.damaged_share <= most_damaged:
            return
        kinds = sorted(self.dropped, key=lambda kind: -self.dropped[kind])
        told = "; ".join(f"{self.dropped[kind]} {kind} ({KINDS[kind]})" for kind in kinds)
        first = f", the first {self.examples[0].id!r:.60}: {self.examples[0].reason!r:.200}" if self.examples else ""
        bound = f"more than data.damaged_share = {most_damaged:g}" if self.kept else "so that none is left"
        raise InputError(
            f"{self.rows - self.kept} of {self.rows} rows cannot be trained on, {bound}: {told}{first};"
            f" {_remedy(kinds[0])}"
        )


class Examined(NamedTuple):
    """Rows that can be trained on, and what was found."""

    rows: tuple[TokenizedPair, ...]
    audit: Audit


def examine(
    pairs: Iterable[Pair | Drop], renderer: Renderer, *, mask: MaskSettings, max_length_tok: int, seed: int
) -> Examined:
    """Tokenise the rows, leave out the damaged ones, and count.

    Args:
        pairs: the rows; those that could not even be read as drops, so that they count.
        renderer: of the run.
        mask: of the phase.
        max_length_tok: most tokens of a prompt and its longer reply; a longer row is dropped, never cut.
        seed: of the run.
    """
    kept: list[Masked] = []
    drops: list[Drop] = []
    seen: set[str] = set()
    for pair in pairs:
        if isinstance(pair, Drop):
            drops.append(pair)
            continue
        try:
            _check_id(pair, seen)
            _check_size(pair, max_length_tok * renderer.widest * SLACK)
            row = masked(tokenize(pair, renderer, mask=mask), mask, seed=seed)
            _check_length(row.pair, max_length_tok)
        except Damaged as error:
            drops.append(Drop(pair.id, error.kind, error.reason))
        else:
            kept.append(row)
    return Examined(tuple(row.pair for row in kept), summary(kept, drops))


def summary(kept: Sequence[Masked], drops: Sequence[Drop]) -> Audit:
    """The numbers of rows that were kept and dropped."""
    pairs = [row.pair for row in kept]
    prompts = [len(pair.prompt) for pair in pairs]
    chosen = [len(pair.chosen.ids) for pair in pairs]
    rejected = [len(pair.rejected.ids) for pair in pairs]
    replies = [reply for pair in pairs for reply in (pair.chosen, pair.rejected)]
    thinking = sum(section.close - section.body for reply in replies for section in reply.sections)
    answers = sum(len(reply.ids) - (reply.sections[-1].end if reply.sections else 0) for reply in replies)
    total = sum(prompts) + sum(chosen) + sum(rejected)
    return Audit(
        rows=len(kept) + len(drops),
        kept=len(kept),
        dropped=dict(Counter(drop.kind for drop in drops)),
        examples=tuple(drops[:MOST_EXAMPLES]),
        closed_chosen=_share(sum(_closed(pair, "chosen") for pair in pairs), len(pairs)),
        closed_rejected=_share(sum(_closed(pair, "rejected") for pair in pairs), len(pairs)),
        masked_chosen=1 - _share(sum(int(row.chosen.sum()) for row in kept), sum(chosen)) if kept else 0.0,
        masked_rejected=1 - _share(sum(int(row.rejected.sum()) for row in kept), sum(rejected)) if kept else 0.0,
        prompt_share=_share(sum(prompts), total),
        thinking_share=_share(thinking, total),
        answer_share=_share(answers, total),
        prompt_tok=_spread(prompts),
        chosen_tok=_spread(chosen),
        rejected_tok=_spread(rejected),
        row_tok=_spread([p + max(c, r) for p, c, r in zip(prompts, chosen, rejected, strict=True)]),
    )


def _check_id(pair: Pair, seen: set[str]) -> None:
    if pair.id in seen:
        raise Damaged("repeated", f"another row has the id {pair.id!r:.60}")
    seen.add(pair.id)


def _check_size(pair: Pair, most: int) -> None:
    """Text that cannot fit is not tokenised: that takes seconds for each megabyte."""
    prompt = sum(len(message.content) for message in pair.prompt)
    replies = (len(r.thinking or "") + len(r.reflection or "") + len(r.answer) for r in (pair.chosen, pair.rejected))
    if prompt + max(replies) > most:
        raise Damaged("too_long", f"the row has more than {most} characters, which no tokens of max_length_tok hold")


def _check_length(pair: TokenizedPair, most: int) -> None:
    length = len(pair.prompt) + max(len(pair.chosen.ids), len(pair.rejected.ids))
    if length > most:
        raise Damaged("too_long", f"the row has {length} tokens, max_length_tok is {most}")


def _closed(pair: TokenizedPair, side: str) -> bool:
    reply = pair.chosen if side == "chosen" else pair.rejected
    return any(section.channel == "thinking" for section in reply.sections)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _spread(lengths: Sequence[int]) -> Spread:
    return Spread(min(lengths), float(np.median(lengths)), max(lengths)) if lengths else Spread()


def _remedy(kind: Kind) -> str:
    match kind:
        case "too_long":
            return "raise data.max_length_tok, or use shorter rows"
        case "unclosed":
            return 'train on rows that think, or set mask.kind = "none"'
        case "nothing_left":
            return "leave less out of the loss"
        case "unanswered":
            return "give the model that wrote them more tokens"
        case "equal" | "no_question" | "unrenderable" | "unreadable" | "repeated":
            return "mend or remove them"
