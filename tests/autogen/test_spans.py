"""Spans of runs, read back from OpenTelemetry's own SDK."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence

import autogen_core
import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import ChatAgent
from autogen_core.tools import FunctionTool
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from preflexor_agents.autogen.group_chat import ReflectionGroupChat, reflection_team
from preflexor_agents.autogen.reflect_agent import ReflectAgent
from preflexor_agents.config import ReflectConfig
from preflexor_agents.errors import BackendError, PreflexorError
from preflexor_agents.events import (
    Event,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    TextDelta,
)
from preflexor_agents.reflection.engine import run
from preflexor_agents.spans import traced
from tests.autogen.hosts import client, tool_call
from tests.autogen.voices import ANSWER, CONFIG, QUESTION, Gate, Shelf, Voices, cast_of, with_teams

with_host_spans = pytest.mark.skipif(
    not hasattr(autogen_core, "trace_invoke_agent_span"), reason="AutoGen's own agents and tools have spans since 0.7"
)
OURS = ("reflect.run", "reflect.round", "reflect.stage", "chat")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> "Spans":
    """What is recorded while a test runs; OpenTelemetry itself lets a process set its provider only once."""
    provider, kept = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return Spans(kept)


class Spans:
    """What has been recorded so far."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def forget(self) -> None:
        self._exporter.clear()

    def all(self) -> Sequence[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda s: s.start_time or 0)

    def ours(self) -> list[ReadableSpan]:
        return [s for s in self.all() if s.name.split(" ")[0] in OURS]

    def named(self, name: str) -> list[ReadableSpan]:
        return [s for s in self.all() if s.name == name or s.name.startswith(f"{name} ")]

    def parent(self, span: ReadableSpan) -> ReadableSpan | None:
        return next((s for s in self.all() if span.parent and s.context.span_id == span.parent.span_id), None)

    def path(self, span: ReadableSpan | None) -> str:
        """The names from the root to the span, rounds and stages by their numbers and names."""
        names = []
        while span is not None:
            label = {"reflect.round": "reflect.round", "reflect.stage": "reflect.stage"}.get(span.name)
            names.append(str(span.attributes[label]) if label else span.name)
            span = self.parent(span)
        return " > ".join(reversed(names))

    def tree(self) -> list[str]:
        return [self.path(s) for s in self.ours()]


async def drain(stream: AsyncGenerator[object, None]) -> None:
    async for _ in stream:
        pass


def by_engine(voices: Voices, config: ReflectConfig = CONFIG) -> AsyncGenerator[Event, None]:
    return traced(run(QUESTION, cast=cast_of(voices), config=config), name="engine")


CHAT = "chat voices"
TREE = [
    "reflect.run",
    "reflect.run > 1",
    "reflect.run > 1 > draft",
    f"reflect.run > 1 > draft > {CHAT}",
    "reflect.run > 2",
    "reflect.run > 2 > critique",
    f"reflect.run > 2 > critique > {CHAT}",
    "reflect.run > 2 > revise",
    f"reflect.run > 2 > revise > {CHAT}",
    "reflect.run > 2 > answer",
    f"reflect.run > 2 > answer > {CHAT}",
    "reflect.run > 2 > gate",
    f"reflect.run > 2 > gate > {CHAT}",
    f"reflect.run > 2 > gate > {CHAT}",
    "reflect.run > integrate",
    f"reflect.run > integrate > {CHAT}",
    "reflect.run > choose",
    f"reflect.run > choose > {CHAT}",
    f"reflect.run > choose > {CHAT}",
]


async def test_a_run_is_rounds_of_stages_of_calls(spans):
    await drain(by_engine(Voices()))
    assert spans.tree() == TREE


@with_host_spans
async def test_the_agent_makes_the_same_spans_below_the_hosts_own(spans):
    await drain(ReflectAgent("reflect", Voices(), config=CONFIG).run_stream(task=QUESTION))
    assert spans.tree() == [f"invoke_agent reflect > {path}" for path in TREE]


@with_teams
async def test_the_group_chat_makes_the_same_spans(spans):
    await drain(reflection_team(cast_of(Voices()), config=CONFIG).run_stream(task=QUESTION))
    assert spans.tree() == TREE


@with_teams
async def test_no_token_has_a_span(spans, monkeypatch):
    monkeypatch.setenv("AUTOGEN_DISABLE_RUNTIME_TRACING", "true")
    counts = []
    for words in (10, 1000):
        spans.forget()
        voices = Voices({"draft": "<|thinking|>" + "word " * words + "<|/thinking|>It is 87."})
        await drain(reflection_team(cast_of(voices), config=CONFIG).run_stream(task=QUESTION))
        counts.append(len(spans.all()))
    assert counts[0] == counts[1]


