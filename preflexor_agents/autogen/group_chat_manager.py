"""The manager of the reflection group chat: gives the floor to the role that the protocol names next."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from autogen_agentchat.messages import BaseChatMessage
from autogen_agentchat.teams._group_chat._base_group_chat_manager import BaseGroupChatManager

from preflexor_agents.autogen.pauses import Pauses
from preflexor_agents.autogen.transcript import TURN, ChatItem, Transcript
from preflexor_agents.errors import ConfigError, InputError
from preflexor_agents.events import Role
from preflexor_agents.reflection.protocol import next_step
from preflexor_agents.reflection.steps import role_of


class ReflectionGroupChatManager(BaseGroupChatManager):
    """Gives the floor to the role that the protocol names next."""

    def __init__(self, *args: Any, pauses: Pauses) -> None:
        super().__init__(*args)
        self.transcript = Transcript()
        self._pauses = pauses
        self._last: tuple[str, int] = ("", -1)

    async def validate_group_state(self, messages: list[BaseChatMessage] | None) -> None:
        """Take in the question, or see that there is a run to go on with. Called at every start."""
        self._active_speakers.clear()  # what a run that broke off has left behind
        self._last = ("", -1)
        self.transcript.read(messages or [])
        state = self.transcript.state
        if self.transcript.question is None or (state is not None and state.finished):
            raise InputError("there is no run to go on with; give the team a task")

    async def update_message_thread(self, messages: Sequence[ChatItem]) -> None:
        """Hear what a turn told; the thread itself is not kept."""
        self.transcript.read([m for m in messages if isinstance(m, BaseChatMessage) and TURN in m.metadata])

    async def select_speaker(self, thread: Sequence[ChatItem]) -> list[str] | str:
        """The role of the protocol's next step; a decision goes to whoever spoke last."""
        transcript = self.transcript
        role: Role | None = None
        if transcript.state is not None and transcript.started is not None:
            started = self._pauses.without(transcript.started)
            step = next_step(transcript.state, elapsed_s=time.time() - started.started_at)
            role = None if step is None else role_of(step)
        first = "librarian" if "librarian" in self._participant_names else "thinker"
        speaker = role or self._last[0] or first
        if speaker not in self._participant_names:
            raise ConfigError(f"the team has no {speaker}; add a participant of that name")
        if self._last == (speaker, len(transcript.heard)):
            raise RuntimeError(f"the {speaker} was asked twice and did nothing")
        self._last = (speaker, len(transcript.heard))
        return speaker

    async def reset(self) -> None:
        """Forget the run."""
        self._current_turn = 0
        self._active_speakers.clear()
        self.transcript = Transcript()
        if self._termination_condition is not None:
            await self._termination_condition.reset()

    async def save_state(self) -> Mapping[str, Any]:
        """The run as heard so far, as JSON values."""
        return {
            "type": "ReflectionGroupChatManagerState",
            "version": "1.0.0",
            "current_turn": self._current_turn,
            "transcript": self.transcript.to_json(),
        }

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a saved run."""
        await self.reset()
        self._current_turn = state["current_turn"]
        self.transcript = Transcript.from_json(state["transcript"])
