"""OpenTelemetry spans of a run, as a fold over its events: reflect.run > reflect.round > reflect.stage > chat.

Only where the host has set up tracing: OpenTelemetry is never imported here, and without a recording tracer the
events pass through untouched. Spans hold names, numbers and failures; no question, answer or other text of the run.
"""

import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from preflexor_agents import __version__
from preflexor_agents.events import (
    Cited,
    Event,
    Retrieved,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
    StepFailed,
    StepFinished,
    StepStarted,
    TextDelta,
    Usage,
)

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_PROVIDERS = {"nano": "llama.cpp", "gguf": "llama.cpp"}
_AFTER_THE_ROUNDS = ("integrate", "choose", "cite")


async def traced(events: AsyncGenerator[Event, None], *, name: str) -> AsyncGenerator[Event, None]:
    """The events of one run, unchanged, which become spans of the host's current trace.

    Args:
        events: of a run, or of the rest of one.
        name: of who runs it.
    """
    spans = Spans()
    with spans.run(name):
        async with aclosing(spans.followed(events)) as followed:
            async for event in followed:
                yield event


class Spans:
    """The spans of one run after the other, for runs whose events come from several places.

    Does nothing while no run is recorded.
    """

    def __init__(self) -> None:
        self._run: _RunSpans | None = None

    @contextmanager
    def run(self, name: str) -> Iterator[None]:
        """While this holds, events belong to a run of that name; leaving it ends all its spans."""
        with _begin(name) or nullcontext() as self._run:
            try:
                yield
            finally:
                self._run = None

    def take(self, event: Event) -> None:
        """Fold an event that happens now."""
        if self._run is not None:
            self._run.take(event)

    async def followed(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """The events, unchanged, each taken when it happens.

        Spans that other instrumented code opens while it works for them fall under the innermost open span.
        """
        async with aclosing(events):
            while True:
                with nullcontext() if self._run is None else self._run.current():
                    try:
                        event = await anext(events)
                    except StopAsyncIteration:
                        return
                self.take(event)
                yield event


def _begin(name: str) -> "_RunSpans | None":
    """The spans of a run that begins; None if nobody records them."""
    otel = sys.modules.get("opentelemetry.trace")
    if otel is None:
        return None
    tracer = otel.get_tracer("preflexor_agents", __version__)
    attributes = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": name}
    run = tracer.start_span("reflect.run", attributes=attributes)
    return _RunSpans(otel, tracer, run) if run.is_recording() else None


@dataclass(slots=True)
class _Call:
    """A call of a model that goes on. Times are nanoseconds since the epoch."""

    began_ns: int
    first_ns: int | None = None
    """When its first text came."""


@dataclass(slots=True)
class _Stage:
    """The stage that is being worked on."""

    key: tuple[int, str, str]
    """Round, stage, role."""
    span: "Span"
    ended_ns: int
    """When the last of its calls so far was over."""
    calls: dict[int, _Call] = field(default_factory=dict)
    """Candidate -> its call, while it goes on."""
    error: str = ""
    went_well: bool = False


class _RunSpans:
    """The open spans of one run. Leaving it as a context manager ends them."""

    def __init__(self, otel: Any, tracer: "Tracer", run: "Span") -> None:
        self._otel = otel
        self._tracer = tracer
        self._run = run
        self._models: dict[str, str] = {}
        self._round: Span | None = None
        self._stage: _Stage | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self._run.is_recording():
            return
        self._end_round()
        if isinstance(error, Exception):
            self._run.record_exception(error)
            self._fail(self._run, str(error), kind=type(error).__name__)
        else:
            self._run.set_attribute("reflect.stop_reason", "abandoned")
        self._run.end()

    def current(self) -> AbstractContextManager[object]:
        """While this holds, the innermost open span is the parent of what others open."""
        stage = self._stage
        span = stage.span if stage is not None else self._round or self._run
        entered: AbstractContextManager[object] = self._otel.use_span(
            span, record_exception=False, set_status_on_exception=False
        )
        return entered

    def take(self, event: Event) -> None:
        """Fold an event that happens now."""
        match event:
            case RunStarted(models=models):
                self._models = models
            case TextDelta(candidate=candidate):
                call = self._stage.calls.get(candidate) if self._stage is not None else None
                if call is not None and call.first_ns is None:
                    call.first_ns = time.time_ns()
            case RoundStarted(round=n):
                self._end_round()
                self._open_round(n)
            case StepStarted():
                self._step_started(event)
            case StepFailed(role="librarian") | Retrieved() | Cited():
                self._searched(event)
            case StepFinished() | StepFailed():
                self._called(event)
            case RoundFinished():
                self._round_over(event)
            case RunFinished():
                self._run_over(event)

    def _open_round(self, n: int) -> None:
        self._round = self._start("reflect.round", self._run, {"reflect.round": n})

    def _step_started(self, event: StepStarted) -> None:
        """A step begins: it belongs to the open stage or opens the next one."""
        key = (event.round, event.stage, event.role)
        if self._stage is None or self._stage.key != key:
            self._end_stage()
            if event.stage in _AFTER_THE_ROUNDS:
                self._end_round()
            elif self._round is None:  # the beginning of this round was in an earlier part of the run
                self._open_round(event.round)
            attributes = {"reflect.round": event.round, "reflect.stage": event.stage, "reflect.role": event.role}
            span = self._start("reflect.stage", self._round or self._run, attributes)
            self._stage = _Stage(key, span, ended_ns=time.time_ns())
        if event.role != "librarian":
            self._stage.calls[event.candidate] = _Call(began_ns=time.time_ns())

    def _called(self, event: StepFinished | StepFailed) -> None:
        """A call is over: only now its model is known, so its span is made in retrospect."""
        stage = self._stage
        call = stage.calls.pop(event.candidate, None) if stage is not None else None
        if stage is None or call is None:
            return
        # A reader may take an event late, but `seconds` was measured where the call was made.
        ended_ns = min(time.time_ns(), call.began_ns + int(event.seconds * 1e9))
        stage.ended_ns = max(stage.ended_ns, ended_ns)
        attributes: dict[str, Any] = {"gen_ai.operation.name": "chat", "reflect.candidate": event.candidate}
        if call.first_ns is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = (call.first_ns - call.began_ns) / 1e9
        if isinstance(event, StepFinished):
            stage.went_well = True
            attributes |= {
                "gen_ai.request.seed": event.seed,
                "gen_ai.response.finish_reasons": [event.finish_reason],
                **_usage(event.usage),
            }
        spec = event.model if isinstance(event, StepFinished) else self._models.get(event.role, "")
        span = self._chat(stage, call, spec, attributes)
        if isinstance(event, StepFailed):
            stage.error = event.error
            self._fail(span, event.error)
        span.end(ended_ns)

    def _chat(self, stage: _Stage, call: _Call, spec: str, attributes: dict[str, Any]) -> "Span":
        """The span of a call, of the model that a SPEC names."""
        provider, _, model = spec.partition(":")
        model = model or provider
        name = "chat"
        if spec:
            name = f"chat {model}"
            attributes |= {
                "gen_ai.provider.name": _PROVIDERS.get(provider, provider),
                "gen_ai.request.model": model,
            }
        return self._start(name, stage.span, attributes, at_ns=call.began_ns)

    def _searched(self, event: StepFailed | Retrieved | Cited) -> None:
        """The librarian is done; no model was asked."""
        stage = self._stage
        if stage is None:
            return
        stage.ended_ns = time.time_ns()
        match event:
            case StepFailed(error=error):
                stage.error = error
            case Retrieved(passages=passages):
                stage.span.set_attribute("reflect.passages", len(passages))
            case Cited(citations=citations, unsupported=unsupported):
                found = {"reflect.citations": len(citations), "reflect.unsupported": len(unsupported)}
                stage.span.set_attributes(found)

    def _round_over(self, event: RoundFinished) -> None:
        if self._round is None:
            self._open_round(event.round)
        assert self._round is not None
        attributes = {"reflect.accepted": event.accepted, "reflect.converged": event.converged}
        self._round.set_attributes(attributes)
        if event.score is not None:
            self._round.set_attribute("reflect.score", event.score)
        self._end_round()

    def _run_over(self, event: RunFinished) -> None:
        self._end_round()
        self._run.set_attributes(
            {
                "reflect.stop_reason": event.stop_reason,
                "reflect.best_round": event.best_round,
                "reflect.integrated": event.integrated,
                **_usage(event.usage),
            }
        )
        if event.stop_reason == "failed":
            self._fail(self._run, event.error)
        self._run.end()

    def _end_round(self) -> None:
        self._end_stage()
        span, self._round = self._round, None
        if span is not None:
            span.end()

    def _end_stage(self) -> None:
        stage, self._stage = self._stage, None
        if stage is None:
            return
        for candidate, call in stage.calls.items():
            attributes = {"gen_ai.operation.name": "chat", "reflect.candidate": candidate}
            span = self._chat(stage, call, self._models.get(stage.key[2], ""), attributes)
            self._fail(span, "the run was left before the call was over", kind="abandoned")
            span.end()
        if stage.error and not stage.went_well:
            self._fail(stage.span, stage.error)
        stage.span.end(None if stage.calls else stage.ended_ns)

    def _start(self, name: str, parent: "Span", attributes: dict[str, Any], *, at_ns: int | None = None) -> "Span":
        context = self._otel.set_span_in_context(parent)
        return self._tracer.start_span(name, context, attributes=attributes, start_time=at_ns)

    def _fail(self, span: "Span", error: str, *, kind: str = "_OTHER") -> None:
        span.set_attribute("error.type", kind)
        span.set_status(self._otel.StatusCode.ERROR, error)


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "gen_ai.usage.input_tokens": usage.prompt,
        "gen_ai.usage.cache_read.input_tokens": usage.cached,
        "gen_ai.usage.output_tokens": usage.generated,
    }
