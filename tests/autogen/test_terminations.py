import json

import pytest
from autogen_agentchat.base import AndTerminationCondition, TerminatedException
from autogen_agentchat.conditions import MaxMessageTermination, SourceMatchTermination
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import RequestUsage

from preflexor_agents.autogen import terminations
from preflexor_agents.autogen.group_chat import ReflectionGroupChat
from preflexor_agents.autogen.loader import load_component
from preflexor_agents.autogen.reflect_agent import ReflectAgent
from preflexor_agents.autogen.terminations import BudgetTermination, ConvergenceTermination, ScoreTermination
from preflexor_agents.errors import ConfigError
from tests.autogen.hosts import Peer
from tests.autogen.voices import ANSWER, CONFIG, QUESTION, Voices, with_teams


def text(tokens: int = 0, **metadata: str) -> TextMessage:
    usage = RequestUsage(prompt_tokens=50, completion_tokens=tokens) if tokens else None
    return TextMessage(content="x", source="a", metadata=metadata, models_usage=usage)


SOUND = {"critique": "Fine. Verdict: sound"}


async def test_a_team_ends_when_the_agents_run_has_converged():
    team = RoundRobinGroupChat(
        [ReflectAgent("reflect", Voices(SOUND), config=CONFIG), Peer("peer")],
        termination_condition=ConvergenceTermination() | MaxMessageTermination(9),
    )
    result = await team.run(task=QUESTION)
    assert result.stop_reason == "reflect has converged"


async def test_a_run_that_has_not_converged_goes_on():
    team = RoundRobinGroupChat(
        [ReflectAgent("reflect", Voices(), config=CONFIG), Peer("peer")],
        termination_condition=ConvergenceTermination() | SourceMatchTermination(["peer"]),
    )
    assert "'peer' answered" in str((await team.run(task=QUESTION)).stop_reason)


@with_teams
async def test_a_score_ends_a_group_chat_with_the_answer_that_won_it():
    voices = Voices()
    team = ReflectionGroupChat(model=voices, config=CONFIG, termination_condition=ScoreTermination(0.9))
    result = await team.run(task=QUESTION)
    assert result.stop_reason == "judge scored 1, at least 0.9"
    assert result.messages[-1].to_text() == ANSWER and "integrate" not in voices.stages


@with_teams
async def test_a_score_below_the_threshold_does_not_end_it():
    team = ReflectionGroupChat(
        model=Voices({"judge": "no such words"}), config=CONFIG, termination_condition=ScoreTermination(0.9)
    )
    assert (await team.run(task=QUESTION)).stop_reason == "rounds"


async def test_a_score_label_of_somebody_else_is_left_alone():
    assert await ScoreTermination(0.5)([text(score="high"), text(score="0.4")]) is None


async def test_a_budget_of_tokens_ends_a_team_between_turns():
    team = RoundRobinGroupChat(
        [ReflectAgent("reflect", Voices(), config=CONFIG), Peer("peer")],
        termination_condition=BudgetTermination(tokens=10),
    )
    result = await team.run(task=QUESTION)
    assert "of 10 tokens are generated" in str(result.stop_reason) and result.messages[-1].source == "reflect"


async def test_a_budget_of_tokens_counts_over_turns_and_from_the_beginning_after_a_reset():
    condition = BudgetTermination(tokens=10)
    assert await condition([text(4)]) is None
    assert await condition([text(5)]) is None
    assert await condition([text(1)]) is not None
    await condition.reset()
    assert await condition([text(9)]) is None


async def test_a_budget_of_seconds_counts_from_the_first_message(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(terminations.time, "monotonic", lambda: now[0])
    condition = BudgetTermination(seconds=5)
    now[0] = 500.0
    assert await condition([text()]) is None
    now[0] = 504.0
    assert await condition([text()]) is None
    now[0] = 505.0
    stop = await condition([text()])
    assert stop is not None and stop.content == "5.0 of 5 seconds have passed"


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (ConvergenceTermination(), text(converged="True")),
        (ConvergenceTermination(), text(stop_reason="converged")),
        (ScoreTermination(1.0), text(score="1.0")),
        (BudgetTermination(tokens=3), text(3)),
    ],
)
async def test_a_condition_is_met_once_and_can_be_reset(condition, message):
    assert await condition([text()]) is None and not condition.terminated
    assert await condition([text(), message]) is not None and condition.terminated
    with pytest.raises(TerminatedException):
        await condition([message])
    await condition.reset()
    assert not condition.terminated and await condition([message]) is not None


async def test_conditions_combine_with_autogens_own():
    either = ScoreTermination(0.9) | MaxMessageTermination(3)
    assert await either([text(), text()]) is None
    assert "Maximum number of messages" in (await either([text()])).content
    both = ConvergenceTermination() & MaxMessageTermination(2)
    assert await both([text(converged="True")]) is None
    assert await both([text()]) is not None
    await both.reset()
    assert await both([text(), text()]) is None


@pytest.mark.parametrize(
    "condition",
    [ConvergenceTermination(), ScoreTermination(0.8), BudgetTermination(tokens=5), BudgetTermination(seconds=2.5)],
)
async def test_a_condition_comes_back_from_its_config(condition):
    whole = condition & MaxMessageTermination(1)
    dumped = json.loads(whole.dump_component().model_dump_json())
    assert dumped["config"]["conditions"][0]["provider"] == f"preflexor_agents.autogen.{type(condition).__name__}"
    loaded = load_component(dumped, expected=AndTerminationCondition)
    assert loaded.dump_component() == whole.dump_component()


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: ScoreTermination(0), "threshold is 0; it must be more than 0 and at most 1"),
        (lambda: ScoreTermination(1.5), "threshold is 1.5"),
        (lambda: BudgetTermination(), "a budget needs tokens or seconds"),
        (lambda: BudgetTermination(tokens=0), "tokens is 0"),
        (lambda: BudgetTermination(seconds=-1), "seconds is -1"),
    ],
)
def test_limits_that_make_no_sense_are_refused(make, complaint):
    with pytest.raises(ConfigError, match=complaint):
        make()
