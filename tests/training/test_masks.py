"""Which tokens are in the loss, on random layouts of tags."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflexor_training.damage import Damaged
from preflexor_training.masks import draw_key, loss_mask, masked
from preflexor_training.recipe_parts import Mask
from preflexor_training.tokenized import Section, TokenizedPair, TokenizedReply

KEY = "some row"


def reply(*parts: tuple[str, int], tag: int = 1, labels: Sequence[bool] | None = None) -> TokenizedReply:
    """Words and sections of so many tokens, in order; each tag has `tag` tokens."""
    at, sections = 0, []
    for what, length in parts:
        if what == "words":
            at += length
            continue
        sections.append(
            Section(
                "thinking" if what == "thinking" else "reflection",
                at,
                at + tag,
                at + tag + length,
                at + 2 * tag + length,
            )
        )
        at += length + 2 * tag
    return TokenizedReply(
        ids=np.arange(at, dtype=np.int32),
        sections=tuple(sections),
        labels=None if labels is None else np.array(labels, np.bool_),
    )


layouts = st.builds(
    lambda parts, end, tag: reply(*parts, ("words", end), tag=tag),
    st.lists(st.tuples(st.sampled_from(["words", "thinking", "reflect"]), st.integers(0, 12)), max_size=6),
    st.integers(1, 9),
    st.integers(1, 3),
)
settings_ = st.builds(
    lambda kind, **rest: Mask(kind=kind, **rest),
    st.sampled_from(["none", "answer_only", "fraction"]),
    keep_tag=st.booleans(),
    fraction=st.floats(0, 1),
    redraw=st.booleans(),
    reflection=st.booleans(),
)


def drawing() -> str:
    """The figure of the page: a token per column, its mark under it for each mask."""
    thought = ["<|thinking|>", "layers", "slide", "and", "cracks", "turn", "<|/thinking|>"]
    words = [*thought, "<|reflect|>", "sure", "?", "<|/reflect|>", "it", "bends", "<|end|>"]
    made = TokenizedReply(
        ids=np.arange(len(words), dtype=np.int32),
        sections=(Section("thinking", 0, 1, 6, 7), Section("reflection", 7, 8, 10, 11)),
    )
    shown: dict[str, Mask] = {
        "none": Mask(),
        "answer_only": Mask(kind="answer_only"),
        "  keep_tag = false": Mask(kind="answer_only", keep_tag=False),
        "  reflection = true": Mask(kind="answer_only", reflection=True),
        "fraction": Mask(kind="fraction"),
        "  fraction = 0.5": Mask(kind="fraction", fraction=0.5),
        "  reflection = true ": Mask(kind="fraction", reflection=True),
        "  keep_tag = false ": Mask(kind="fraction", keep_tag=False),
    }
    lines = [f"{'':22}{' '.join(words)}"]
    for name, mask in shown.items():
        kept = loss_mask(made, mask, key="figure")
        marks = [("#" if k else ".") * len(word) for word, k in zip(words, kept, strict=True)]
        lines.append(f"{name.rstrip() if name.startswith('  ') else name:22}{' '.join(marks)}")
    return "\n".join(lines)


def pair_of(chosen: TokenizedReply, rejected: TokenizedReply | None = None, *, name: str = "row") -> TokenizedPair:
    prompt = np.zeros(3, np.int32)
    return TokenizedPair(id=name, round=0, prompt=prompt, chosen=chosen, rejected=rejected or chosen)


@given(layouts, settings_)
def test_what_is_left_out_lies_within_sections_or_before_the_answer(made: TokenizedReply, mask: Mask) -> None:
    try:
        kept = loss_mask(made, mask, key=KEY)
    except Damaged as damage:
        assert mask.kind == "answer_only" and damage.kind == "unclosed"
        assert not any(s.channel == "thinking" for s in made.sections)
        return
    left_out = set(np.flatnonzero(~kept).tolist())
    if mask.kind == "none":
        assert not left_out
    elif mask.kind == "answer_only":
        thinking = [s for s in made.sections if s.channel == "thinking"]
        last = made.sections[-1] if mask.reflection else thinking[-1]
        assert left_out == set(range(last.close if mask.keep_tag else last.end))
    else:
        allowed, count = set(), 0
        for s in made.sections:
            if s.channel == "thinking" or mask.reflection:
                span = range(s.body, s.close) if mask.keep_tag else range(s.start, s.end)
                allowed |= set(span)
                count += int(len(span) * mask.fraction)
        assert left_out <= allowed and len(left_out) == count


@given(layouts, st.floats(0, 1), st.integers(0, 99))
def test_a_drawn_mask_is_the_same_whenever_it_is_drawn(made: TokenizedReply, fraction: float, seed: int) -> None:
    mask = Mask(kind="fraction", fraction=fraction)
    first, later = (masked(pair_of(made), mask, seed=seed, epoch=epoch) for epoch in (0, 5))
    assert (first.chosen == later.chosen).all() and (first.rejected == later.rejected).all()


def test_masks_differ_by_row_side_seed_and_if_asked_by_pass() -> None:
    made = reply(("thinking", 200), ("words", 5))
    once, again = (Mask(kind="fraction", fraction=0.5, redraw=redraw) for redraw in (False, True))
    here = masked(pair_of(made), once, seed=0)
    assert (here.chosen != here.rejected).any()
    assert (here.chosen != masked(pair_of(made, name="other"), once, seed=0).chosen).any()
    assert (here.chosen != masked(pair_of(made), once, seed=1).chosen).any()
    assert (masked(pair_of(made), again, seed=0).chosen != masked(pair_of(made), again, seed=0, epoch=1).chosen).any()
    assert draw_key("a", "chosen", once, seed=0, epoch=1) == draw_key("a", "chosen", once, seed=0, epoch=2)


def test_a_drawn_mask_leaves_out_every_token_equally_often() -> None:
    made = reply(("thinking", 10), ("words", 2))
    mask = Mask(kind="fraction", fraction=0.3)
    counts = sum((~loss_mask(made, mask, key=str(n))).astype(int) for n in range(2000))
    body = counts[1:11]
    assert body.sum() == 2000 * 3 and counts[0] == counts[11:].sum() == 0
    assert abs(body - 600).max() < 5 * np.sqrt(2000 * 0.3 * 0.7)


def test_the_last_closing_tag_counts() -> None:
    made = reply(("thinking", 3), ("words", 2), ("thinking", 4), ("words", 5))
    assert loss_mask(made, Mask(kind="answer_only"), key=KEY).tolist() == [False] * 12 + [True] * 6
    assert loss_mask(made, Mask(kind="answer_only", keep_tag=False), key=KEY).sum() == 5


def test_the_reflection_stays_in_the_loss_unless_it_is_left_out_too() -> None:
    made = reply(("thinking", 3), ("reflect", 4), ("words", 2))
    kept, without = (loss_mask(made, Mask(kind="answer_only", reflection=r), key=KEY) for r in (False, True))
    assert kept.tolist() == [False] * 4 + [True] * 9
    assert without.tolist() == [False] * 10 + [True] * 3


def test_pads_are_never_in_the_loss() -> None:
    labels = [True, False, False, True]
    made = reply(("words", 4), labels=labels)
    for kind in ("none", "pauses", "fraction"):
        assert loss_mask(made, Mask(kind=kind), key=KEY).tolist() == labels  # type: ignore[arg-type]
    assert made.labels is not None and made.labels.tolist() == labels


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_reply_without_closed_thinking_is_damaged_where_only_the_answer_counts(side: str) -> None:
    closed, bare = reply(("thinking", 3), ("words", 2)), reply(("words", 4))
    row = pair_of(bare, closed) if side == "chosen" else pair_of(closed, bare)
    with pytest.raises(Damaged) as caught:
        masked(row, Mask(kind="answer_only"), seed=0)
    assert caught.value.kind == "unclosed"
    assert masked(row, Mask(kind="fraction"), seed=0).pair is row


def test_a_mask_that_leaves_nothing_is_damage() -> None:
    everything = reply(("thinking", 3))
    for mask in (Mask(kind="answer_only", keep_tag=False), Mask(kind="fraction", keep_tag=False)):
        with pytest.raises(Damaged, match=r"nothing_left: a mask of .* leaves none of a reply's 5 tokens"):
            loss_mask(everything, mask, key=KEY)


def test_the_page_draws_the_masks_as_they_are() -> None:
    page = Path(__file__).parents[2] / "docs" / "training_core.md"
    assert drawing() in page.read_text(encoding="utf-8")
