"""Calls of a forge run: paid once, within the budget, again where that may help, and every failure by its kind."""

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preflexor_agents.backends.base import Completion, Request
from preflexor_agents.backends.scripted import Gate, Reply, ScriptedBackend
from preflexor_agents.config import Sampling
from preflexor_agents.errors import BackendError, DiskError, InputError
from preflexor_agents.events import Usage
from preflexor_agents.json_lines import Lines, read_lines
from preflexor_agents.prompts import Message
from preflexor_training.forge.cache import CallCache, Paid, content_key
from preflexor_training.forge.calls import Asked, BackendGone, CallFailed, Calls, Model, Patience
from preflexor_training.forge.limits import BudgetSpent, Purse, Slots
from preflexor_training.forge.steps import Call, Who

AT_ONCE = Patience(backoff_s=0.0)
SCHEMA = {"type": "object"}


def request(words: str = "Why?", *, seed: int = 1, schema: dict[str, str] | None = None, max_tok: int = 50) -> Request:
    return Request(
        messages=(Message("user", words),), sampling=Sampling(max_tok=max_tok), seed=seed, json_schema=schema
    )


def call(asked: Request, *, who: Who = "teacher", attempt: int = 0, may_be_empty: bool = False) -> Call:
    return Call(step="s", who=who, request=asked, attempt=attempt, may_be_empty=may_be_empty)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CallCache]:
    found = CallCache(tmp_path)
    yield found
    found.close()


def calls_of(
    backend: ScriptedBackend, cache: CallCache, *, tok: int = 10_000, patience: Patience = AT_ONCE, slots: int = 4
) -> Calls:
    model = Model(backend=backend)
    return Calls(
        {"teacher": model, "student": model, "judge": model},
        cache=cache,
        slots=slots,
        purse=Purse(tok),
        patience=patience,
    )


def by_seed(replies: Callable[[int], Reply]) -> ScriptedBackend:
    return ScriptedBackend(lambda asked: replies(asked.seed))


async def test_a_call_is_paid_for_once_and_then_comes_from_the_cache(cache: CallCache, tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda _: "<|thinking|>a b<|/thinking|>Because.")
    asked = Asked()
    calls = calls_of(backend, cache)
    first = await calls.asker(asked, row=0, place=0)(call(request()))
    cache.close()
    again = CallCache(tmp_path)
    second = await calls_of(backend, again).asker(asked, row=0, place=0)(call(request()))
    again.close()
    assert first == second and first.thinking == "a b" and len(backend.requests) == 1
    assert asked.records[0] == asked.records[1] and asked.records[0][1].tokens_generated == first.usage.generated


async def test_the_same_call_twice_at_once_is_paid_for_once(cache: CallCache) -> None:
    gate = Gate()
    backend = ScriptedBackend(lambda _: "Because.", gates={0: gate})
    ask = calls_of(backend, cache).asker(Asked(), row=0, place=0)
    async with asyncio.TaskGroup() as group:
        replies = [group.create_task(ask(call(request()))) for _ in range(3)]
        await gate.reached.wait()
        gate.open.set()
    assert {task.result().answer for task in replies} == {"Because."} and len(backend.requests) == 1


def test_whatever_decides_a_reply_is_in_the_key() -> None:
    keys = {
        content_key("nano", "", request(), attempt=0),
        content_key("nano", "a" * 64, request(), attempt=0),
        content_key("other", "", request(), attempt=0),
        content_key("nano", "", request("Who?"), attempt=0),
        content_key("nano", "", request(seed=2), attempt=0),
        content_key("nano", "", request(max_tok=51), attempt=0),
        content_key("nano", "", request(schema={"type": "object"}), attempt=0),
        content_key("nano", "", request(), attempt=1),
    }
    assert len(keys) == 8 and content_key("nano", "", request(), attempt=0) in keys


@pytest.mark.parametrize(
    ("useless", "kind", "schema"),
    [
        ("", "empty", None),
        ("  \n", "empty", None),
        ("{not json", "malformed", SCHEMA),
        ("[1]", "malformed", SCHEMA),
        ("I'm sorry, but I cannot help with that.", "refusal", None),
        ("As an AI language model, I have no view.", "refusal", None),
    ],
)
async def test_a_useless_reply_is_counted_and_asked_for_with_another_seed(
    cache: CallCache, useless: str, kind: str, schema: dict[str, str] | None
) -> None:
    backend = by_seed(lambda seed: useless if seed == 1 else Completion(answer='{"a": 1}'))
    calls, asked = calls_of(backend, cache), Asked()
    reply = await calls.asker(asked, row=0, place=0)(call(request(schema=schema)))
    assert reply.answer == '{"a": 1}' and calls.spending.failures == {kind: 1}
    assert len({r.seed for r in backend.requests}) == 2
    assert asked.records[0][1].tries == 2 and asked.records[0][1].seed == backend.requests[1].seed


