"""Prompts are evaluated in short pieces beside others and in long ones alone, and come to the same."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflexor_agents.backends import model_file
from preflexor_agents.backends.base import Completion, Request
from preflexor_agents.backends.cancel import CancelFlag
from preflexor_agents.backends.context import Context, Row
from preflexor_agents.backends.llamacpp import LlamaCppBackend, nano_path
from preflexor_agents.backends.pieces import LEAST_TOK, LONG_PIECE_TOK, PIECE_TOK, piece_end
from preflexor_agents.backends.prefixes import SHARE_TOK
from preflexor_agents.config import Sampling
from preflexor_agents.prompts import Message

LONG = "Nacre is a layered composite of aragonite tablets and protein. " * 60


@pytest.fixture
def context() -> Iterator[Context]:
    model = model_file.load(nano_path())
    made = model.context(context_tok=2048, threads=1)
    yield made
    made.close()
    model.close()


def pieces(length: int, *, done: int, most: int) -> list[int]:
    """Where each of them ends."""
    ends = []
    while done < length:
        ends.append(done := piece_end(done, length, most=most))
        assert len(ends) <= length
    return ends


@given(
    st.integers(1, 3000),
    st.integers(0, 100).map(lambda n: n * SHARE_TOK),
    st.sampled_from((PIECE_TOK, LONG_PIECE_TOK)),
)
def test_pieces_are_no_longer_than_asked_and_leave_no_crumbs(more: int, done: int, most: int):
    ends = pieces(done + more, done=done, most=most)
    sizes = [end - start for start, end in zip([done, *ends], ends, strict=False)]
    assert sum(sizes) == more and max(sizes) <= most
    assert min(sizes) >= min(more, LEAST_TOK)
    assert all(end % SHARE_TOK == 0 for end in ends[:-1])


@pytest.mark.parametrize("length", [7, 66, 257, 330, 1025])
def test_a_prompt_has_the_same_keys_and_values_however_it_was_cut_and_shared(context: Context, length: int):
    rng = random.Random(length)
    tokens = [rng.randrange(300, 1000) for _ in range(length)]
    states = []
    for most, begun in ((PIECE_TOK, 0), (LONG_PIECE_TOK, 0), (LONG_PIECE_TOK, length // 2 // SHARE_TOK * SHARE_TOK)):
        done = 0
        for end in [*([begun] if begun else []), *pieces(length, done=begun, most=most)]:
            for at in range(done, end, LONG_PIECE_TOK):
                piece = tokens[at : min(end, at + LONG_PIECE_TOK)]
                assert context.evaluate([Row(token, at + n, 0, False) for n, token in enumerate(piece)])
            done = end
        states.append(bytes(context.state(0)))
        context.cut(0, 0)
    assert states[0] == states[1] == states[2]


def test_an_evaluation_heeds_the_flag_it_is_told_and_no_other(context: Context):
    rows = [Row(300 + n, n, 0, False) for n in range(LONG_PIECE_TOK)]
    leaving, staying = CancelFlag(context.interrupt), CancelFlag(context.interrupt)
    leaving.set()
    assert context.interrupt.is_set()
    assert context.evaluate(rows, cancel=staying)
    context.cut(0, 0)
    assert not context.evaluate(rows, cancel=leaving)
    assert not context.evaluate(rows)
    context.interrupt.clear()
    assert context.evaluate(rows)


async def test_pieces_are_short_while_another_reply_is_written(monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    evaluate = Context.evaluate

    def noted(self: Context, rows: list[Row], *, cancel: CancelFlag | None = None) -> bool:
        sizes.append(len(rows))
        return evaluate(self, rows, cancel=cancel)

    monkeypatch.setattr(Context, "evaluate", noted)
    nano = await LlamaCppBackend.open(nano_path(), threads=1)
    try:
        nano._model.scheduler._time_from = float("inf")
        await said(nano, f"1 {LONG}", max_tok=1)
        assert max(sizes) == LONG_PIECE_TOK
        async with aclosing(nano.generate(request("What is silk?", max_tok=1500))) as written:
            await anext(written)
            sizes.clear()
            await said(nano, f"2 {LONG}", max_tok=1)
        assert len(sizes) > 20 and max(sizes) < PIECE_TOK + LEAST_TOK
    finally:
        await nano.aclose()


def request(text: str, *, max_tok: int) -> Request:
    sampling = Sampling(temperature=1.0, max_tok=max_tok)
    return Request(
        messages=(Message("user", text),), sampling=sampling, json_schema={"type": "string", "minLength": 3000}
    )


async def said(backend: LlamaCppBackend, text: str, *, max_tok: int) -> Completion:
    asked = Request(messages=(Message("user", text),), sampling=Sampling(max_tok=max_tok))
    async with asyncio.timeout(60), aclosing(backend.generate(asked)) as items:
        reply = [item async for item in items][-1]
    assert isinstance(reply, Completion)
    return reply
