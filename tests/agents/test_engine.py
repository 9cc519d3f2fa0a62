"""The engine over a scripted model: what it yields, what cuts it, what breaks it."""

import asyncio
from dataclasses import replace

import pytest

from preflexor_agents.backends.scripted import Gate, ScriptedBackend
from preflexor_agents.config import ReflectConfig, paper
from preflexor_agents.errors import BackendError, InputError, StoreError
from preflexor_agents.events import Cited, RunFinished, StepFailed, StepFinished, TextDelta
from preflexor_agents.prompts import TAG_HINT
from preflexor_agents.reflection.engine import run
from preflexor_agents.reflection.perform import Control
from preflexor_agents.reflection.state import advance, start
from preflexor_agents.session import MODEL_ROLES, ask, check_question
from tests.agents.driving import passage

DRAFT = "<|thinking|>t1<|/thinking|>It is 87 [1]."


def plays(backend):
    return dict.fromkeys(MODEL_ROLES, backend)


def by_task(**texts):
    """A script that answers by what the prompt asks for."""
    words = {
        "draft": "Task: think, then answer",
        "critique": "Task: check the draft",
        "revise": "Task: rewrite",
        "judge": "Task: say which",
        "integrate": "Task: merge",
    }

    def reply(request):
        last = request.messages[-1].content
        name = next(n for n, w in words.items() if w in last)
        name = "answer" if name == "draft" and request.thinking is not None else name
        return texts[name]

    return reply


WORDS = {
    "draft": DRAFT,
    "critique": "no. Verdict: revise",
    "revise": "t2",
    "answer": "It is 4.5 [1].",
    "judge": "Better: B",
    "integrate": "It is 4.5, all in all.",
}


class Notes:
    """A library of one note."""

    def __init__(self, error: Exception | None = None):
        self.error = error

    def search(self, query, *, k=5):
        if self.error:
            raise self.error
        return [passage(1)]

    def cite(self, answer, passages):
        return Cited(citations=())


async def events_of(backend, config, **more):
    return [e async for e in run("How tough is nacre?", cast=plays(backend), config=config, **more)]


@pytest.mark.parametrize("variant", ["critic", "self"])
async def test_paper_makes_the_published_calls_through_a_backend(variant):
    backend = ScriptedBackend(by_task(**WORDS) if variant == "critic" else lambda r: DRAFT)
    await events_of(backend, paper(variant, 3))
    assert len(backend.requests) == 8
    assert {r.sampling for r in backend.requests} == {paper().thinker}


async def test_folding_the_events_gives_the_finished_state():
    events = await events_of(ScriptedBackend(by_task(**WORDS)), ReflectConfig(), library=Notes(), store="s")
    state = start(events[0])
    for event in events[1:]:
        state = advance(state, event)
    assert state.finished == events[-1] and state.cited is not None


async def test_streamed_text_is_the_text_of_the_finished_step():
    events = await events_of(ScriptedBackend(by_task(**WORDS)), replace(ReflectConfig(), candidates=3))
    for step in (e for e in events if isinstance(e, StepFinished)):
        deltas = [
            e
            for e in events
            if isinstance(e, TextDelta) and (e.round, e.stage, e.candidate) == (step.round, step.stage, step.candidate)
        ]
        answer = "".join(d.text for d in deltas if d.channel == "answer")
        assert answer.strip() == step.answer.strip()


async def test_a_stop_in_a_later_round_keeps_the_best_so_far():
    gate = Gate()
    backend = ScriptedBackend(by_task(**WORDS), gates={1: gate})
    control = Control()
    events = []

    async def watch():
        async for event in run("q", cast=plays(backend), config=ReflectConfig(), control=control):
            events.append(event)

    watching = asyncio.create_task(watch())
    await gate.reached.wait()
    control.stop.set()
    await watching
    assert isinstance(events[-1], RunFinished)
    assert (events[-1].stop_reason, events[-1].answer) == ("cancelled", "It is 87 [1].")
    assert len(backend.unfinished) == 1 and len(backend.requests) == 2


