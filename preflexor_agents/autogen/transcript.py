"""Events as AutoGen messages and back: a run can be watched, and rebuilt, from a chat's own messages.

Only built-in message types are used, their metadata holds strings. A live message carries one event for whoever
watches the stream. A turn's last message carries the turn's events for the peers, who receive nothing else; it says
where in the run they belong, so that hearing it twice, or late, does no harm.
"""

import dataclasses
import json
import uuid
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, Literal, NamedTuple, assert_never

from autogen_agentchat.messages import (
    BaseAgentEvent,
    BaseChatMessage,
    HandoffMessage,
    MemoryQueryEvent,
    ModelClientStreamingChunkEvent,
    TextMessage,
    ThoughtEvent,
)
from autogen_core.memory import MemoryContent, MemoryMimeType
from autogen_core.models import RequestUsage

from preflexor_agents.events import (
    Cited,
    Event,
    Passage,
    Resumed,
    Retrieved,
    RoundFinished,
    RoundsAdded,
    RoundStarted,
    RoundStopped,
    Ruled,
    RunFinished,
    RunStarted,
    Steered,
    StepFailed,
    StepFinished,
    StepStarted,
    TextDelta,
    Usage,
    from_json,
    to_json,
)
from preflexor_agents.reflection.state import State, advance, said, start

Emit = Literal["events", "messages"]
"""Whether stages are shown as agent events or as text messages; some hosts' screens leave events out."""
ChatItem = BaseAgentEvent | BaseChatMessage
EVENT, TURN = "preflexor.event", "preflexor.turn"
_NO_RUN = -1.0
_LABELS = (
    "stage", "role", "round", "candidate", "channel", "score", "accepted", "converged", "finish_reason", "query",
    "seconds", "stop_reason", "best_round", "integrated", "error",
)  # fmt: skip


class Teller:
    """Makes messages of a run's events, in one name."""

    def __init__(self, source: str, *, emit: Emit = "events") -> None:
        self._source = source
        self._emit = emit
        self._rounds = 0
        self._ids: dict[tuple[object, ...], str] = {}

    def live(self, event: Event) -> ChatItem:
        """The event as a message for whoever watches the stream; `watched` is the inverse."""
        self._rounds = max(self._rounds, getattr(event, "round", 0))
        if isinstance(event, TextDelta):
            return ModelClientStreamingChunkEvent(
                content=event.text, source=self._source, metadata=labels(event), full_message_id=self._id(event)
            )
        if isinstance(event, RunFinished):
            return final_message(event, source=self._source, rounds=self._rounds)
        if isinstance(event, Retrieved) and self._emit == "events":
            found = [_memory(p) for p in event.passages]
            metadata = {"stage": "retrieve", "role": "librarian", **labels(event)}
            return MemoryQueryEvent(content=found, source=self._source, metadata=metadata)
        metadata = {EVENT: json.dumps(to_json(event), ensure_ascii=False), **labels(event)}
        usage = _request_usage(event.usage) if isinstance(event, StepFinished) else None
        kind = TextMessage if self._emit == "messages" and _worth_showing(event) else ThoughtEvent
        return kind(
            id=self._id(event) if isinstance(event, StepFinished) else str(uuid.uuid4()),
            content=describe(event) or "(nothing)",
            source=self._source,
            metadata=metadata,
            models_usage=usage,
        )

    def _id(self, event: TextDelta | StepFinished) -> str:
        """The id of the message that will hold the whole of a streamed text."""
        key = (event.round, event.stage, event.candidate)
        if isinstance(event, StepFinished):
            return self._ids.pop(key, None) or str(uuid.uuid4())
        return self._ids.setdefault(key, str(uuid.uuid4()))


def final_message(event: RunFinished, *, source: str, rounds: int) -> TextMessage:
    """The answer for the peers; what it took is in the metadata."""
    metadata = {**labels(event), "rounds": str(rounds), "answered": str(bool(event.answer))}
    for name in ("prompt", "cached", "generated"):
        metadata[f"tokens_{name}"] = str(getattr(event.usage, name))
    content = event.answer or (f"No answer: {event.error}" if event.error else "No answer.")
    return TextMessage(content=content, source=source, metadata=metadata)