@pytest.mark.parametrize(("useless", "kind"), [("", "empty"), ("I can’t answer.", "refusal")])
async def test_a_call_without_a_useful_reply_fails_by_its_kind(cache: CallCache, useless: str, kind: str) -> None:
    backend = ScriptedBackend(lambda _: useless)
    calls, asked = calls_of(backend, cache), Asked()
    with pytest.raises(CallFailed) as failed:
        await calls.asker(asked, row=0, place=0)(call(request()))
    assert failed.value.kind == kind and asked.records[0][1].error and asked.records[0][1].tries == 4
    assert calls.settled(asked), "a model that answers is alive"


async def test_an_empty_answer_may_be_an_answer_and_a_students_refusal_is_its_own(cache: CallCache) -> None:
    backend = by_seed(lambda seed: "" if seed == 1 else "I cannot say.")
    ask = calls_of(backend, cache).asker(Asked(), row=0, place=0)
    assert (await ask(call(request(), may_be_empty=True))).answer == ""
    assert (await ask(call(request(seed=2), who="student"))).answer == "I cannot say."
    assert len(backend.requests) == 2


async def test_to_decline_may_be_an_answer_of_a_teacher(cache: CallCache) -> None:
    backend = ScriptedBackend(lambda _: "I cannot tell from these passages.")
    calls = calls_of(backend, cache)
    asked = Call(step="s", who="teacher", request=request(), may_decline=True)
    assert (await calls.asker(Asked(), row=0, place=0)(asked)).answer.startswith("I cannot tell")
    assert not calls.spending.failures


async def test_a_line_break_within_a_string_makes_no_json_malformed(cache: CallCache) -> None:
    backend = ScriptedBackend(lambda _: Completion(answer='{"a": "one\ntwo"}'))
    calls = calls_of(backend, cache)
    await calls.asker(Asked(), row=0, place=0)(call(request(schema=SCHEMA)))
    assert not calls.spending.failures


async def test_a_lost_call_is_tried_again_unchanged_and_its_tries_are_kept(cache: CallCache) -> None:
    replies = iter([BackendError("lost"), BackendError("lost"), "Because.", "never"])
    backend = ScriptedBackend(lambda _: next(replies))
    calls, asked = calls_of(backend, cache), Asked()
    for _ in range(2):
        reply = await calls.asker(asked, row=0, place=0)(call(request()))
        assert reply.answer == "Because."
    assert [r.seed for r in backend.requests] == [1, 1, 1] and calls.spending.failures == {"error": 2}
    assert [record.tries for _, record in asked.records] == [3, 3]


async def test_a_reply_that_does_not_come_in_time_is_cut_off_and_counted(cache: CallCache) -> None:
    gates = {n: Gate() for n in range(4)}
    backend = ScriptedBackend(lambda _: "never whole", gates=gates)
    calls = calls_of(backend, cache, patience=Patience(backoff_s=0, timeout_s=0.01))
    with pytest.raises(CallFailed, match=r"scripted was silent for 0\.01 s") as failed:
        await calls.asker(Asked(), row=0, place=0)(call(request()))
    assert failed.value.kind == "timeout" and calls.spending.failures == {"timeout": 2}


async def test_a_prompt_that_does_not_fit_is_not_tried_again_and_no_fault_of_the_backend(cache: CallCache) -> None:
    backend = ScriptedBackend(lambda _: "Because.", context_tok=3)
    calls, asked = calls_of(backend, cache, patience=Patience(failures=2)), Asked()
    for seed in range(4):
        with pytest.raises(CallFailed, match="the context holds 3") as failed:
            await calls.asker(asked, row=0, place=0)(call(request("far too many words", seed=seed)))
        assert failed.value.kind == "too_long"
    assert len(backend.requests) == 4 and calls.settled(asked) and calls.spending.failures == {"too_long": 4}


async def test_a_backend_that_answers_nothing_any_more_is_gone(cache: CallCache) -> None:
    backend = ScriptedBackend(lambda _: BackendError("connection refused"))
    calls = calls_of(backend, cache, patience=Patience(tries=1, failures=3))
    asked = Asked()
    for seed in range(2):
        with pytest.raises(CallFailed):
            await calls.asker(asked, row=0, place=0)(call(request(seed=seed)))
    assert not calls.settled(asked)
    with pytest.raises(BackendGone, match=r"scripted is gone: 3 calls failed .*: connection refused"):
        await calls.asker(asked, row=0, place=0)(call(request(seed=2)))