async def test_a_call_tells_its_model_usage_seed_and_end_by_the_standard_names(spans):
    events = [e async for e in by_engine(Voices(spec="ollama:qwen3:4b"))]
    draft = next(e for e in events if isinstance(e, StepFinished))
    chat = spans.named("chat")[0]
    first_chunk_s = chat.attributes["gen_ai.response.time_to_first_chunk"]
    assert dict(chat.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": "qwen3:4b",
        "gen_ai.request.seed": draft.seed,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": first_chunk_s,
        "gen_ai.usage.input_tokens": draft.usage.prompt,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.output_tokens": draft.usage.generated,
        "reflect.candidate": 0,
    }
    assert chat.name == "chat qwen3:4b" and 0 <= first_chunk_s <= draft.seconds


async def test_a_run_tells_its_outcome_and_the_sum_of_its_usage(spans):
    events = [e async for e in by_engine(Voices())]
    end = events[-1]
    attributes = spans.named("reflect.run")[0].attributes
    assert attributes["reflect.stop_reason"] == end.stop_reason and attributes["reflect.best_round"] == 2
    assert attributes["gen_ai.workflow.name"] == "engine"
    chats = [s.attributes["gen_ai.usage.output_tokens"] for s in spans.named("chat")]
    assert attributes["gen_ai.usage.output_tokens"] == sum(chats) == end.usage.generated
    rounds = [dict(s.attributes) for s in spans.named("reflect.round")]
    assert [(r["reflect.accepted"], r.get("reflect.score")) for r in rounds] == [(True, None), (True, 1.0)]


async def test_nothing_that_was_said_is_in_a_span(spans):
    await drain(by_engine(Voices()))
    values = {v for s in spans.ours() for v in (s.name, *s.attributes.values()) if isinstance(v, str)}
    assert values == {
        *("reflect.run", "reflect.round", "reflect.stage", "chat voices"),
        *("invoke_workflow", "engine", "chat", "voices", "rounds"),
        *("draft", "critique", "revise", "answer", "gate", "integrate", "choose"),
        *("thinker", "critic", "reviser", "judge", "integrator"),
    }


async def test_a_span_lies_within_its_parent(spans):
    await drain(by_engine(Voices()))
    for span in spans.ours():
        parent = spans.parent(span)
        assert span.start_time <= span.end_time
        if parent is not None:
            assert parent.start_time <= span.start_time and span.end_time <= parent.end_time


async def test_a_call_lasts_as_long_as_it_was_measured_even_if_its_reader_is_late(spans, monkeypatch):
    now = [1_000_000_000]
    monkeypatch.setattr("preflexor_agents.spans.time.time_ns", lambda: now[0])

    async def events() -> AsyncGenerator[Event, None]:
        at = {"round": 1, "role": "thinker", "stage": "draft"}
        yield RunStarted(question=QUESTION, models={}, config={}, started_at=0.0)
        yield RoundStarted(round=1)
        yield StepStarted(**at)
        now[0] += 300_000_000
        yield TextDelta(**at, channel="answer", text="It")
        now[0] += 700_000_000
        yield StepFinished(**at, answer="It is.", seconds=0.4, model="nano")
        yield RoundFinished(round=1, accepted=True, reason="first")
        yield RunFinished(answer="It is.", stop_reason="rounds", best_round=1)

    await drain(traced(events(), name="late"))
    chat, stage = spans.named("chat")[0], spans.named("reflect.stage")[0]
    assert (chat.start_time, chat.end_time) == (1_000_000_000, 1_400_000_000)
    assert stage.end_time == chat.end_time
    assert chat.attributes["gen_ai.response.time_to_first_chunk"] == 0.3
    assert chat.attributes["gen_ai.provider.name"] == "llama.cpp" and chat.name == "chat nano"


async def test_candidates_of_a_stage_are_calls_side_by_side(spans):
    await drain(by_engine(Voices(), ReflectConfig(rounds=1, candidates=3, gate=False, integrate="never")))
    stage = next(s for s in spans.named("reflect.stage") if s.attributes["reflect.stage"] == "draft")
    chats = [s for s in spans.named("chat") if spans.parent(s) is stage]
    assert sorted(s.attributes["reflect.candidate"] for s in chats) == [0, 1, 2]
    assert max(s.start_time for s in chats) < min(s.end_time for s in chats)


async def test_the_librarians_stages_count_what_was_found(spans):
    await drain(
        traced(run(QUESTION, cast=cast_of(Voices()), config=CONFIG, library=Shelf(), store="shelf"), name="engine")
    )
    found = {s.attributes["reflect.stage"]: s.attributes for s in spans.named("reflect.stage")}
    assert found["retrieve"]["reflect.passages"] == 2 and found["cite"]["reflect.citations"] == 1
    assert found["retrieve"]["reflect.role"] == "librarian"


class Torn(Shelf):
    def search(self, query: str, *, k: int = 5) -> list:
        raise PreflexorError("the store is damaged")