def watched(message: object) -> Event | None:
    """The event that a live message carries; None for any other."""
    if not isinstance(message, ChatItem):
        return None
    data = message.metadata
    if EVENT in data:
        return from_json(json.loads(data[EVENT]))
    match message:
        case ModelClientStreamingChunkEvent(content=text) if "channel" in data:
            values = {name: data[name] for name in ("role", "stage", "channel")}
            numbers = {name: int(data[name]) for name in ("round", "candidate")}
            return from_json({"event": "TextDelta", "text": text, **values, **numbers})
        case MemoryQueryEvent(content=found) if data.get("stage") == "retrieve":
            passages = tuple(_passage(item) for item in found)
            seconds = float(data["seconds"])
            return Retrieved(round=int(data["round"]), query=data.get("query", ""), passages=passages, seconds=seconds)
        case TextMessage(content=text) if "stop_reason" in data:
            return _finished(text, data)
    return None


class Turn(NamedTuple):
    """What a turn's last message tells the peers."""

    run: float
    """When the run began; names it."""
    at: int
    """Place of the first event in the run, text deltas not counted."""
    events: tuple[Event, ...]
    question: str | None = None
    """What is asked, where the run has not begun."""


def turn_message(turn: Turn, *, source: str) -> TextMessage:
    """The message that ends a turn."""
    data = {**turn._asdict(), "events": [to_json(e) for e in turn.events]}
    return TextMessage(
        content=_headline(turn.events), source=source, metadata={TURN: json.dumps(data, ensure_ascii=False)}
    )


def told(message: BaseChatMessage) -> Turn:
    """What a turn's last message tells; the inverse of `turn_message`."""
    return _turn(message.metadata[TURN])


@lru_cache(maxsize=16)
def _turn(text: str) -> Turn:
    """Every participant of a team reads the same text."""
    data = json.loads(text)
    events = tuple(from_json(item) for item in data["events"])
    return Turn(data["run"], data["at"], events, data["question"])


