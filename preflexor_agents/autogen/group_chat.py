"""The recursive reflect-and-improve group chat: a real AutoGen team whose manager asks the protocol who speaks."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from autogen_agentchat.base import ChatAgent, TaskResult, Team, TerminationCondition
from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage, MessageFactory, StopMessage
from autogen_agentchat.teams import BaseGroupChat
from autogen_agentchat.teams._group_chat._base_group_chat_manager import BaseGroupChatManager
from autogen_agentchat.teams._group_chat._events import GroupChatTermination
from autogen_core import CancellationToken

from preflexor_agents.autogen.agents import RoleAgent, Setup
from preflexor_agents.autogen.transcript import Transcript, told
from preflexor_agents.config import ReflectConfig
from preflexor_agents.events import Role, RunFinished, from_json, to_json
from preflexor_agents.reflection.perform import Cast, Control, Library
from preflexor_agents.reflection.protocol import next_step, role_of

Message = BaseAgentEvent | BaseChatMessage


class RunEnd(TerminationCondition):
    """Ends the chat when a participant tells that the run has finished."""

    def __init__(self) -> None:
        self._over = False

    @property
    def terminated(self) -> bool:
        """Whether the run has finished."""
        return self._over

    async def __call__(self, messages: Sequence[Message]) -> StopMessage | None:
        """The stop reason, once there is one."""
        for message in messages:
            for event in told(message):
                if isinstance(event, RunFinished):
                    self._over = True
                    return StopMessage(content=event.stop_reason, source="protocol")
        return None

    async def reset(self) -> None:
        """Wait for the next run's end."""
        self._over = False


class ReflectionGroupChatManager(BaseGroupChatManager):
    """Gives the floor to the role that the protocol names next."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._transcript = Transcript()
        self._last = ""

    async def validate_group_state(self, messages: list[BaseChatMessage] | None) -> None:
        """Anything may be asked."""

    async def update_message_thread(self, messages: Sequence[Message]) -> None:
        """Fold what was said."""
        await super().update_message_thread(messages)
        for message in messages:
            self._transcript.read(message)

    async def select_speaker(self, thread: Sequence[Message]) -> list[str] | str:
        """The role of the protocol's next step; a decision goes to whoever spoke last."""
        state, started = self._transcript.state, self._transcript.started
        step = (
            None if state is None or started is None else next_step(state, elapsed_s=time.time() - started.started_at)
        )
        role = None if step is None else role_of(step)
        if role is None:
            first: Role = "librarian" if "librarian" in self._participant_names else "thinker"
            self._last = self._last or first
            return self._last
        if role not in self._participant_names:
            raise ValueError(f"the team has no {role}; add a participant of that name")
        self._last = role
        return role

    async def reset(self) -> None:
        """Forget the run."""
        self._current_turn = 0
        self._message_thread.clear()
        self._transcript = Transcript()
        self._last = ""
        if self._termination_condition is not None:
            await self._termination_condition.reset()

    async def save_state(self) -> Mapping[str, Any]:
        """The run as heard so far, as JSON values."""
        t = self._transcript
        return {"version": 1, "question": t.question, "last": self._last, "events": [to_json(e) for e in t.heard]}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a saved run."""
        await self.reset()
        self._transcript.question, self._last = state["question"], state["last"]
        for item in state["events"]:
            self._transcript.take(from_json(item))


class ReflectionGroupChat(BaseGroupChat):
    """Thinker, critic, reviser, judge, integrator and librarian in one recursive group chat.

    A participant's name is its role. Streams built-in message types only; `transcript.watched` turns a streamed
    message back into the event it carries.
    """

    def __init__(self, participants: Sequence[ChatAgent], *, control: Control | None = None) -> None:
        everyone: list[ChatAgent | Team] = list(participants)
        super().__init__(
            name="reflection",
            description="A recursive reflect-and-improve group chat.",
            participants=everyone,
            group_chat_manager_name="ReflectionGroupChatManager",
            group_chat_manager_class=ReflectionGroupChatManager,
            termination_condition=RunEnd(),
        )
        self._control = control or Control()

    def run_stream(
        self,
        *,
        task: str | BaseChatMessage | Sequence[BaseChatMessage] | None = None,
        cancellation_token: CancellationToken | None = None,
        output_task_messages: bool = True,
    ) -> AsyncGenerator[Message | TaskResult, None]:
        """Answer a question; see `BaseGroupChat.run_stream`. A stop of the run before is forgotten."""
        self._control.stop.clear()
        return super().run_stream(
            task=task, cancellation_token=cancellation_token, output_task_messages=output_task_messages
        )

    def _create_group_chat_manager_factory(
        self,
        name: str,
        group_topic_type: str,
        output_topic_type: str,
        participant_topic_types: list[str],
        participant_names: list[str],
        participant_descriptions: list[str],
        output_message_queue: asyncio.Queue[BaseAgentEvent | BaseChatMessage | GroupChatTermination],
        termination_condition: TerminationCondition | None,
        max_turns: int | None,
        message_factory: MessageFactory,
    ) -> Callable[[], ReflectionGroupChatManager]:
        return lambda: ReflectionGroupChatManager(
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
            self._emit_team_events,
        )


def reflection_team(
    cast: Cast,
    *,
    config: ReflectConfig,
    library: Library | None = None,
    store: str | None = None,
    control: Control | None = None,
) -> ReflectionGroupChat:
    """The standard team: one `RoleAgent` for every role in the cast, and a librarian if there is a library.

    Args:
        cast: a backend for each role.
        config: the protocol and its budgets.
        library: the knowledge store, if any.
        store: its path, for the record.
        control: stop or steer the run from outside.
    """
    setup = Setup(cast=cast, config=config, library=library, store=store, control=control or Control())
    roles: list[Role] = list(cast)
    if library is not None:
        roles.append("librarian")
    return ReflectionGroupChat([RoleAgent(role, setup) for role in roles], control=setup.control)
