"""Several replies at once with one model: each is the reply it has alone, and none waits for ever."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from preflexor_agents.backends import widths
from preflexor_agents.backends.base import Completion, Request
from preflexor_agents.backends.llamacpp import LlamaCppBackend, nano_path
from preflexor_agents.backends.lookup import Lookup
from preflexor_agents.backends.scheduler import MOST_LIVE
from preflexor_agents.backends.widths import CANDIDATES, Timing, Widths
from preflexor_agents.config import GREEDY, Sampling
from preflexor_agents.events import Passage
from preflexor_agents.prompts import Grounds, draft, integrate

LIBRARY = Path(__file__).parents[2] / "preflexor_agents" / "data" / "library"
NOTES = [path.read_text(encoding="utf-8") for path in sorted(LIBRARY.glob("*.md"))]
SCHEMA = {"type": "object", "properties": {"better": {"enum": ["A", "B"]}}, "required": ["better"]}


@pytest.fixture
async def nano() -> AsyncIterator[LlamaCppBackend]:
    backend = await LlamaCppBackend.open(nano_path(), threads=1)
    yield backend
    await backend.aclose()


def request(text: str, *, seed: int = 0, sampling: Sampling = GREEDY, max_tok: int = 40) -> Request:
    messages = draft(Grounds(question=text))
    return Request(messages=messages, sampling=replace(sampling, max_tok=max_tok), seed=seed)


async def said(backend: LlamaCppBackend, asked: Request) -> Completion:
    async with aclosing(backend.generate(asked)) as items:
        reply = [item async for item in items][-1]
    assert isinstance(reply, Completion)
    return reply


async def all_said(backend: LlamaCppBackend, asked: Sequence[Request]) -> list[Completion]:
    return await asyncio.gather(*(said(backend, one) for one in asked))


def texts(replies: Sequence[Completion]) -> list[tuple[str, str, str]]:
    return [(reply.thinking, reply.reflection, reply.answer) for reply in replies]


async def test_greedy_replies_written_side_by_side_are_those_written_alone(nano: LlamaCppBackend):
    asked = [request(f"How tough is {name}?") for name in ("nacre", "bone", "silk", "oak", "chitin", "wool", "cork")]
    alone = [await said(nano, one) for one in asked]
    together = await all_said(nano, asked)
    assert texts(together) == texts(alone)
    assert len(set(texts(alone))) == len(asked)


async def test_candidates_share_one_evaluated_prompt(nano: LlamaCppBackend):
    warm = Sampling(temperature=0.9)
    asked = [request(NOTES[0][:1500], seed=seed, sampling=warm) for seed in range(6)]
    replies = await all_said(nano, asked)
    prompt = replies[0].usage.prompt
    assert prompt > 300
    assert [reply.usage.cached for reply in replies] == [0] + [prompt] * 5
    assert len({reply.thinking for reply in replies}) > 3
    again = await all_said(nano, asked)
    assert texts(again) == texts(replies)
    one = await said(nano, asked[3])
    assert texts([one]) == [texts(replies)[3]]


async def test_prompts_with_one_beginning_evaluate_it_once(nano: LlamaCppBackend):
    beginning = NOTES[1][:1500]
    asked = [request(f"{beginning} Question {n}: what is it?") for n in range(4)]
    replies = await all_said(nano, asked)
    shared = replies[0].usage.prompt // 16 * 16 - 64
    assert replies[0].usage.cached == 0
    assert all(reply.usage.cached >= shared > 200 for reply in replies[1:])


async def test_a_prompt_that_left_the_cache_is_put_back_from_its_state(nano: LlamaCppBackend):
    prefixes = nano._model.scheduler._prefixes
    first = request(NOTES[2][:1200])
    before = await said(nano, first)
    evaluated = prefixes._cell
    room = nano._model._context.cells
    await asyncio.get_running_loop().run_in_executor(nano._worker, prefixes.make_room, room)
    assert prefixes.used == 0
    after = await said(nano, first)
    assert texts([after]) == texts([before])
    assert after.usage.cached == (before.usage.prompt - 8) // 16 * 16 > 200
    assert evaluated is prefixes._cell


async def test_guesses_change_nothing_and_some_are_right(nano: LlamaCppBackend):
    """A merge copies much of the answers it is given, so it is written several tokens a step."""
    note = (LIBRARY / "nacre.md").read_text(encoding="utf-8")
    passage = Passage(chunk_id=1, source="nacre.md", title="Nacre", start=0, end=len(note), text=note)
    answers = ["The fracture toughness of nacre is about 4.5 MPa m^0.5, many times that of the plain mineral."] * 2
    merge = integrate(Grounds(question="What is the toughness of nacre?", passages=(passage,)), answers=answers)
    copying = Request(messages=merge, sampling=replace(GREEDY, max_tok=120))
    made: list[Lookup] = []
    scheduler = nano._model.scheduler
    scheduler._widths = Widths(dict.fromkeys(CANDIDATES, 1.0))  # guessing pays on any machine
    scheduler._time_from = float("inf")
    learn = Lookup.learn

    def noted(self: Lookup, guessed: int, right: int) -> None:
        made.append(self)
        learn(self, guessed, right)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lookup, "learn", noted)
        guessed = await said(nano, copying)
        patch.setattr(Lookup, "draft", lambda *_: [])
        plain = await said(nano, copying)
    assert texts([guessed]) == texts([plain])
    assert guessed.usage.generated == plain.usage.generated
    assert made and made[-1].right > 3


async def test_mixed_requests_in_a_small_cache_are_all_answered_as_they_are_alone(nano: LlamaCppBackend):
    context = nano._model._context
    context.cells = 1600
    rng = random.Random(5)
    asked = [mixed(rng, n) for n in range(40)]
    gate = asyncio.Semaphore(8)
    most = 0

    async def one(asked_one: tuple[Request, bool]) -> tuple[str, str, str] | None:
        nonlocal most
        wanted, cancelled = asked_one
        async with gate, aclosing(nano.generate(wanted)) as items:
            async for item in items:
                most = max(most, nano._model.scheduler._prefixes.used)
                if isinstance(item, Completion):
                    return item.thinking, item.reflection, item.answer
                if cancelled:
                    return None
        raise AssertionError

    replies = await asyncio.gather(*map(one, asked))
    assert 0 < most <= context.cells
    for (wanted, cancelled), reply in zip(asked, replies, strict=True):
        if wanted.json_schema is not None:
            assert reply is not None and json.loads(reply[2])["better"] in ("A", "B")
        elif not cancelled and wanted.sampling.temperature == 0:
            assert reply == texts([await said(nano, wanted)])[0]


def mixed(rng: random.Random, n: int) -> tuple[Request, bool]:
    """A request of any length and kind, and whether its reader leaves after the first piece."""
    note = rng.choice(NOTES)
    made = request(
        note[: rng.choice((10, 200, 900, 2000))] + f" {n}?",
        seed=rng.randrange(1 << 20),
        sampling=Sampling(temperature=0.8) if rng.random() < 0.5 else GREEDY,
        max_tok=rng.choice((5, 20, 60)),
    )
    kind = rng.random()
    if kind < 0.2:
        return replace(made, json_schema=SCHEMA, sampling=replace(GREEDY, max_tok=60)), False
    return made, kind > 0.8


async def test_nobody_waits_for_ever_behind_long_replies(nano: LlamaCppBackend):
    """More requests than are written at once: they are begun in order of arrival."""
    begun: list[int] = []

    async def ask(n: int) -> None:
        async with aclosing(nano.generate(request(f"{n} silk", max_tok=30 if n % 2 else 3))) as items:
            await anext(items)
            begun.append(n)
            async for _ in items:
                pass

    await asyncio.gather(*(ask(n) for n in range(3 * MOST_LIVE)))
    assert sorted(begun) == list(range(3 * MOST_LIVE))
    assert all(abs(place - n) < 2 * MOST_LIVE for place, n in enumerate(begun))


async def test_a_job_that_fails_takes_no_other_with_it(nano: LlamaCppBackend):
    bad = replace(request("silk?"), json_schema={"type": "nonsense"})
    good = [request(f"How tough is nacre? {n}") for n in range(3)]
    results = await asyncio.gather(*(said(nano, one) for one in (good[0], bad, *good[1:])), return_exceptions=True)
    assert [isinstance(result, Completion) for result in results] == [True, False, True, True]
    assert "JSON schema" in str(results[1])


async def test_a_cancel_beside_others_leaves_their_replies_alone(nano: LlamaCppBackend):
    asked = [request(f"How tough is {name}?", max_tok=60) for name in ("nacre", "bone", "silk")]
    alone = [await said(nano, one) for one in asked]
    running = [asyncio.create_task(said(nano, one)) for one in asked]
    for _ in range(10):
        leaving = nano.generate(request("What is wood made of?", max_tok=200))
        await anext(leaving)
        await leaving.aclose()
    assert texts(await asyncio.gather(*running)) == texts(alone)


@pytest.mark.parametrize(("undisturbed", "timings"), [(True, 1), (False, 2)])
async def test_steps_are_timed_again_after_a_while_if_other_programs_disturbed_it(
    nano: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch, undisturbed: bool, timings: int
):
    kept: list[str] = []
    found = Timing(Widths(dict.fromkeys(CANDIDATES, 1.0)), undisturbed)
    made: list[int] = []
    monkeypatch.setattr(widths, "timed", lambda step, threads: made.append(threads) or found)
    monkeypatch.setattr(widths, "remember", lambda name, _: kept.append(name))
    scheduler = nano._model.scheduler
    scheduler._widths, scheduler._time_from = Widths(), 0.0
    pair = [request(f"{n} silk", max_tok=10) for n in range(2)]
    await all_said(nano, pair)
    await all_said(nano, pair)
    assert made == [nano._model._context.busy_threads] and len(kept) == undisturbed
    scheduler._time_from -= widths.AGAIN_S
    await all_said(nano, pair)
    assert len(made) == timings
