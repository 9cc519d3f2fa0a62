"""The recursive reflect-and-improve group chat: a real AutoGen team whose manager asks the protocol who speaks.

Needs AutoGen 0.7: earlier versions make teams differently. `ReflectAgent` runs the same protocol on 0.5.7 as well.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Self

from autogen_agentchat.base import ChatAgent, TaskResult, Team, TerminationCondition
from autogen_agentchat.messages import BaseChatMessage, MessageFactory, ModelClientStreamingChunkEvent, TextMessage
from autogen_agentchat.teams import BaseGroupChat
from autogen_agentchat.teams._group_chat._events import GroupChatTermination
from autogen_core import AgentRuntime, CancellationToken, Component, ComponentModel
from pydantic import Field

from preflexor_agents.autogen.agents import RoleAgent
from preflexor_agents.autogen.casting import Casting, Player, as_role, everybody
from preflexor_agents.autogen.fields import ComponentConfig, PlayerField, player_field, protocol
from preflexor_agents.autogen.group_chat_manager import ReflectionGroupChatManager
from preflexor_agents.autogen.playing import Table, stopped_by
from preflexor_agents.autogen.terminations import RunEnd
from preflexor_agents.autogen.transcript import TURN, ChatItem, Emit, Transcript, turn_message
from preflexor_agents.config import ReflectConfig
from preflexor_agents.errors import ConfigError, InputError
from preflexor_agents.events import ROLES, Role
from preflexor_agents.reflection.perform import Cast, Control, Library

DESCRIPTION = "Answers a question in rounds of thinking, critique and revision, and keeps the better answer."


class ReflectionGroupChatConfig(ComponentConfig):
    """Config of a `ReflectionGroupChat`."""

    name: str = "reflection"
    description: str = DESCRIPTION
    model: PlayerField | None = None
    """Who plays the roles that no participant plays."""
    participants: list[ComponentModel] = Field(default_factory=list)
    """Agents named after the role that they play."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of `ReflectConfig`; what is not given is the preset's."""
    store: str | None = None
    """Path of a knowledge store, or `bundled` for the bundled notes."""
    emit: Emit = "events"
    termination_condition: ComponentModel | None = None
    max_turns: int | None = None


