"""The order of training: every row as often as it should be, the same plan for everyone, little to pad."""

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preflexor_training import batches
from preflexor_training.recipe_parts import Mask, Phase
from preflexor_training.tokenized import Masked, Section, Step, TokenizedPair, TokenizedReply

DRAWN_AGAIN = Mask(kind="fraction", fraction=0.5, redraw=True)


def row(name: str, length: int = 40) -> TokenizedPair:
    ids = np.arange(length, dtype=np.int32)
    reply = TokenizedReply(ids=ids, sections=(Section("thinking", 0, 1, length - 3, length - 2),))
    return TokenizedPair(id=name, round=0, prompt=np.zeros(5, np.int32), chosen=reply, rejected=reply)


def rows(count: int, *, start: int = 0) -> tuple[TokenizedPair, ...]:
    lengths = np.random.default_rng(count).integers(6, 200, count)
    return tuple(row(str(start + n), int(length)) for n, length in enumerate(lengths))


def phase(**values: Any) -> Phase:
    return Phase.model_validate({"name": "p", "loss": "orpo", "learning_rate": 1e-4, **values})


def plan(fresh: tuple[TokenizedPair, ...], old: tuple[TokenizedPair, ...] = (), **values: Any) -> tuple[Step, ...]:
    given_ = {"mask": Mask(), "round": 0, "seed": 0, "bucket_batches": 8} | values
    return batches.plan(fresh, old, **{"phase": phase(), **given_})


def flat(steps: tuple[Step, ...]) -> list[Masked]:
    return [pair for step in steps for micro in step for pair in micro]


def order(steps: tuple[Step, ...]) -> list[str]:
    return [pair.pair.id for pair in flat(steps)]


@given(
    count=st.integers(1, 60),
    passes=st.integers(1, 5),
    batch=st.integers(1, 5),
    accumulation=st.integers(1, 4),
    buckets=st.integers(1, 5),
    seed=st.integers(0, 50),
)
def test_every_row_is_used_as_often_as_every_other_in_steps_of_one_size(
    count: int, passes: int, batch: int, accumulation: int, buckets: int, seed: int
) -> None:
    how = phase(passes=passes, batch_pairs=batch, accumulation=accumulation)
    steps = plan(rows(count), phase=how, seed=seed, bucket_batches=buckets)
    assert len(steps) == batches.steps_of_round(count, how)
    assert all(len(step) == accumulation and {len(micro) for micro in step} == {batch} for step in steps)
    used = Counter(order(steps))
    filled = len(steps) * batch * accumulation - count * passes
    assert 0 <= filled < batch * accumulation
    assert sum(used.values()) == count * passes + filled
    assert len(used) == count and min(used.values()) >= passes
    assert max(used.values()) <= passes + -(-filled // count)


def test_the_published_phases_take_the_published_number_of_steps() -> None:
    assert batches.steps_of_round(50, phase(passes=6, batch_pairs=1, accumulation=2)) == 150
    assert batches.steps_of_round(50, phase(passes=2, batch_pairs=1, accumulation=2)) == 50
    assert batches.steps_of_phase(phase(passes=6, rounds=50), rows_per_round=50) == 7500


def test_the_same_seed_gives_the_same_plan_and_another_one_another() -> None:
    fresh = rows(30)
    assert order(plan(fresh)) == order(plan(fresh))
    others = [plan(fresh, seed=1), plan(fresh, round=1), plan(fresh, phase=phase(name="q"))]
    assert all(order(other) != order(plan(fresh)) for other in others)


def test_each_pass_has_an_order_of_its_own() -> None:
    made = order(plan(rows(40), phase=phase(passes=2), bucket_batches=1))
    assert sorted(made[:40]) == sorted(made[40:]) and made[:40] != made[40:]


def test_rows_of_like_length_share_a_micro_batch() -> None:
    def slots(steps: tuple[Step, ...]) -> int:
        return sum(max(map(batches.length, micro)) * len(micro) for step in steps for micro in step)

    fresh, how = rows(200), phase(batch_pairs=4, passes=1)
    tokens = sum(map(batches.length, flat(plan(fresh, phase=how))))
    sorted_, drawn = (slots(plan(fresh, phase=how, bucket_batches=n)) / tokens for n in (8, 1))
    assert sorted_ < 1.1 < 1.3 < drawn


def test_short_rows_do_not_come_first() -> None:
    """Over many rounds the mean length of the first micro-batch is that of all rows."""
    fresh, how = rows(64), phase(batch_pairs=4, passes=1)
    firsts = [batches.length(plan(fresh, phase=how, round=n)[0][0][0]) for n in range(150)]
    everything = [batches.length(pair) for pair in flat(plan(fresh, phase=how))]
    assert abs(np.mean(firsts) - np.mean(everything)) < 4 * np.std(everything) / np.sqrt(150)


def test_old_rows_are_mixed_in_by_their_share() -> None:
    fresh, old = rows(30), rows(100, start=1000)
    steps = plan(fresh, old, phase=phase(passes=1, replay_share=0.25, accumulation=1))
    replayed = [name for name in order(steps) if int(name) >= 1000]
    assert len(replayed) == 10 == len(set(replayed)) and len(order(steps)) == 40
    assert {int(n) for n in replayed} != {
        int(p.id) for p in batches.replayed(old, 30, phase=phase(replay_share=0.25), round=1, seed=0)
    }


def test_fewer_old_rows_than_wanted_are_all_used_once() -> None:
    steps = plan(rows(30), rows(3, start=1000), phase=phase(passes=1, replay_share=0.5, accumulation=1))
    assert sorted(n for n in order(steps) if int(n) >= 1000) == ["1000", "1001", "1002"]


def test_the_steps_of_a_phase_are_those_of_its_rounds() -> None:
    how = phase(passes=3, rounds=4, rows_per_round=20, replay_share=0.5, batch_pairs=3, accumulation=2)
    old: tuple[TokenizedPair, ...] = ()
    taken = 0
    for number in range(4):
        fresh = rows(20, start=100 * number)
        taken += len(plan(fresh, old, phase=how, round=number))
        old += fresh
    assert batches.steps_of_phase(how, rows_per_round=20) == taken


def test_masks_are_drawn_again_for_every_pass_and_round_if_asked() -> None:
    made = [row("a")]
    how = phase(passes=2, accumulation=1)
    seen = [
        pair.chosen.tobytes() for n in (0, 1) for pair in flat(plan(tuple(made), phase=how, round=n, mask=DRAWN_AGAIN))
    ]
    assert len(set(seen)) == 4
    once = DRAWN_AGAIN.model_copy(update={"redraw": False})
    seen = [pair.chosen.tobytes() for n in (0, 1) for pair in flat(plan(tuple(made), phase=how, round=n, mask=once))]
    assert len(set(seen)) == 1


def test_no_rows_make_no_steps() -> None:
    assert plan(()) == ()
    assert len(plan((row("a"),), phase=phase(passes=1, batch_pairs=4))) == 1


def test_held_out_rows_stay_held_out_and_are_the_share_asked_for() -> None:
    names = [f"row {n}" for n in range(5000)]
    held = {name for name in names if batches.is_held_out(name, 0.1)}
    assert 400 < len(held) < 600
    assert held <= {name for name in names if batches.is_held_out(name, 0.2)}
    assert not any(batches.is_held_out(name, 0.0) for name in names)
    assert batches.is_held_out("\ud800", 1.0)
