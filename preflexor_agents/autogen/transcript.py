"""Events as AutoGen messages and back: a run can be rebuilt from the chat's own messages alone.

Only built-in message types are used; the event itself travels in `metadata`, which holds strings. A turn's last
message repeats the turn's events, because peers receive nothing else.
"""

import json
from collections.abc import Sequence
from typing import assert_never

from autogen_agentchat.messages import (
    BaseAgentEvent,
    BaseChatMessage,
    ModelClientStreamingChunkEvent,
    TextMessage,
    ThoughtEvent,
)
from autogen_core.models import RequestUsage

from preflexor_agents.events import (
    Cited,
    Event,
    Retrieved,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
    Steered,
    StepFailed,
    StepFinished,
    StepStarted,
    TextDelta,
    from_json,
    to_json,
)
from preflexor_agents.reflection.state import State, advance, said, start

EVENT, TURN = "preflexor.event", "preflexor.turn"


def live(event: Event, *, source: str) -> BaseAgentEvent:
    """The event as a message for whoever watches the stream."""
    metadata = {EVENT: json.dumps(to_json(event), ensure_ascii=False), **_labels(event)}
    if isinstance(event, TextDelta):
        return ModelClientStreamingChunkEvent(content=event.text, source=source, metadata=metadata)
    usage = None
    if isinstance(event, StepFinished):
        usage = RequestUsage(prompt_tokens=event.usage.prompt, completion_tokens=event.usage.generated)
    return ThoughtEvent(content=describe(event), source=source, metadata=metadata, models_usage=usage)


def turn_message(events: Sequence[Event], *, source: str) -> TextMessage:
    """The message that ends a turn and tells the peers what happened in it."""
    kept = [e for e in events if not isinstance(e, TextDelta)]
    turn = json.dumps([to_json(e) for e in kept], ensure_ascii=False)
    return TextMessage(content=_headline(kept), source=source, metadata={TURN: turn})


def watched(message: object) -> Event | None:
    """The event of a live message; None for any other."""
    if not isinstance(message, BaseAgentEvent):
        return None
    text = message.metadata.get(EVENT)
    return from_json(json.loads(text)) if text else None


def told(message: object) -> list[Event]:
    """The events that a turn's last message tells its peers."""
    if not isinstance(message, BaseChatMessage):
        return []
    text = message.metadata.get(TURN)
    return [from_json(item) for item in json.loads(text)] if text else []


class Transcript:
    """A run as one participant has heard it."""

    def __init__(self) -> None:
        self.question: str | None = None
        self.started: RunStarted | None = None
        self.state: State | None = None
        self.heard: list[Event] = []

    def read(self, message: object) -> None:
        """Take in a chat message: a peer's turn, or a new question from outside."""
        events = told(message)
        for event in events:
            self.take(event)
        over = self.state is None or self.state.finished is not None
        if not events and over and isinstance(message, BaseChatMessage):
            self.question, self.started, self.state, self.heard = message.to_text(), None, None, []

    def take(self, event: Event) -> None:
        """Fold one event."""
        if isinstance(event, RunStarted):
            self.started, self.state, self.heard = event, start(event), []
        elif self.state is not None:
            self.state = advance(self.state, event)
        if not isinstance(event, TextDelta):
            self.heard.append(event)


def describe(event: Event) -> str:
    """One line a person can read."""
    match event:
        case RunStarted():
            return f"Question: {event.question}"
        case RoundStarted():
            return f"Round {event.round}" + (f": {'; '.join(event.steering)}" if event.steering else "")
        case Steered():
            return f"The user adds: {event.text}"
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


def _headline(events: Sequence[Event]) -> str:
    """What a turn comes to: the run's answer, else what was said, else the last thing that happened."""
    for kind in (RunFinished, StepFinished, StepFailed, Retrieved):
        for event in reversed(events):
            if isinstance(event, kind):
                return describe(event) or "(nothing)"
    return describe(events[-1]) if events else "(nothing to do)"


def _labels(event: Event) -> dict[str, str]:
    names = ("stage", "role", "round", "candidate", "channel", "score", "accepted")
    found = {name: getattr(event, name, None) for name in names}
    return {name: str(value) for name, value in found.items() if value is not None}
