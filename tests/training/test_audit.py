"""The look at a round's rows before training: what is damaged is dropped, counted and, if it is too much, refused."""

import pytest

pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("gguf", reason="the tokenizers of the tests need the quantize extra")
from preflexor_agents.errors import InputError
from preflexor_agents.prompts import Message
from preflexor_training import audit, rendering
from preflexor_training.audit import Drop, Examined
from preflexor_training.pairs import Pair, Reply
from preflexor_training.recipe_parts import Mask, Tags
from preflexor_training.rendering import Renderer
from tests.quantize import folders

GOOD = Reply(thinking="one two", answer="three")
ANSWER = Mask(kind="answer_only")


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return rendering.renderer(folders.own_tokenizer(), Tags())


def row(name: str, chosen: Reply = GOOD, rejected: Reply | None = None) -> Pair:
    other = rejected or Reply(thinking="no", answer="nothing")
    return Pair(id=name, prompt=(Message("user", "the shell?"),), chosen=chosen, rejected=other)


def examined(renderer: Renderer, *rows: Pair | Drop, mask: Mask = ANSWER, most: int = 200) -> Examined:
    return audit.examine(rows, renderer, mask=mask, max_length_tok=most, seed=0)


def test_every_kind_of_damage_is_dropped_and_counted(renderer: Renderer) -> None:
    found = examined(
        renderer,
        row("good"),
        row("no thinking", Reply(answer="x")),
        row("cut off", Reply(thinking="x" * 40, answer="")),
        row("long", Reply(thinking="toughness " * 200, answer="x")),
        row("same", GOOD, GOOD),
        row("good"),
        Pair(id="mute", prompt=(), chosen=GOOD, rejected=Reply(answer="x")),
        Drop("row 9", "unreadable", "row 9 is no JSON; mend or remove it"),
    )
    assert [pair.id for pair in found.rows] == ["good"]
    assert (found.audit.rows, found.audit.kept) == (8, 1)
    assert found.audit.dropped == {
        "unclosed": 1, "unanswered": 1, "too_long": 1, "equal": 1, "repeated": 1, "no_question": 1, "unreadable": 1,
    }  # fmt: skip
    assert [drop.id for drop in found.audit.examples][:2] == ["no thinking", "cut off"]
    assert found.audit.examples[2].reason.endswith("max_length_tok is 200")


def test_a_row_that_is_too_long_is_never_cut(renderer: Renderer) -> None:
    whole = examined(renderer, row("a")).audit.row_tok.most
    assert examined(renderer, row("a"), most=whole).audit.kept == 1
    assert examined(renderer, row("a"), most=whole - 1).audit.dropped == {"too_long": 1}


def test_a_row_of_megabytes_is_not_tokenised(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    def tokenize(*_: object, **__: object) -> None:
        raise AssertionError("tokenised")

    huge = row("a", Reply(thinking="the shell " * 1_000_000, answer="x"))
    monkeypatch.setattr(audit, "tokenize", tokenize)
    found = examined(renderer, huge)
    assert found.audit.dropped == {"too_long": 1}
    assert "characters, which no tokens of max_length_tok hold" in found.audit.examples[0].reason


def test_shares_and_lengths_are_counted(renderer: Renderer) -> None:
    found = examined(renderer, row("a"), row("b", rejected=Reply(thinking="x", answer="y")))
    numbers, pairs = found.audit, found.rows
    chosen = sum(len(pair.chosen.ids) for pair in pairs)
    prompts = sum(len(pair.prompt) for pair in pairs)
    rejected = sum(len(pair.rejected.ids) for pair in pairs)
    section = pairs[0].chosen.sections[0]
    assert numbers.masked_chosen == pytest.approx(2 * section.close / chosen)
    assert numbers.prompt_share == pytest.approx(prompts / (prompts + chosen + rejected))
    tags = 4 * 2 / (prompts + chosen + rejected)
    assert numbers.prompt_share + numbers.thinking_share + numbers.answer_share + tags == pytest.approx(1.0)
    assert (numbers.closed_chosen, numbers.closed_rejected) == (1.0, 1.0)
    lengths = sorted(len(pair.rejected.ids) for pair in pairs)
    assert numbers.rejected_tok == (lengths[0], sum(lengths) / 2, lengths[1])


def test_replies_without_thinking_are_told_where_the_mask_takes_them(renderer: Renderer) -> None:
    found = examined(renderer, row("a", rejected=Reply(answer="no")), mask=Mask())
    assert (found.audit.closed_chosen, found.audit.closed_rejected) == (1.0, 0.0)
    assert (found.audit.masked_chosen, found.audit.masked_rejected) == (0.0, 0.0)


def test_too_much_damage_is_refused_with_the_numbers_and_the_remedy(renderer: Renderer) -> None:
    rows = [row(str(n)) for n in range(6)] + [row(f"bad {n}", Reply(answer="x")) for n in range(4)]
    numbers = examined(renderer, *rows).audit
    numbers.check(0.4)
    with pytest.raises(InputError) as caught:
        numbers.check(0.39)
    assert str(caught.value) == (
        "4 of 10 rows cannot be trained on, more than data.damaged_share = 0.39: 4 unclosed (no closing thinking tag"
        " where the mask needs one), the first 'bad 0': 'a reply has no closing thinking tag, before which answer_only"
        ' leaves all out\'; train on rows that think, or set mask.kind = "none"'
    )
    assert caught.value.exit_code == 2


def test_rows_of_which_none_is_left_are_refused_at_any_share(renderer: Renderer) -> None:
    with pytest.raises(InputError, match="1 of 1 rows cannot be trained on, so that none is left: 1 unclosed"):
        examined(renderer, row("a", Reply(answer="x"))).audit.check(1.0)
    with pytest.raises(InputError, match="there are no rows to train on"):
        examined(renderer).audit.check(1.0)


def test_hostile_ids_and_texts_stay_on_one_line_of_the_message(renderer: Renderer) -> None:
    bad = row("a\nb\x1b[2J", Reply(answer="x"))
    with pytest.raises(InputError) as caught:
        examined(renderer, bad).audit.check(0.0)
    assert len(str(caught.value).splitlines()) == 1 and "\x1b" not in str(caught.value)
