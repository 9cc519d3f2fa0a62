"""One AutoGen agent that answers in rounds of thinking, critique and revision, and sends its peers the answer only."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Self

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response, TaskResult
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken, Component
from pydantic import Field

from preflexor_agents.autogen.casting import Casting, Player, as_role, everybody
from preflexor_agents.autogen.fields import ComponentConfig, PlayerField, player_field, protocol
from preflexor_agents.autogen.playing import Table, coalesced, play, stopped_by
from preflexor_agents.autogen.transcript import ChatItem, Emit, Teller, Transcript, conversation, lines_of
from preflexor_agents.config import ReflectConfig
from preflexor_agents.errors import InputError, PreflexorError
from preflexor_agents.events import Event, RunFinished, TextDelta
from preflexor_agents.reflection.perform import Control, Library

DESCRIPTION = "Answers questions in rounds of thinking, critique and revision, and keeps the better answer."
STATE = {"type": "ReflectAgentState", "version": "1.0.0"}
CONTEXT_TOK = 8192
"""Assumed where no model in the cast tells its context."""


class ReflectAgentConfig(ComponentConfig):
    """Config of a `ReflectAgent`."""

    name: str
    description: str = DESCRIPTION
    model: PlayerField | None = None
    """Who plays every role that is not in `roles`."""
    roles: dict[str, PlayerField] = Field(default_factory=dict)
    """Role -> who plays it."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of `ReflectConfig`; what is not given is the preset's."""
    store: str | None = None
    """Path of a knowledge store, or `bundled` for the bundled notes."""
    emit: Emit = "events"


