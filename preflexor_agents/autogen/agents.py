"""The roles of the reflection protocol as AutoGen chat agents."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage, TextMessage
from autogen_core import CancellationToken

from preflexor_agents.autogen.transcript import Transcript, live, turn_message
from preflexor_agents.config import ReflectConfig
from preflexor_agents.events import Event, Role, RunStarted, TextDelta, from_json, to_json
from preflexor_agents.reflection.engine import begin, turn
from preflexor_agents.reflection.perform import Cast, Control, Library
from preflexor_agents.reflection.protocol import next_step, role_of

DESCRIPTIONS: dict[Role, str] = {
    "thinker": "Thinks in the open and answers the question.",
    "critic": "Checks the draft against the passages and says what is wrong.",
    "reviser": "Rewrites the thinking so that it heeds the critique.",
    "judge": "Compares two answers without knowing whose they are.",
    "integrator": "Merges the answers into one.",
    "librarian": "Searches the knowledge store and finds the quotes an answer stands on.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the participants of one team share."""

    cast: Cast
    config: ReflectConfig
    library: Library | None = None
    store: str | None = None
    control: Control = field(default_factory=Control)

    def begin(self, question: str) -> RunStarted:
        """The first event of a run, told by whoever speaks first."""
        store = self.store if self.library is not None else None
        return begin(question, cast=self.cast, config=self.config, store=store)


class RoleAgent(BaseChatAgent):
    """One role. It folds what its peers tell it, asks the protocol for its step, does it, and tells it on."""

    def __init__(self, role: Role, setup: Setup) -> None:
        super().__init__(name=role, description=DESCRIPTIONS[role])
        self._role = role
        self._setup = setup
        self._transcript = Transcript()

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        """The final message of a turn is plain text."""
        return (TextMessage,)

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        """Do this role's next step; see `on_messages_stream`."""
        async for item in self.on_messages_stream(messages, cancellation_token):
            if isinstance(item, Response):
                return item
        raise RuntimeError("the stream ended without a response")

    async def on_messages_stream(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
        """Do this role's next step and the decisions around it, streaming what happens.

        A cancelled token ends the run with the best answer so far, as a normal response: an agent that raised
        instead would leave the team unable to go on.
        """
        for message in messages:
            self._transcript.read(message)
        loop, stop = asyncio.get_running_loop(), self._setup.control.stop

        def cancel() -> None:
            loop.call_soon_threadsafe(stop.set)

        cancellation_token.add_callback(cancel)
        told: list[Event] = []
        inner: list[BaseAgentEvent | BaseChatMessage] = []
        async with aclosing(self._turns()) as events:
            async for event in events:
                told_live = live(event, source=self.name)
                told.append(event)
                if not isinstance(event, TextDelta):
                    inner.append(told_live)
                yield told_live
        yield Response(chat_message=turn_message(told, source=self.name), inner_messages=inner)

    async def _turns(self) -> AsyncGenerator[Event, None]:
        """The events of one step of this role, with the decisions before and after it."""
        transcript, setup = self._transcript, self._setup
        if transcript.state is None:
            if transcript.question is None:
                return
            started = setup.begin(transcript.question)
            transcript.take(started)
            yield started
        performed = False
        while True:
            state, begun = transcript.state, transcript.started
            if state is None or begun is None:
                return
            step = next_step(state, cancelled=setup.control.stop.is_set())
            role = None if step is None else role_of(step)
            if step is None or (role is not None and (performed or role != self._role)):
                return
            performed = role is not None
            async with aclosing(
                turn(state, begun, cast=setup.cast, library=setup.library, control=setup.control)
            ) as events:
                async for event in events:
                    transcript.take(event)
                    yield event

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Forget the run."""
        self._transcript = Transcript()

    async def save_state(self) -> Mapping[str, Any]:
        """The run as heard so far, as JSON values."""
        t = self._transcript
        return {"version": 1, "question": t.question, "events": [to_json(e) for e in t.heard]}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a saved run."""
        self._transcript = Transcript()
        self._transcript.question = state["question"]
        for item in state["events"]:
            self._transcript.take(from_json(item))