class ReflectionGroupChat(BaseGroupChat, Component[ReflectionGroupChatConfig]):
    """Thinker, critic, reviser, judge, integrator and librarian in one recursive group chat.

    Every role is a chat agent of its own. Streams built-in message types only, the answer as one `TextMessage` in
    the team's name; `transcript.watched` turns a streamed message back into the event it carries. A cancelled token
    ends the run with the best answer so far. `run()` without a task goes on with a run that was saved or interrupted.
    """

    component_config_schema = ReflectionGroupChatConfig
    component_provider_override = "preflexor_agents.autogen.ReflectionGroupChat"

    def __init__(
        self,
        participants: Sequence[ChatAgent] = (),
        *,
        model: Player | None = None,
        config: ReflectConfig | None = None,
        library: Library | None = None,
        store: str | None = None,
        name: str = "reflection",
        description: str = DESCRIPTION,
        emit: Emit = "events",
        termination_condition: TerminationCondition | None = None,
        max_turns: int | None = None,
        runtime: AgentRuntime | None = None,
        control: Control | None = None,
    ) -> None:
        """Gather a team.

        Args:
            participants: agents named after the role they play; any `ChatAgent` will do. Each call that it gets
                holds what its role needs (the critic: question, thinking, evidence) and starts from a clean slate.
            model: plays every other role: a model SPEC, a backend, a client.
            config: the protocol and its budgets.
            library: an open knowledge store.
            store: its path; alone, it is opened at the first run.
            name: of the team.
            description: of the team.
            emit: `messages` shows stages as text messages, for hosts whose screens leave events out.
            termination_condition: ends the chat before the run is over; sees the participants' own messages.
            max_turns: most turns of participants in one run.
            runtime: an AutoGen runtime to live in. Default: one of its own.
            control: stop or steer the run from outside.

        Raises:
            ConfigError: an unknown role, two participants of one name, nobody for a role that the protocol needs,
                or an AutoGen before 0.7.
        """
        if not hasattr(BaseGroupChat, "name"):
            raise ConfigError("a ReflectionGroupChat needs AutoGen 0.7; ReflectAgent runs the protocol on earlier ones")
        config = config or ReflectConfig()
        seats = _seats(participants)
        players = {role: agent.player for role, agent in seats.items() if agent.player is not None}
        casting = Casting(everybody(model, players, config=config), library=library, store=store)
        roles: list[Role] = [*casting.players, *(("librarian",) if casting.has_library else ())]
        everyone: list[ChatAgent | Team] = [seats.get(role) or RoleAgent(role) for role in roles]
        self._table = Table(casting=casting, config=config, emit=emit, control=control or Control())
        for agent in everyone:
            assert isinstance(agent, RoleAgent)
            agent.join(self._table)
        self._model, self._given, self._termination = model, tuple(participants), termination_condition
        self._manager: ReflectionGroupChatManager | None = None
        self._answer: TextMessage | None = None
        super().__init__(
            name=name,
            description=description,
            participants=everyone,
            group_chat_manager_name="ReflectionGroupChatManager",
            group_chat_manager_class=ReflectionGroupChatManager,
            termination_condition=RunEnd() if termination_condition is None else RunEnd() | termination_condition,
            max_turns=max_turns,
            runtime=runtime,
        )

    async def run_stream(
        self,
        *,
        task: str | BaseChatMessage | Sequence[BaseChatMessage] | None = None,
        cancellation_token: CancellationToken | None = None,
        output_task_messages: bool = True,
    ) -> AsyncGenerator[ChatItem | TaskResult, None]:
        """Answer a question, streaming what happens; the result comes last. See `BaseGroupChat.run_stream`.

        A cancelled token ends the run with the best answer so far. Leaving the stream early ends it, too.
        """
        control = self._table.control
        control.stop.clear()
        await self._table.casting.open()
        if isinstance(task, Sequence) and not isinstance(task, str):
            task = list(task) or None
            if task is None and self._answer is not None and self._unfinished_business() is None:
                yield self._answer
                yield TaskResult(messages=[self._answer], stop_reason="nothing new was said")
                return
        if task is None:
            task = self._unfinished_business()
        shown: list[ChatItem] = []
        result = TaskResult(messages=[])
        self._answer = None
        stream = super().run_stream(task=task, output_task_messages=output_task_messages)
        with stopped_by(cancellation_token, control), self._table.spans.run(self.name):
            async with aclosing(_stopping(stream, control)) as items:
                async for item in items:
                    if isinstance(item, TaskResult):
                        result = item
                        continue
                    message = self._seen_outside(item)
                    if message is None:
                        continue
                    if not isinstance(message, ModelClientStreamingChunkEvent):
                        shown.append(message)
                    yield message
        if self._answer is None:
            self._answer = self._best_so_far()
            shown.append(self._answer)
            yield self._answer
        yield TaskResult(messages=shown, stop_reason=result.stop_reason)

    @property
    def control(self) -> Control:
        """Stops or steers the run."""
        return self._table.control

    def skip_time(self, since: float, until: float) -> None:
        """Leave a span of time (seconds since the epoch) out of the run's budget."""
        self._table.pauses.spans.append((since, until))

    def _unfinished_business(self) -> TextMessage | None:
        """What reminds everybody of the run to go on with: a state that was saved in the middle of a turn may hold
        participants who know more or less than the others. None if there is no such run.
        """
        transcript = self._manager.transcript if self._manager is not None else Transcript()
        if transcript.question is None or (transcript.state is not None and transcript.state.finished):
            return None
        return turn_message(transcript.tell(again=True), source="user")

    def _seen_outside(self, message: ChatItem) -> ChatItem | None:
        """A message as those outside the team see it: turns are for the peers, the answer is the team's."""
        if TURN in message.metadata:
            return None
        if isinstance(message, TextMessage) and message.source in ROLES and "answered" in message.metadata:
            self._answer = message.model_copy(update={"source": self.name})
            return self._answer
        return message

    def _best_so_far(self) -> TextMessage:
        """What there is to say where the chat was ended before the run was over."""
        state = self._manager.transcript.state if self._manager is not None else None
        if state is None or state.best is None:
            return TextMessage(content="No answer yet.", source=self.name)
        metadata = {"best_round": str(state.best.round), "rounds": str(state.round)}
        return TextMessage(content=state.best.answer, source=self.name, metadata=metadata)

    async def save_state(self) -> Mapping[str, Any]:
        """The run so far, as JSON values; may be called in the middle of one."""
        state = await super().save_state()
        return {**state, "saved_at": time.time(), "pauses": list(self._table.pauses.spans)}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a saved run; the time since then does not count against its budget.

        Raises:
            InputError: it is not the state of such a team.
        """
        if "saved_at" not in state:
            raise InputError(f"{self.name} can load only what a ReflectionGroupChat has saved")
        await super().load_state(state)
        spans = self._table.pauses.spans
        spans[:] = [*(tuple(span) for span in state["pauses"]), (state["saved_at"], time.time())]

    async def close(self) -> None:
        """Let go of the models and the store that the team has opened; another run opens them again."""
        await self._table.casting.close()

    def _create_group_chat_manager_factory(
        self,
        name: str,
        group_topic_type: str,
        output_topic_type: str,
        participant_topic_types: list[str],
        participant_names: list[str],
        participant_descriptions: list[str],
        output_message_queue: asyncio.Queue[ChatItem | GroupChatTermination],
        termination_condition: TerminationCondition | None,
        max_turns: int | None,
        message_factory: MessageFactory,
    ) -> Callable[[], ReflectionGroupChatManager]:
        def make() -> ReflectionGroupChatManager:
            self._manager = ReflectionGroupChatManager(
                name,
                group_topic_type,
                output_topic_type,
                participant_topic_types,
                participant_names,
                participant_descriptions,
                output_message_queue,
                termination_condition,
                max_turns,
                message_factory,
                pauses=self._table.pauses,
            )
            return self._manager

        return make

    def _to_config(self) -> ReflectionGroupChatConfig:
        end = self._termination
        return ReflectionGroupChatConfig(
            name=self.name,
            description=self.description,
            model=None if self._model is None else player_field(self._model, where="model"),
            participants=[agent.dump_component() for agent in self._given],
            config=asdict(self._table.config),
            store=self._table.casting.store,
            emit=self._table.emit,
            termination_condition=None if end is None else end.dump_component(),
            max_turns=self._max_turns,
        )

    @classmethod
    def _from_config(cls, config: ReflectionGroupChatConfig) -> Self:
        end = config.termination_condition
        return cls(
            [ChatAgent.load_component(agent) for agent in config.participants],
            model=config.model,
            config=protocol(config.config),
            store=config.store,
            name=config.name,
            description=config.description,
            emit=config.emit,
            termination_condition=None if end is None else TerminationCondition.load_component(end),
            max_turns=config.max_turns,
        )


def reflection_team(
    cast: Cast,
    *,
    config: ReflectConfig,
    library: Library | None = None,
    store: str | None = None,
    control: Control | None = None,
) -> ReflectionGroupChat:
    """The team over an open cast.

    Args:
        cast: a backend for each role.
        config: the protocol and its budgets.
        library: the knowledge store, if any.
        store: its path, for the record.
        control: stop or steer the run from outside.
    """
    players = [RoleAgent(role, backend) for role, backend in cast.items()]
    return ReflectionGroupChat(players, config=config, library=library, store=store, control=control)


async def _stopping(
    stream: AsyncGenerator[ChatItem | TaskResult, None], control: Control
) -> AsyncGenerator[ChatItem | TaskResult, None]:
    """The items of a team's stream. Leaving it, or being cancelled, stops the run; it would be waited for otherwise."""
    items: asyncio.Queue[ChatItem | TaskResult | None] = asyncio.Queue()

    async def read() -> None:
        try:
            async for item in stream:
                items.put_nowait(item)
        finally:
            items.put_nowait(None)

    reading = asyncio.create_task(read())
    try:
        while (item := await items.get()) is not None:
            yield item
        await reading
    finally:
        control.stop.set()
        await asyncio.wait([reading])
        if not reading.cancelled():
            reading.exception()  # raised above, or of no more interest


def _seats(participants: Sequence[ChatAgent]) -> dict[Role, RoleAgent]:
    """Who plays which role; an agent that is none of ours plays through one of ours."""
    seats: dict[Role, RoleAgent] = {}
    for agent in participants:
        role = as_role(agent.name, where="participants")
        if role in seats:
            raise ConfigError(f"participants: two of them are named {role!r}; a role has one player")
        seats[role] = agent if isinstance(agent, RoleAgent) else RoleAgent(role, agent, description=agent.description)
    return seats