async def test_a_stop_during_the_draft_gives_what_was_written():
    gate = Gate()
    backend = ScriptedBackend(["<|thinking|>t<|/thinking|>It is a long answer that goes on and on."], gates={0: gate})
    control = Control()

    async def stop():
        await gate.reached.wait()
        control.stop.set()

    stopping = asyncio.create_task(stop())
    events = await events_of(backend, ReflectConfig(), control=control)
    await stopping
    assert events[-1].stop_reason == "cancelled"
    assert events[-1].answer and "It is a long answer that goes on and on.".startswith(events[-1].answer)


async def test_the_second_budget_cuts_a_hanging_call():
    backend = ScriptedBackend(by_task(**WORDS), gates={1: Gate()})
    events = await events_of(backend, replace(ReflectConfig(), budget_s=0.2))
    assert events[-1].stop_reason == "budget_seconds" and events[-1].answer == "It is 87 [1]."
    assert any(isinstance(e, StepFinished) and e.finish_reason == "budget_seconds" for e in events)


async def test_no_call_may_write_more_than_is_left_of_the_token_budget():
    backend = ScriptedBackend(by_task(**(WORDS | {"draft": "one two three four five six seven eight"})))
    events = await events_of(backend, replace(ReflectConfig(), budget_tok=4))
    assert backend.requests[0].sampling.max_tok == 4
    assert events[-1].stop_reason == "budget_tokens" and events[-1].answer == "one two three four"
    assert next(e for e in events if isinstance(e, StepFinished)).finish_reason == "budget_tokens"


async def test_a_failing_critic_costs_its_round_only():
    script = by_task(**(WORDS | {"critique": BackendError("critic gone")}))
    events = await events_of(ScriptedBackend(script), ReflectConfig())
    assert events[-1].answer == "It is 87 [1]."
    assert [e.error for e in events if isinstance(e, StepFailed)] == ["critic gone"] * 2


async def test_a_failing_store_is_recorded_and_the_question_still_answered():
    library = Notes(StoreError("database is locked"))
    events = await events_of(ScriptedBackend(by_task(**WORDS)), ReflectConfig(), library=library, store="s")
    assert events[-1].answer and any(isinstance(e, StepFailed) and e.role == "librarian" for e in events)


async def test_a_model_without_tags_is_told_to_write_them_by_the_thinker_only():
    backend = ScriptedBackend(by_task(**WORDS), native_tags=False)
    await events_of(backend, ReflectConfig())
    hinted = [TAG_HINT in r.messages[0].content for r in backend.requests]
    tasks = ["Task: think" in r.messages[-1].content for r in backend.requests]
    assert hinted == tasks and any(hinted) and not all(hinted)


async def test_an_unforeseen_failure_ends_the_run_as_an_event():
    def broken(request):
        raise ZeroDivisionError("division by zero")

    backend = ScriptedBackend(broken)
    events = [e async for e in ask("q", cast=plays(backend), config=ReflectConfig())]
    assert events[-1].stop_reason == "failed" and "division by zero" in events[-1].error


async def test_an_unforeseen_failure_in_a_later_round_keeps_the_best_so_far():
    def breaks_later(request):
        if "Task: check the draft" in request.messages[-1].content:
            raise ZeroDivisionError("division by zero")
        return DRAFT

    backend = ScriptedBackend(breaks_later)
    events = [e async for e in ask("q", cast=plays(backend), config=ReflectConfig())]
    assert (events[-1].stop_reason, events[-1].answer) == ("failed", "It is 87 [1].")


async def test_the_same_seed_gives_the_same_requests():
    first, second = ScriptedBackend(by_task(**WORDS)), ScriptedBackend(by_task(**WORDS))
    await events_of(first, ReflectConfig(seed=3))
    await events_of(second, ReflectConfig(seed=3))
    assert first.requests == second.requests
    other = ScriptedBackend(by_task(**WORDS))
    await events_of(other, ReflectConfig(seed=4))
    assert [r.seed for r in other.requests] != [r.seed for r in first.requests]


@pytest.mark.parametrize("question", ["", "   \n", "word " * 60_000])
async def test_a_question_that_is_empty_or_too_long_is_refused(question):
    with pytest.raises(InputError, match="question"):
        await check_question(question, plays(ScriptedBackend([])))
