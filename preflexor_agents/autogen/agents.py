"""The roles of the reflection protocol as AutoGen chat agents."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken, Component

from preflexor_agents.autogen.casting import Player, as_role, check_player
from preflexor_agents.autogen.fields import ComponentConfig, PlayerField, player_field
from preflexor_agents.autogen.playing import Table, coalesced, play, stopped_by
from preflexor_agents.autogen.transcript import ChatItem, Teller, Transcript, turn_message
from preflexor_agents.errors import ConfigError
from preflexor_agents.events import Role, TextDelta

DESCRIPTIONS: dict[Role, str] = {
    "thinker": "Thinks in the open and answers the question.",
    "critic": "Checks the draft against the passages and says what is wrong.",
    "reviser": "Rewrites the thinking so that it heeds the critique.",
    "judge": "Compares two answers without knowing whose they are.",
    "integrator": "Merges the answers into one.",
    "librarian": "Searches the knowledge store and finds the quotes an answer stands on.",
}


class RoleAgentConfig(ComponentConfig):
    """Config of a `RoleAgent`."""

    role: str
    """thinker, critic, reviser, judge, integrator or librarian."""
    player: PlayerField | None = None
    """A model SPEC, or a component that loads as a client or as another agent. Default: the team's model."""


class RoleAgent(BaseChatAgent, Component[RoleAgentConfig]):
    """One role in a `ReflectionGroupChat`.

    It folds what its peers tell it, asks the protocol for its step, does it, and tells the peers. Whoever plays the
    role sees the prompt of the step alone, not the chat.
    """

    component_config_schema = RoleAgentConfig
    component_provider_override = "preflexor_agents.autogen.RoleAgent"

    def __init__(self, role: str, player: Player | None = None, *, description: str | None = None) -> None:
        """Take a role.

        Args:
            role: also the agent's name.
            player: who plays it: a model SPEC, a backend, a client, another agent. Default: the team's model.
            description: for the team. Default: what the role does.

        Raises:
            ConfigError: the role or the player's SPEC is unknown.
        """
        self.role: Role = as_role(role, where="role")
        if player is not None:
            check_player(role, player)
        super().__init__(name=self.role, description=description or DESCRIPTIONS[self.role])
        self.player = player
        self._table: Table | None = None
        self._transcript = Transcript()

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        """The final message of a turn is plain text."""
        return (TextMessage,)

    def join(self, table: Table) -> None:
        """Sit down with the other players of a run; `ReflectionGroupChat` calls it."""
        self._table = table

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        """Do this role's next step; see `on_messages_stream`."""
        async with aclosing(self.on_messages_stream(messages, cancellation_token)) as items:
            async for item in items:
                if isinstance(item, Response):
                    return item
        raise RuntimeError("the stream ended without a response")

    async def on_messages_stream(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> AsyncGenerator[ChatItem | Response, None]:
        """Do this role's next step and the decisions around it, streaming what happens.

        A cancelled token ends the run with the best answer so far, as a normal response: an agent that raised
        instead would leave the team unable to go on.

        Raises:
            ConfigError: it is not in a `ReflectionGroupChat`.
        """
        table, transcript = self._table, self._transcript
        if table is None:
            raise ConfigError(f"the {self.role} plays only in a ReflectionGroupChat; put it among its participants")
        transcript.read(messages)
        teller = Teller(self.name, emit=table.emit)
        inner: list[ChatItem] = []
        heard = len(transcript.heard)
        with stopped_by(cancellation_token, table.control):
            async with aclosing(coalesced(play(transcript, table, role=self.role))) as events:
                async for event in events:
                    message = teller.live(event)
                    if not isinstance(event, TextDelta):
                        inner.append(message)
                    yield message
        # Whoever is asked to speak and has nothing to do knows more than the others: they need to hear it all.
        turn = transcript.tell(again=len(transcript.heard) == heard)
        yield Response(chat_message=turn_message(turn, source=self.name), inner_messages=inner)

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Forget the run."""
        self._transcript = Transcript()

    async def on_pause(self, cancellation_token: CancellationToken) -> None:
        """Hold the run before its next step; the pause does not count against its budget."""
        if self._table is not None:
            self._table.pauses.begin()

    async def on_resume(self, cancellation_token: CancellationToken) -> None:
        """Let the run go on."""
        if self._table is not None:
            self._table.pauses.end()

    async def save_state(self) -> Mapping[str, Any]:
        """The run as heard so far, as JSON values."""
        return {"type": "RoleAgentState", "version": "1.0.0", "transcript": self._transcript.to_json()}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a saved run."""
        self._transcript = Transcript.from_json(state["transcript"])

    async def close(self) -> None:
        """Let the models go that the team opened; another run opens them again."""
        if self._table is not None:
            await self._table.casting.close()

    def _to_config(self) -> RoleAgentConfig:
        player = None if self.player is None else player_field(self.player, where=self.role)
        return RoleAgentConfig(role=self.role, player=player)

    @classmethod
    def _from_config(cls, config: RoleAgentConfig) -> Self:
        return cls(config.role, config.player)
