"""Conditions that end a chat by what runs tell in their messages' metadata; combine them with `|` and `&`.

They read the messages of `ReflectAgent` and `ReflectionGroupChat` in any team, and serve inside a
`ReflectionGroupChat` as well.
"""

import time
from collections.abc import Sequence
from typing import Self

from autogen_agentchat.base import TerminatedException, TerminationCondition
from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage, StopMessage
from autogen_core import Component

from preflexor_agents.autogen.fields import ComponentConfig
from preflexor_agents.autogen.transcript import TURN, told
from preflexor_agents.errors import ConfigError
from preflexor_agents.events import RunFinished

Messages = Sequence[BaseAgentEvent | BaseChatMessage]


class RunEnd(TerminationCondition):
    """Ends a `ReflectionGroupChat` when a participant tells that the run has finished. Part of every such team."""

    def __init__(self) -> None:
        self._over = False

    @property
    def terminated(self) -> bool:
        """Whether the run has finished."""
        return self._over

    async def __call__(self, messages: Messages) -> StopMessage | None:
        """The stop reason, once there is one."""
        for message in messages:
            if not isinstance(message, BaseChatMessage) or TURN not in message.metadata:
                continue
            for event in told(message).events:
                if isinstance(event, RunFinished):
                    self._over = True
                    return StopMessage(content=event.stop_reason, source="protocol")
        return None

    async def reset(self) -> None:
        """Wait for the next run's end."""
        self._over = False


class ConvergenceConfig(ComponentConfig):
    """Config of a `ConvergenceTermination`: nothing."""


class ConvergenceTermination(TerminationCondition, Component[ConvergenceConfig]):
    """Ends the chat when a run has converged: nothing was found to change, or a revision changed nothing."""

    component_config_schema = ConvergenceConfig
    component_provider_override = "preflexor_agents.autogen.ConvergenceTermination"

    def __init__(self) -> None:
        self._terminated = False

    @property
    def terminated(self) -> bool:
        """Whether a run has converged."""
        return self._terminated

    async def __call__(self, messages: Messages) -> StopMessage | None:
        """Look for a round or a run that says it has converged."""
        if self._terminated:
            raise TerminatedException("a run has converged already; reset the condition")
        for message in messages:
            data = message.metadata
            if data.get("converged") == "True" or data.get("stop_reason") == "converged":
                self._terminated = True
                return StopMessage(content=f"{message.source} has converged", source="ConvergenceTermination")
        return None

    async def reset(self) -> None:
        """Wait for the next run to converge."""
        self._terminated = False

    def _to_config(self) -> ConvergenceConfig:
        return ConvergenceConfig()

    @classmethod
    def _from_config(cls, config: ConvergenceConfig) -> Self:
        return cls()


class ScoreConfig(ComponentConfig):
    """Config of a `ScoreTermination`."""

    threshold: float
    """Share of the judge's comparisons that an answer must win."""


class ScoreTermination(TerminationCondition, Component[ScoreConfig]):
    """Ends the chat when an answer's score reaches a threshold.

    A score is the share of the judge's blind comparisons that a new answer won against the one before; 1.0 is all.
    """

    component_config_schema = ScoreConfig
    component_provider_override = "preflexor_agents.autogen.ScoreTermination"

    def __init__(self, threshold: float) -> None:
        """Set the score that is enough.

        Raises:
            ConfigError: it is not above 0 and at most 1.
        """
        if not 0 < threshold <= 1:
            raise ConfigError(f"threshold is {threshold!r}; it must be more than 0 and at most 1")
        self.threshold = threshold
        self._terminated = False

    @property
    def terminated(self) -> bool:
        """Whether the threshold has been reached."""
        return self._terminated

    async def __call__(self, messages: Messages) -> StopMessage | None:
        """Look for a score that is high enough."""
        if self._terminated:
            raise TerminatedException("the score has been reached already; reset the condition")
        for message in messages:
            score = _number(message.metadata.get("score"))
            if score is not None and score >= self.threshold:
                self._terminated = True
                return StopMessage(
                    content=f"{message.source} scored {score:g}, at least {self.threshold:g}", source="ScoreTermination"
                )
        return None

    async def reset(self) -> None:
        """Wait for the next score."""
        self._terminated = False

    def _to_config(self) -> ScoreConfig:
        return ScoreConfig(threshold=self.threshold)

    @classmethod
    def _from_config(cls, config: ScoreConfig) -> Self:
        return cls(config.threshold)


class BudgetConfig(ComponentConfig):
    """Config of a `BudgetTermination`."""

    tokens: int | None = None
    """Most tokens generated, over all models whose messages tell their usage."""
    seconds: float | None = None
    """Most seconds since the chat's first message."""


class BudgetTermination(TerminationCondition, Component[BudgetConfig]):
    """Ends the chat when a number of tokens is generated or a time has passed, whichever comes first.

    It looks between turns. The budget of a single run is `ReflectConfig.budget_tok` and `budget_s`, kept to the token.
    """

    component_config_schema = BudgetConfig
    component_provider_override = "preflexor_agents.autogen.BudgetTermination"

    def __init__(self, *, tokens: int | None = None, seconds: float | None = None) -> None:
        """Set the limits; one of them is enough.

        Raises:
            ConfigError: neither is given, or one is not more than 0.
        """
        if tokens is None and seconds is None:
            raise ConfigError("a budget needs tokens or seconds")
        for name, value in (("tokens", tokens), ("seconds", seconds)):
            if value is not None and value <= 0:
                raise ConfigError(f"{name} is {value!r}; it must be more than 0")
        self.tokens, self.seconds = tokens, seconds
        self._generated = 0
        self._began: float | None = None
        self._terminated = False

    @property
    def terminated(self) -> bool:
        """Whether the budget is spent."""
        return self._terminated

    async def __call__(self, messages: Messages) -> StopMessage | None:
        """Count what the messages took."""
        if self._terminated:
            raise TerminatedException("the budget is spent; reset the condition")
        if self._began is None:
            self._began = time.monotonic()
        self._generated += sum(m.models_usage.completion_tokens for m in messages if m.models_usage is not None)
        passed_s = time.monotonic() - self._began
        spent = ""
        if self.tokens is not None and self._generated >= self.tokens:
            spent = f"{self._generated} of {self.tokens} tokens are generated"
        elif self.seconds is not None and passed_s >= self.seconds:
            spent = f"{passed_s:.1f} of {self.seconds:g} seconds have passed"
        if not spent:
            return None
        self._terminated = True
        return StopMessage(content=spent, source="BudgetTermination")

    async def reset(self) -> None:
        """Count from the beginning."""
        self._generated, self._began, self._terminated = 0, None, False

    def _to_config(self) -> BudgetConfig:
        return BudgetConfig(tokens=self.tokens, seconds=self.seconds)

    @classmethod
    def _from_config(cls, config: BudgetConfig) -> Self:
        return cls(tokens=config.tokens, seconds=config.seconds)


def _number(text: str | None) -> float | None:
    """The number that a label holds; other agents may use the same label for something else."""
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