async def test_a_search_that_fails_is_an_error_of_its_stage(spans):
    await drain(
        traced(run(QUESTION, cast=cast_of(Voices()), config=CONFIG, library=Torn(), store="shelf"), name="engine")
    )
    stage = next(s for s in spans.named("reflect.stage") if s.attributes["reflect.stage"] == "retrieve")
    assert (stage.status.status_code, stage.status.description) == (StatusCode.ERROR, "the store is damaged")


async def test_a_failed_call_is_an_error_and_the_run_goes_on(spans):
    await drain(by_engine(Voices({"critique": BackendError("the server is gone")})))
    failed = [s for s in spans.ours() if s.status.status_code is StatusCode.ERROR]
    assert [spans.path(s) for s in failed] == ["reflect.run > 2 > critique", f"reflect.run > 2 > critique > {CHAT}"]
    assert {s.status.description for s in failed} == {"the server is gone"}
    assert all(s.attributes["error.type"] == "_OTHER" for s in failed)


async def test_a_run_without_an_answer_is_an_error(spans):
    await drain(by_engine(Voices({"draft": BackendError("the server is gone")})))
    top = spans.named("reflect.run")[0]
    assert top.status.status_code is StatusCode.ERROR and "the server is gone" in str(top.status.description)
    assert top.attributes["reflect.stop_reason"] == "failed"


async def test_an_exception_is_recorded_and_goes_on(spans):
    voices = Voices(hold=Broken())
    with pytest.raises(ZeroDivisionError):
        await drain(by_engine(voices))
    top = spans.named("reflect.run")[0]
    assert top.status.status_code is StatusCode.ERROR and top.attributes["error.type"] == "ZeroDivisionError"
    assert [e.name for e in top.events] == ["exception"]


class Broken:
    def __call__(self, stage: str) -> None:
        raise ZeroDivisionError


async def test_leaving_a_run_ends_all_its_spans(spans):
    gate = Gate("critique")
    voices = Voices(hold=gate)
    events = by_engine(voices)
    async for event in events:
        if isinstance(event, StepStarted) and event.stage == "critique":
            break
    await events.aclose()
    assert spans.tree() == TREE[:7]
    assert spans.named("reflect.run")[0].attributes["reflect.stop_reason"] == "abandoned"
    left = spans.named("chat")[-1]
    assert left.status.status_code is StatusCode.ERROR and left.attributes["error.type"] == "abandoned"


@with_host_spans
async def test_the_rest_of_a_run_has_spans_of_its_own(spans):
    gate = Gate("revise")
    agent = ReflectAgent("reflect", Voices(hold=gate), config=CONFIG)
    task = asyncio.create_task(agent.run(task=QUESTION))
    await gate.reached.wait()
    state = await agent.save_state()
    task.cancel()
    await asyncio.wait([task])
    spans.forget()
    other = ReflectAgent("reflect", Voices(), config=CONFIG)
    await other.load_state(state)
    assert (await other.run()).messages[-1].to_text() == ANSWER
    rest = ["reflect.run", *(path for path in TREE[4:] if "critique" not in path)]
    assert spans.tree() == [f"invoke_agent reflect > {path}" for path in rest]


def agent_with(critic: ChatAgent) -> ReflectAgent:
    return ReflectAgent("reflect", Voices(), roles={"critic": critic}, config=CONFIG)


def team_with(critic: ChatAgent) -> ReflectionGroupChat:
    return ReflectionGroupChat([critic], model=Voices(), config=CONFIG)


@with_host_spans
@pytest.mark.parametrize("host", [agent_with, team_with])
async def test_what_a_player_does_falls_under_the_round_it_does_it_in(spans, host):
    tool = FunctionTool(look_up, description="Looks a number up.")
    critic = AssistantAgent("critic", client(tool_call("look_up", task=QUESTION)), tools=[tool])
    await host(critic).run(task=QUESTION)
    (used,) = spans.named("execute_tool")
    assert "reflect.run > 2 > " in spans.path(used)


async def look_up(task: str) -> str:
    return "4.5"


def test_nothing_is_imported_for_it():
    code = (
        "import sys, preflexor_agents.spans, preflexor_agents.reflection.engine; print('opentelemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


UNTRACED = """
import asyncio
from preflexor_agents.events import Steered
from preflexor_agents.spans import _RunSpans, traced
%s
async def events():
    for text in "abc":
        yield Steered(text=text)
def take(self, event):
    raise AssertionError("looked at although nobody records")
_RunSpans.take = take
async def main():
    return "".join([e.text async for e in traced(events(), name="x")])
print(asyncio.run(main()))
"""


@pytest.mark.parametrize("first", ["", "import opentelemetry.trace"])
def test_without_a_tracer_provider_the_events_pass_untouched(first):
    done = subprocess.run([sys.executable, "-c", UNTRACED % first], capture_output=True, text=True, check=True)
    assert done.stdout == "abc\n"
