"""The engine at its edges: full caches, failing decodes, crowds, leavers, states put back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import llama_cpp
import pytest

from preflexor_agents.backends.base import Completion, Request
from preflexor_agents.backends.context import SEQUENCES
from preflexor_agents.backends.llamacpp import LlamaCppBackend, nano_path
from preflexor_agents.backends.prefixes import KEPT_TOK, SHARE_TOK, Prefixes
from preflexor_agents.config import GREEDY, Sampling
from preflexor_agents.errors import BackendError
from preflexor_agents.prompts import Message

LONG = "Nacre is a layered composite of aragonite tablets and protein. " * 60


@pytest.fixture
async def nano() -> AsyncIterator[LlamaCppBackend]:
    backend = await LlamaCppBackend.open(nano_path(), threads=1)
    yield backend
    await backend.aclose()


def request(text: str, *, max_tok: int = 20, sampling: Sampling = GREEDY, seed: int = 0) -> Request:
    return Request(messages=(Message("user", text),), sampling=replace(sampling, max_tok=max_tok), seed=seed)


async def said(backend: LlamaCppBackend, asked: Request) -> Completion:
    async with aclosing(backend.generate(asked)) as items:
        reply = [item async for item in items][-1]
    assert isinstance(reply, Completion)
    return reply


def text(reply: Completion) -> tuple[str, str, str]:
    return reply.thinking, reply.reflection, reply.answer


def prefixes(backend: LlamaCppBackend) -> Prefixes:
    return backend._model.scheduler._prefixes


async def settled(backend: LlamaCppBackend) -> None:
    """Once the worker thread has done everything that was asked before."""
    await asyncio.get_running_loop().run_in_executor(backend._worker, backend._model.scheduler.drive)


async def test_a_thousand_calls_whose_reader_leaves_keep_nothing(nano: LlamaCppBackend):
    kept = await said(nano, request("How tough is nacre?"))
    for n in range(1000):
        leaving = nano.generate(request(f"{n % 7} What is silk?", max_tok=200))
        async with aclosing(leaving):
            if n % 3:
                await anext(leaving)
    await settled(nano)
    scheduler = nano._model.scheduler
    assert prefixes(nano).live_cells() == 0
    assert not scheduler._live and not scheduler._arrived and not nano._running
    assert text(await said(nano, request("How tough is nacre?"))) == text(kept)


async def test_calls_cancelled_in_their_prompt_keep_nothing(nano: LlamaCppBackend):
    for n in range(30):
        running = asyncio.create_task(said(nano, request(f"{n} {LONG}")))
        while not (scheduler := nano._model.scheduler)._live and not running.done():
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await settled(nano)
    assert prefixes(nano).live_cells() == 0 and not scheduler._live


async def test_more_requests_than_sequences_are_answered_as_they_are_alone(nano: LlamaCppBackend):
    asked = [request(f"{n} What is wood?", max_tok=8) for n in range(2 * SEQUENCES + 5)]
    together = await asyncio.gather(*(said(nano, one) for one in asked))
    assert [text(reply) for reply in together] == [text(await said(nano, one)) for one in asked]
    assert prefixes(nano).live_cells() == 0


async def test_a_prompt_as_long_as_the_context_gets_its_one_token(nano: LlamaCppBackend):
    words = "silk " * 20
    spare = nano.context_tok - await nano.count_tok((Message("user", words),))
    per_word = (await nano.count_tok((Message("user", words * 2),)) + spare - nano.context_tok) / 20
    full = words + "silk " * int((spare - 1) / per_word)
    while await nano.count_tok((Message("user", full + " a"),)) < nano.context_tok:
        full += " a"
    reply = await said(nano, request(full, max_tok=50))
    assert reply.usage.prompt + reply.usage.generated <= nano.context_tok
    assert reply.finish_reason == "length" and "context" in reply.notes[0]


async def test_replies_of_one_token_share_their_prompt(nano: LlamaCppBackend):
    one = [request(LONG[:900], max_tok=1, sampling=Sampling(temperature=1.0), seed=n) for n in range(5)]
    replies = await asyncio.gather(*(said(nano, asked) for asked in one))
    assert {reply.usage.generated for reply in replies} == {1}
    assert [reply.usage.cached for reply in replies] == [0] + [replies[0].usage.prompt] * 4
    assert prefixes(nano).live_cells() == 0


async def test_a_decode_that_fails_ends_those_it_was_for_and_no_later_ones(
    nano: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch
):
    before = text(await said(nano, request("How tough is nacre?")))
    with monkeypatch.context() as patch:
        patch.setattr(llama_cpp, "llama_decode", lambda *_: -3)
        with pytest.raises(BackendError, match=r"could not evaluate \d+ tokens \(code -3\)"):
            await said(nano, request("What is silk?"))
    assert prefixes(nano).live_cells() == 0
    assert text(await said(nano, request("How tough is nacre?"))) == before


async def test_a_failure_of_the_engine_itself_frees_every_place(nano: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(Prefixes, "add", lambda *_: 1 / 0)
        results = await asyncio.gather(*(said(nano, request(f"{n}?")) for n in range(4)), return_exceptions=True)
    assert [type(result) for result in results] == [ZeroDivisionError] * 4
    assert not nano._model.scheduler._live
    assert not any(slot.live for slot in prefixes(nano)._slots.values())
    assert (await said(nano, request("What is silk?"))).usage.generated > 0


async def test_closing_ends_what_is_written_and_what_waits(nano: LlamaCppBackend):
    running = [asyncio.create_task(said(nano, request(f"{n} silk?", max_tok=400))) for n in range(40)]
    while not any(live.drawn for live in nano._model.scheduler._live):
        await asyncio.sleep(0)
    await nano.aclose()
    results = await asyncio.gather(*running, return_exceptions=True)
    closed = [result for result in results if isinstance(result, BackendError)]
    assert len(closed) > 20 and all("closed while it was writing" in str(error) for error in closed)


async def test_a_state_is_not_put_behind_what_a_sequence_holds(nano: LlamaCppBackend):
    """A short relative of the prompt is in the cache, the longer one was saved from it."""
    long = request(LONG[:2200])
    before = text(await said(nano, long))
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(nano._worker, prefixes(nano).make_room, nano._model._context.cells)
    relative = await said(nano, request(LONG[:600] + " What is it?", max_tok=4))
    assert relative.usage.cached >= SHARE_TOK
    after = await said(nano, long)
    assert after.usage.cached > relative.usage.prompt
    assert text(after) == before
    prompt = nano._model.prompt(long).tokens
    assert any(slot.tokens[: len(prompt)] == prompt for slot in prefixes(nano)._slots.values())


async def test_a_saved_state_that_finds_no_room_costs_its_prompt_again(
    nano: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch
):
    long = request(LONG[:1500])
    before = text(await said(nano, long))
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(nano._worker, prefixes(nano).make_room, nano._model._context.cells)
    monkeypatch.setattr(nano._model._context, "restore", lambda *_: False)
    again = await said(nano, long)
    assert (again.usage.cached, text(again)) == (0, before)


async def test_a_reply_that_ends_interrupts_no_other(nano: LlamaCppBackend):
    await said(nano, request("What is silk?", max_tok=3))
    assert not nano._model.interrupt.is_set()
    leaving = nano.generate(request("What is silk?", max_tok=200))
    async with aclosing(leaving):
        await anext(leaving)
    assert nano._model.interrupt.is_set()


async def test_what_a_prompt_does_not_share_is_out_of_the_way_while_its_reply_is_written(nano: LlamaCppBackend):
    """A step looks at all cells in use, so idle prompts wait in memory; and come back when they are asked again."""
    first = request(LONG[:2200], max_tok=30)
    before = await said(nano, first)
    used: list[int] = []
    async with aclosing(nano.generate(request("How strong is silk? " * 20, max_tok=30))) as items:
        async for _ in items:
            used.append(prefixes(nano).used - prefixes(nano).live_cells())
    assert before.usage.prompt > 5 * KEPT_TOK and used[0] <= KEPT_TOK
    after = await said(nano, first)
    assert after.usage.cached == (before.usage.prompt - 8) // SHARE_TOK * SHARE_TOK
    assert text(after) == text(before)


async def test_side_by_side_replies_leave_one_state_of_their_prompt_behind(nano: LlamaCppBackend):
    """What they wrote is seldom asked for again."""
    asked = [request(LONG[:1200], sampling=Sampling(temperature=0.9), seed=n, max_tok=60) for n in range(6)]
    replies = await asyncio.gather(*(said(nano, one) for one in asked))
    await said(nano, request("How strong is silk? " * 20, max_tok=2))
    lengths = [len(tokens) for tokens in prefixes(nano)._saved]
    assert lengths == [replies[0].usage.prompt // SHARE_TOK * SHARE_TOK]


async def test_a_state_that_is_larger_than_all_the_memory_for_states_is_not_copied(
    nano: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch
):
    long = request(LONG[:1500])
    before = text(await said(nano, long))
    monkeypatch.setattr("preflexor_agents.backends.prefixes.SAVED_BYTES", 100_000)
    monkeypatch.setattr(nano._model._context, "state", lambda _: pytest.fail("copied"))
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(nano._worker, prefixes(nano).make_room, nano._model._context.cells)
    again = await said(nano, long)
    assert (again.usage.cached, text(again)) == (0, before)