async def test_a_backend_that_answers_in_between_is_not_gone(cache: CallCache) -> None:
    backend = by_seed(lambda seed: "Yes." if seed % 3 == 2 else BackendError("busy"))
    calls = calls_of(backend, cache, patience=Patience(tries=1, failures=3))
    asked = Asked()
    for seed in range(9):
        try:
            await calls.asker(asked, row=0, place=0)(call(request(seed=seed)))
        except CallFailed:
            assert seed % 3 != 2
    assert len(asked.lost) == 6 and calls.settled(asked)


async def test_a_backend_is_asked_for_a_word_when_nothing_else_tells_whether_it_lives(cache: CallCache) -> None:
    backend = by_seed(lambda seed: "Yes." if seed == 0 else BackendError("too long"))
    calls, asked = calls_of(backend, cache, patience=Patience(tries=1)), Asked()
    with pytest.raises(CallFailed):
        await calls.asker(asked, row=0, place=0)(call(request()))
    await calls.settle(asked)
    assert calls.settled(asked)


async def test_the_token_budget_is_never_passed_and_a_reply_that_it_cut_is_not_kept(cache: CallCache) -> None:
    backend = ScriptedBackend(lambda _: "one two three four five six")
    calls = calls_of(backend, cache, tok=20)
    ask = calls.asker(Asked(), row=0, place=0)
    with pytest.raises(BudgetSpent, match="token budget") as spent:
        for seed in range(9):
            await ask(call(request(seed=seed, max_tok=6)))
    assert spent.value.spent == "budget_tokens" and len(cache) == 3
    assert calls.spending.usage.generated == 18 and backend.requests[-1].sampling.max_tok == 2


async def test_calls_at_once_share_what_is_left_of_the_budget(cache: CallCache) -> None:
    backend = ScriptedBackend(lambda _: "one two")
    ask = calls_of(backend, cache, tok=9).asker(Asked(), row=0, place=0)
    replies = await asyncio.gather(*(ask(call(request(seed=n, max_tok=6))) for n in range(4)))
    assert len(replies) == 4, "what calls set aside and do not use comes back"


async def test_slots_go_to_the_lowest_row_first_and_none_is_lost_by_a_cancelled_call() -> None:
    slots, order = Slots(1), list[int]()

    async def work(row: int) -> None:
        async with slots.taken(row):
            order.append(row)
            await asyncio.sleep(0)

    async with slots.taken(0):
        tasks = [asyncio.create_task(work(row)) for row in (5, 3, 4, 3)]
        await asyncio.sleep(0)
        tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [3, 3, 5] and slots.idle


def take_nothing(_: object) -> None:
    pass


@pytest.mark.parametrize("torn", [b'{"a": 1', b'{"a": 1}', b"\0" * 30, b"\0" * 30 + b"\n", b"[1]\n"])
def test_a_last_line_that_was_cut_off_is_taken_away(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"n": 0}\n{"n": 1}\n' + torn)
    found = list[int]()
    with Lines(path, durable=True, take=lambda line: found.append(line.data["n"])) as lines:
        lines.append('{"n": 2}\n')
    assert found == [0, 1]
    assert path.read_bytes() == b'{"n": 0}\n{"n": 1}\n{"n": 2}\n'


def test_a_line_that_is_damaged_in_the_middle_stops_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"n": 0}\noops\n{"n": 2}\n')
    with pytest.raises(InputError, match=r"x\.jsonl line 2 is damaged"):
        Lines(path, durable=True, take=take_nothing)
    assert path.read_bytes() == b'{"n": 0}\noops\n{"n": 2}\n'


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="files are not locked here")
    path = tmp_path / "x.jsonl"
    with Lines(path, durable=True, take=take_nothing), pytest.raises(InputError, match="another process"):
        Lines(path, durable=True, take=take_nothing)
    Lines(path, durable=True, take=take_nothing).close()


def test_a_full_disk_is_one_clear_line_and_leaves_the_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.jsonl"
    write, room = os.write, 5

    def full(file: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = write(file, data[:room])
        room -= done
        return done

    with Lines(path, durable=True, take=take_nothing) as lines:
        lines.append('{"n": 0}\n')
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(DiskError, match=r"No space left on device; free some space and run the same again"):
            lines.append('{"n": 1}\n')
        monkeypatch.undo()
        assert path.read_bytes() == b'{"n": 0}\n'
        lines.append('{"n": 2}\n')
    assert [line.data["n"] for line in read_lines(path)] == [0, 2]


def test_the_cache_reads_what_every_process_wrote(tmp_path: Path) -> None:
    paid = Paid(Completion(answer="\ud800 half", usage=Usage(prompt=3, generated=2), notes=("cut",)), 2)
    for writer in ("", "a", "b"):
        cache = CallCache(tmp_path, writer=writer)
        cache.put(f"key {writer}", paid)
        cache.close()
    again = CallCache(tmp_path)
    assert len(again) == 3 and all(again.get(f"key {writer}") == paid for writer in ("", "a", "b"))
    again.close()
