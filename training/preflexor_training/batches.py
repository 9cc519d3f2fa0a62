"""The order of training: which pairs are in which step, decided before the first one and the same for every backend.

A plan is a pure function of rows, phase and seed, so that a resumed run, another backend and any number of processes
take the same steps.
"""

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import TypeVar

from preflexor_training.masks import generator, masked
from preflexor_training.recipe_parts import Mask as MaskSettings
from preflexor_training.recipe_parts import Phase
from preflexor_training.tokenized import Masked, MicroBatch, Step, TokenizedPair

T = TypeVar("T", bound=Hashable)


def plan(
    fresh: Sequence[TokenizedPair],
    old: Sequence[TokenizedPair],
    *,
    phase: Phase,
    mask: MaskSettings,
    round: int,
    seed: int,
    bucket_batches: int,
) -> tuple[Step, ...]:
    """The steps of one round.

    Every row stands `phase.passes` times in them, plus the few at the start of the order that fill the last step. Rows
    of like length share a micro-batch: of `bucket_batches` micro-batches at a time, drawn at random, the rows are
    sorted by length and the micro-batches shuffled.

    Args:
        fresh: rows of the round.
        old: rows of earlier rounds, of which the phase's `replay_share` is drawn.
        phase: passes, batch and accumulation.
        mask: of the phase.
        round: of the phase, from 0.
        seed: of the run.
        bucket_batches: micro-batches that are sorted together; 1 sorts nothing.

    Raises:
        Damaged: a mask leaves nothing of a row; look with `audit` first.
    """
    rows = [*fresh, *replayed(old, len(fresh), phase=phase, round=round, seed=seed)]
    if not rows:
        return ()
    key = f"order\0{seed}\0{phase.name}\0{round}"
    order = [(n, p) for p in range(phase.passes) for n in generator(f"{key}\0{p}").permutation(len(rows))]
    length = micro_batches(len(rows), phase) * phase.batch_pairs
    order += [order[n % len(order)] for n in range(length - len(order))]
    made: dict[tuple[int, int], Masked] = {}

    def row(number: int, passed: int) -> Masked:
        epoch = round * phase.passes + passed if mask.redraw else 0
        if (number, epoch) not in made:
            made[number, epoch] = masked(rows[number], mask, seed=seed, epoch=epoch)
        return made[number, epoch]

    batches = _bucketed([row(int(n), p) for n, p in order], phase.batch_pairs, bucket_batches, key=key)
    return tuple(_groups(batches, phase.accumulation))


def replayed(
    old: Sequence[TokenizedPair], fresh: int, *, phase: Phase, round: int, seed: int
) -> tuple[TokenizedPair, ...]:
    """The rows of earlier rounds that are mixed in, so that they are `replay_share` of all; fewer if there are not."""
    count = min(len(old), _replay_count(fresh, phase))
    chosen = generator(f"replay\0{seed}\0{phase.name}\0{round}").permutation(len(old))[:count]
    return tuple(old[int(n)] for n in sorted(chosen))


def micro_batches(rows: int, phase: Phase) -> int:
    """Micro-batches of a round of so many rows; a whole number of steps."""
    return steps_of_round(rows, phase) * phase.accumulation


def steps_of_round(rows: int, phase: Phase) -> int:
    """Optimizer steps of a round of so many rows, replayed ones among them."""
    return math.ceil(rows * phase.passes / (phase.batch_pairs * phase.accumulation))


def steps_of_phase(phase: Phase, *, rows_per_round: int) -> int:
    """Optimizer steps of all rounds, if every round yields that many fresh rows; what a falling rate is measured by."""
    first = steps_of_round(rows_per_round, phase)
    total, before = first, rows_per_round
    for _ in range(1, phase.rounds):
        total += steps_of_round(rows_per_round + min(before, _replay_count(rows_per_round, phase)), phase)
        before += rows_per_round
    return total


def is_held_out(row: str, share: float) -> bool:
    """Whether the row of this id is kept for evaluation: by its hash alone, so that it stays so in every round."""
    return int.from_bytes(sha256(f"held out\0{row}".encode("utf-8", "replace")).digest()[:8]) < share * 2**64


def _replay_count(fresh: int, phase: Phase) -> int:
    return round_half_up(fresh * phase.replay_share / (1 - phase.replay_share))


def round_half_up(value: float) -> int:
    """The nearest whole number; Python's own `round` goes to the even one."""
    return math.floor(value + 0.5)


def _bucketed(rows: Sequence[Masked], batch: int, buckets: int, *, key: str) -> Iterator[MicroBatch]:
    for number, start in enumerate(range(0, len(rows), batch * buckets)):
        together = list(rows[start : start + batch * buckets])
        if buckets > 1:
            together.sort(key=length)
        made = [tuple(together[n : n + batch]) for n in range(0, len(together), batch)]
        chance = generator(f"{key}\0bucket\0{number}")
        yield from (made[n] for n in (chance.permutation(len(made)) if buckets > 1 else range(len(made))))


def length(row: Masked) -> int:
    """Tokens of the longer of its two sequences."""
    return len(row.pair.prompt) + max(len(row.pair.chosen.ids), len(row.pair.rejected.ids))


def _groups(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    held: list[T] = []
    for item in items:
        held.append(item)
        if len(held) == size:
            yield tuple(held)
            held = []