class ReflectAgent(BaseChatAgent, Component[ReflectAgentConfig]):
    """Runs the reflection protocol by itself; fits wherever a `ChatAgent` does.

    Stages are streamed as agent events whose metadata tells stage, role, round, candidate and score; text is streamed
    as it is written (of several candidates, the first one's). Each model call's usage is on one message. A cancelled
    token gives the best answer so far as a normal response. `on_messages` without new messages goes on with a run
    that was saved or interrupted, from its last finished step.
    """

    component_config_schema = ReflectAgentConfig
    component_provider_override = "preflexor_agents.autogen.ReflectAgent"

    def __init__(
        self,
        name: str,
        model: Player | None = None,
        *,
        roles: Mapping[str, Player] | None = None,
        config: ReflectConfig | None = None,
        library: Library | None = None,
        store: str | None = None,
        description: str = DESCRIPTION,
        emit: Emit = "events",
        control: Control | None = None,
    ) -> None:
        """Make an agent; models named by SPEC are opened at its first run.

        Args:
            name: of the agent, a Python identifier.
            model: who plays every role: a model SPEC, a backend, a client.
            roles: who plays single roles instead; here any `ChatAgent` will do as well. Each call that it gets holds
                what its role needs and starts from a clean slate.
            config: the protocol and its budgets.
            library: an open knowledge store.
            store: its path; alone, it is opened at the first run.
            description: for teams that choose speakers by it.
            emit: `messages` shows stages as text messages, for hosts whose screens leave events out.
            control: stop or steer the run from outside.

        Raises:
            ConfigError: an unknown role or SPEC, a missing file, nobody for a role that the protocol needs.
        """
        super().__init__(name=name, description=description)
        config = config or ReflectConfig()
        named = {as_role(role, where="roles"): player for role, player in (roles or {}).items()}
        casting = Casting(everybody(model, named, config=config), library=library, store=store)
        self._table = Table(casting=casting, config=config, emit=emit, control=control or Control())
        self._model, self._roles = model, named
        self._running: AsyncGenerator[ChatItem | Response, None] | None = None
        self._history: list[tuple[str, str]] = []
        self._seen: dict[str, None] = {}
        self._forget()

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        """The answer is plain text."""
        return (TextMessage,)

    @property
    def control(self) -> Control:
        """Stops or steers the run."""
        return self._table.control

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        """Answer what the new messages ask; see `on_messages_stream`."""
        async with aclosing(self.on_messages_stream(messages, cancellation_token)) as items:
            async for item in items:
                if isinstance(item, Response):
                    return item
        raise RuntimeError("the stream ended without a response")

    async def on_messages_stream(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> AsyncGenerator[ChatItem | Response, None]:
        """Answer what the new messages ask, streaming what happens; the last item is the response.

        Raises:
            PreflexorError: it is answering already, or a model or the store cannot be opened.
        """
        if self._running is not None:
            raise PreflexorError(f"{self.name} is answering already; wait for it, or make a second agent")
        items = self._respond(messages, cancellation_token)
        self._running = items
        try:
            async for item in items:
                yield item
        finally:
            await items.aclose()
            if self._running is items:
                self._running = None

    async def run_stream(
        self,
        *,
        task: str | BaseChatMessage | Sequence[BaseChatMessage] | None = None,
        cancellation_token: CancellationToken | None = None,
        output_task_messages: bool = True,
    ) -> AsyncGenerator[ChatItem | TaskResult, None]:
        """Answer a task; see `BaseChatAgent.run_stream`. Leaving the stream early ends the run at once."""
        option = {} if output_task_messages else {"output_task_messages": False}  # unknown before AutoGen 0.7
        items = super().run_stream(task=task, cancellation_token=cancellation_token, **option)
        try:
            async for item in items:
                yield item
        except GeneratorExit:
            running, self._running = self._running, None
            if running is not None:
                await running.aclose()
            raise
        finally:
            await items.aclose()

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Forget the conversation and the run."""
        self._forget()
        self._table.pauses.end()

    async def on_pause(self, cancellation_token: CancellationToken) -> None:
        """Hold the run before its next step; the pause does not count against its budget."""
        self._table.pauses.begin()

    async def on_resume(self, cancellation_token: CancellationToken) -> None:
        """Let the run go on."""
        self._table.pauses.end()

    async def save_state(self) -> Mapping[str, Any]:
        """The conversation and the run so far, as JSON values; may be called in the middle of a run."""
        return {
            **STATE,
            "history": [list(line) for line in self._history],
            "seen": list(self._seen),
            "begun": self._begun,
            "transcript": self._transcript.to_json(),
            "answer": {"content": self._answer.content, "metadata": dict(self._answer.metadata)},
            "saved_at": time.time(),
            "pauses": [list(span) for span in self._table.pauses.spans],
        }

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `save_state` gave; the time since then does not count against the run's budget.

        Raises:
            InputError: it is not the state of such an agent.
        """
        if {name: state.get(name) for name in STATE} != STATE:
            raise InputError(f"{self.name} cannot load a state of type {state.get('type')!r} {state.get('version')}")
        self._history = [(source, text) for source, text in state["history"]]
        self._seen = dict.fromkeys(state["seen"])
        self._begun = state["begun"]
        self._transcript = Transcript.from_json(state["transcript"])
        self._answer = TextMessage(source=self.name, **state["answer"])
        spans = [(begun, until) for begun, until in state["pauses"]]
        self._table.pauses.spans[:] = [*spans, (state["saved_at"], time.time())]

    async def close(self) -> None:
        """Let go of the models and the store that the agent has opened; another run opens them again."""
        await self._table.casting.close()

    @property
    def _over(self) -> bool:
        """Whether the last run has come to its end."""
        state = self._transcript.state
        return state is not None and state.finished is not None

    def _forget(self) -> None:
        self._history.clear()
        self._seen.clear()
        self._begun = 0
        self._transcript = Transcript()
        self._answer = TextMessage(content="Nothing was asked.", source=self.name)

    async def _respond(
        self, messages: Sequence[BaseChatMessage], token: CancellationToken
    ) -> AsyncGenerator[ChatItem | Response, None]:
        """Take in the messages and go on with the run until it is over."""
        self._table.control.stop.clear()
        await self._hear(messages)
        if self._transcript.question is None or self._over:
            yield Response(chat_message=self._answer)
            return
        teller = Teller(self.name, emit=self._table.emit)
        inner: list[ChatItem] = []
        with stopped_by(token, self._table.control), self._table.spans.run(self.name):
            async with aclosing(coalesced(self._shown())) as events:
                async for event in events:
                    message = teller.live(event)
                    if isinstance(message, TextMessage) and isinstance(event, RunFinished):
                        self._answer = message
                        self._history.append((self.name, message.content))
                        break
                    if not isinstance(event, TextDelta):
                        inner.append(message)
                    yield message
        yield Response(chat_message=self._answer, inner_messages=inner)

    async def _shown(self) -> AsyncGenerator[Event, None]:
        """The run's events, without the text of candidates that are written side by side with the first one."""
        async with aclosing(play(self._transcript, self._table)) as events:
            async for event in events:
                if not isinstance(event, TextDelta) or event.candidate == 0:
                    yield event

    async def _hear(self, messages: Sequence[BaseChatMessage]) -> None:
        """Take in what is new; it ends an unfinished run and begins another."""
        keys = {self._key(m): m for m in messages}
        lines = lines_of([m for key, m in keys.items() if key not in self._seen])
        self._seen.update(dict.fromkeys(keys))
        if not lines:
            return
        earlier = await self._earlier()
        self._begun = len(self._history)
        self._history += lines
        self._transcript = Transcript()
        self._transcript.question = conversation([*earlier, *lines])

    def _key(self, message: BaseChatMessage) -> str:
        """Names a message. Before AutoGen 0.6 they have no ids: there only an interrupted question is known again."""
        key: str | None = getattr(message, "id", None)
        if key is not None:
            return key
        interrupted = self._transcript.question is not None and not self._over
        at = self._begun if interrupted else len(self._history)
        return f"{at}:{message.source}:{message.to_model_text()}"

    async def _earlier(self) -> list[tuple[str, str]]:
        """The end of the conversation so far, as much as a quarter of the smallest context holds."""
        if not self._history:
            return []
        cast = await self._table.casting.open()
        context_tok = min((b.context_tok for b in cast.values() if b.context_tok), default=CONTEXT_TOK)
        room_chars = context_tok * 3 // 4  # at about three characters a token
        kept: list[tuple[str, str]] = []
        for who, what in reversed(self._history):
            room_chars -= len(who) + len(what) + 2
            if room_chars < 0:
                break
            kept.insert(0, (who, what))
        return kept

    def _to_config(self) -> ReflectAgentConfig:
        return ReflectAgentConfig(
            name=self.name,
            description=self.description,
            model=None if self._model is None else player_field(self._model, where="model"),
            roles={role: player_field(player, where=f"roles.{role}") for role, player in self._roles.items()},
            config=asdict(self._table.config),
            store=self._table.casting.store,
            emit=self._table.emit,
        )

    @classmethod
    def _from_config(cls, config: ReflectAgentConfig) -> Self:
        return cls(
            config.name,
            config.model,
            roles=config.roles,
            config=protocol(config.config),
            store=config.store,
            description=config.description,
            emit=config.emit,
        )