class Transcript:
    """A run as one participant has heard it."""

    def __init__(self) -> None:
        self.question: str | None = None
        self.started: RunStarted | None = None
        self.state: State | None = None
        self.heard: list[Event] = []
        """Every event so far but text deltas."""
        self.shared = 0
        """How many of them the peers know."""
        self._asked: dict[str, None] = {}

    def read(self, messages: Sequence[BaseChatMessage]) -> None:
        """Take in peers' turns and questions from outside, each message once; what comes together is one question."""
        for is_turn, group in groupby(messages, key=lambda m: TURN in m.metadata):
            if is_turn:
                for message in group:
                    self._hear(told(message))
                continue
            lines = lines_of([m for m in group if self._is_new(m)])
            if lines:
                self._ask(conversation(lines))

    def take(self, event: Event) -> None:
        """Fold one event."""
        if isinstance(event, RunStarted):
            self.question, self.started, self.state, self.heard = event.question, event, start(event), []
        elif self.state is not None:
            self.state = advance(self.state, event)
        if not isinstance(event, TextDelta):
            self.heard.append(event)

    def tell(self, *, again: bool = False) -> Turn:
        """What the peers do not know yet; all of the run if `again`."""
        if self.started is None:
            return Turn(_NO_RUN, 0, (), self.question)
        at = 0 if again else self.shared
        self.shared = len(self.heard)
        return Turn(self.started.started_at, at, tuple(self.heard[at:]))

    def to_json(self) -> dict[str, Any]:
        """The transcript as JSON values."""
        heard = [to_json(e) for e in self.heard]
        return {"question": self.question, "heard": heard, "shared": self.shared, "asked": list(self._asked)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Transcript":
        """The transcript that `to_json` wrote."""
        made = cls()
        made.question = data["question"]
        for item in data["heard"]:
            made.take(from_json(item))
        made.shared = data["shared"]
        made._asked = dict.fromkeys(data["asked"])
        return made

    def _ask(self, question: str) -> None:
        self.question = question
        self.started, self.state, self.heard, self.shared = None, None, [], 0

    def _hear(self, turn: Turn) -> None:
        mine = self.started.started_at if self.started is not None else _NO_RUN
        if turn.question is not None:
            over = self.state is not None and self.state.finished is not None
            if over or turn.question != self.question:
                self._ask(turn.question)
        elif turn.run > mine and turn.at == 0:
            self.heard, self.shared, mine = [], 0, turn.run
        if turn.run != mine:
            return
        known = len(self.heard) - turn.at
        if known >= 0:
            for event in turn.events[known:]:
                self.take(event)
            self.shared = max(self.shared, turn.at + len(turn.events))

    def _is_new(self, message: BaseChatMessage) -> bool:
        key = getattr(message, "id", None)  # messages have ids since AutoGen 0.6
        if key is None:
            return True
        new = key not in self._asked
        self._asked[key] = None
        return new


def describe(event: Event) -> str:  # noqa: C901 - one case per event
    """One line a person can read."""
    match event:
        case RunStarted():
            return f"Question: {event.question}"
        case RoundStarted():
            return f"Round {event.round}" + (f": {'; '.join(event.steering)}" if event.steering else "")
        case Steered():
            return f"The user adds: {event.text}"
        case RoundStopped():
            return f"The user stops round {event.round}"
        case Ruled():
            return f"The user {'takes' if event.accepted else 'refuses'} the answer of round {event.round}"
        case RoundsAdded():
            return f"The user asks for {event.rounds} more"
        case Resumed():
            return "The run goes on"
        case StepStarted():
            return f"{event.role} begins: {event.stage}"
        case TextDelta():
            return event.text
        case Retrieved():
            found = ", ".join(f"[{n}] {p.title}" for n, p in enumerate(event.passages, 1))
            return f"Found {found}" if found else "Found nothing"
        case StepFinished():
            return said(event)
        case StepFailed():
            return f"{event.role} failed: {event.error}"
        case RoundFinished():
            return f"Round {event.round} {'accepted' if event.accepted else 'kept the answer so far'}: {event.reason}"
        case Cited():
            return "; ".join(f"[{c.number}] {c.title}: {c.quote}" for c in event.citations) or "No citation"
        case RunFinished():
            return event.answer or event.error or "No answer"
        case _:
            assert_never(event)


def labels(event: Event) -> dict[str, str]:
    """What others may want to read from a message's metadata without knowing our events."""
    found = {name: getattr(event, name, None) for name in _LABELS}
    return {name: str(value) for name, value in found.items() if value is not None and value != ""}


def conversation(lines: Sequence[tuple[str, str]]) -> str:
    """What was said, as a question: one line as it is, several with the names of those who said them."""
    if len(lines) == 1:
        return lines[0][1]
    return "\n".join(f"{who}: {what}" for who, what in lines)


def lines_of(messages: Sequence[BaseChatMessage]) -> list[tuple[str, str]]:
    """Who says what in messages from outside. A hand-over says what it brings along; its stock phrase says nothing."""
    lines: list[tuple[str, str]] = []
    for message in messages:
        if not isinstance(message, HandoffMessage):
            lines.append((message.source, message.to_model_text()))
            continue
        lines += [(getattr(m, "source", "system"), m.content) for m in message.context if isinstance(m.content, str)]
        if not message.context and not message.content.startswith(f"Transferred to {message.target}"):
            lines.append((message.source, message.content))
    return lines


def _headline(events: Sequence[Event]) -> str:
    """What a turn comes to: the run's answer, else what was said, else the last thing that happened."""
    for kind in (RunFinished, StepFinished, StepFailed, Retrieved):
        for event in reversed(events):
            if isinstance(event, kind):
                return describe(event) or "(nothing)"
    return describe(events[-1]) if events else "(nothing to do)"


def _worth_showing(event: Event) -> bool:
    return isinstance(event, Retrieved | StepFinished | StepFailed | RoundFinished | Cited)


def _request_usage(usage: Usage) -> RequestUsage:
    return RequestUsage(prompt_tokens=usage.prompt, completion_tokens=usage.generated)


def _memory(passage: Passage) -> MemoryContent:
    metadata = dataclasses.asdict(passage)
    return MemoryContent(content=metadata.pop("text"), mime_type=MemoryMimeType.TEXT, metadata=metadata)


def _passage(item: MemoryContent) -> Passage:
    return Passage(text=str(item.content), **(item.metadata or {}))


def _finished(text: str, data: Mapping[str, str]) -> RunFinished:
    values: dict[str, Any] = {
        "answer": text if data["answered"] == "True" else "",
        "stop_reason": data["stop_reason"],
        "best_round": int(data["best_round"]),
        "integrated": data["integrated"] == "True",
        "usage": {name: int(data[f"tokens_{name}"]) for name in ("prompt", "cached", "generated")},
        "seconds": float(data["seconds"]),
        "error": data.get("error", ""),
    }
    finished = from_json({"event": "RunFinished", **values})
    assert isinstance(finished, RunFinished)
    return finished
