import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflexor_agents.backends.base import Backend, Completion, Delta, Request
from preflexor_agents.backends.scripted import Gate, ScriptedBackend
from preflexor_agents.config import Sampling
from preflexor_agents.errors import BackendError
from preflexor_agents.events import Usage
from preflexor_agents.markup import TAGS, parse
from preflexor_agents.prompts import Message

ASKED = Request(messages=(Message("system", "Be brief."), Message("user", "Is silk strong?")))


async def said(backend: Backend, request: Request = ASKED) -> tuple[list[Delta], Completion]:
    *deltas, completion = [item async for item in backend.generate(request)]
    return deltas, completion


async def test_reply_is_told_apart_into_its_sections_as_it_streams():
    backend = ScriptedBackend(["<|thinking|>so it is<|/thinking|><|reflect|>good<|/reflect|>Yes, very."])
    deltas, completion = await said(backend)
    assert (completion.thinking, completion.reflection, completion.answer) == ("so it is", "good", "Yes, very.")
    assert "".join(d.text for d in deltas if d.channel == "thinking") == "so it is"
    assert len(deltas) > 4
    assert completion.usage == Usage(prompt=5, generated=4)


@given(st.lists(st.sampled_from([*TAGS, "a ", "b", "\n", "é"]), max_size=10).map("".join))
async def test_completion_agrees_with_the_parse_of_the_text(text):
    _, completion = await said(ScriptedBackend([text]))
    sections = parse(text)
    assert (completion.thinking, completion.reflection, completion.answer) == (
        sections.thinking,
        sections.reflection,
        sections.answer,
    )


async def test_script_can_be_a_function_of_the_request():
    backend = ScriptedBackend(lambda request: f"{len(request.messages)} turns, seed {request.seed}")
    assert (await said(backend))[1].answer == "2 turns, seed 0"
    assert backend.requests == [ASKED]


async def test_finished_reply_is_given_out_unchanged():
    reply = Completion(thinking="t", answer="an answer", usage=Usage(prompt=9, cached=4, generated=2))
    deltas, completion = await said(ScriptedBackend([reply]))
    assert completion is reply
    assert "".join(d.text for d in deltas if d.channel == "answer") == "an answer"


async def test_failure_in_the_script_is_raised():
    backend = ScriptedBackend([BackendError("the server is gone"), "back"])
    with pytest.raises(BackendError, match="the server is gone"):
        await said(backend)
    assert (await said(backend))[1].answer == "back"


async def test_end_of_the_script_is_an_error():
    with pytest.raises(BackendError, match="no further reply"):
        await said(ScriptedBackend([]))


async def test_reply_longer_than_asked_for_is_cut_at_its_length():
    request = Request(messages=ASKED.messages, sampling=Sampling(max_tok=2))
    _, completion = await said(ScriptedBackend(["one two three"]), request)
    assert (completion.answer, completion.finish_reason) == ("one two", "length")


async def test_stop_string_ends_the_reply():
    request = Request(messages=ASKED.messages, stop=("END",))
    _, completion = await said(ScriptedBackend(["a b END c"]), request)
    assert (completion.answer, completion.finish_reason) == ("a b", "stop")


async def test_prompt_longer_than_the_context_fails():
    with pytest.raises(BackendError, match="the prompt has 5 tokens, the context holds 4"):
        await said(ScriptedBackend(["yes"], context_tok=4))


async def test_closed_backend_refuses():
    backend = ScriptedBackend(["yes"])
    await backend.aclose()
    await backend.aclose()
    with pytest.raises(BackendError, match="closed"):
        await said(backend)


async def test_gate_halts_its_reply_in_the_middle_and_no_other():
    gate = Gate()
    backend = ScriptedBackend(["first reply", "second reply"], gates={0: gate})
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(said(backend))
        await gate.reached.wait()
        assert (await said(backend))[1].answer == "second reply"
        assert not first.done()
        gate.open.set()
    assert first.result()[1].answer == "first reply"


async def test_cancelled_reply_is_told():
    gate = Gate()
    backend = ScriptedBackend(["a reply with several pieces"], gates={0: gate})
    heard = []

    async def listen() -> None:
        async with aclosing(backend.generate(ASKED)) as stream:
            async for item in stream:
                heard.append(item)

    task = asyncio.create_task(listen())
    await gate.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard and not any(isinstance(item, Completion) for item in heard)
    assert backend.unfinished == [ASKED]
