"""The group chat inside the host constructs of AutoGen, and other people's agents inside the group chat."""

import asyncio
import json

import pytest
from autogen_agentchat.agents import AssistantAgent, SocietyOfMindAgent
from autogen_agentchat.messages import ModelClientStreamingChunkEvent, TextMessage, ThoughtEvent
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat
from autogen_agentchat.tools import TeamTool
from autogen_core import CancellationToken
from autogen_core.model_context import UnboundedChatCompletionContext
from autogen_core.models import UserMessage

from preflexor_agents.autogen.agents import RoleAgent
from preflexor_agents.autogen.group_chat import ReflectionGroupChat
from preflexor_agents.autogen.reflect_agent import ReflectAgent
from preflexor_agents.autogen.transcript import watched
from preflexor_agents.errors import ConfigError
from preflexor_agents.events import RunStarted, StepFinished
from preflexor_agents.prompts import TAG_HINT
from tests.autogen.hosts import Peer, caller, client, texts, tool_call
from tests.autogen.voices import ANSWER, CITED_ANSWER, CONFIG, QUESTION, Gate, Shelf, Voices, with_teams

pytestmark = with_teams
CRITIC = "Wrong number, says another. Verdict: revise"


def team(voices: Voices | None = None, *participants, name: str = "reflection") -> ReflectionGroupChat:
    return ReflectionGroupChat(participants, model=voices or Voices(), config=CONFIG, name=name)


async def test_it_is_a_tool_of_an_agent():
    tool = TeamTool(team(), name="reflect", description="Reflects.", return_value_as_last_message=True)
    result = await caller(tool, "reflect", QUESTION).run(task="Ask the team.")
    assert result.messages[-1].to_text() == ANSWER
    state = json.loads(json.dumps(await tool.save_state_json()))
    await tool.load_state_json(state)


async def test_in_a_round_robin_the_peers_hear_the_answer_only():
    peer = Peer("peer")
    outer = RoundRobinGroupChat([team(), peer], max_turns=2)
    assert await texts(outer.run_stream(task=QUESTION)) == [("reflection", ANSWER), ("peer", "I see.")]
    assert [m.to_text() for m in peer.heard] == [QUESTION, ANSWER]


async def test_in_a_round_robin_it_takes_turn_after_turn():
    voices = Voices()
    outer = RoundRobinGroupChat([team(voices), Peer("peer", "And bone?")], max_turns=3)
    said = await texts(outer.run_stream(task=QUESTION))
    assert [who for who, _ in said] == ["reflection", "peer", "reflection"]
    assert "And bone?" in voices.requests[-1].messages[-1].content


async def test_alone_in_a_round_robin_it_has_nothing_new_to_say():
    outer = RoundRobinGroupChat([team()], max_turns=2)
    assert await texts(outer.run_stream(task=QUESTION)) == [("reflection", ANSWER)] * 2


async def test_a_selector_picks_it_by_its_description():
    model = client("reflection")
    outer = SelectorGroupChat([team(), Peer("peer")], model_client=model, max_turns=1)
    assert await texts(outer.run_stream(task=QUESTION)) == [("reflection", ANSWER)]
    assert "rounds of thinking" in str(model.create_calls[0]["messages"])


async def test_a_society_of_mind_has_it_as_its_inner_team():
    model = client("In one voice: 4.5.", "Again.")
    society = SocietyOfMindAgent("society", team(), model_client=model)
    outer = RoundRobinGroupChat([society, Peer("peer", "And bone?")], max_turns=3)
    said = await texts(outer.run_stream(task=QUESTION))
    assert ("society", "In one voice: 4.5.") in said and said[-1] == ("society", "Again.")
    prompt = str(model.create_calls[0]["messages"])
    assert ANSWER in prompt and "Wrong number" not in prompt


async def test_two_teams_answer_one_another():
    outer = RoundRobinGroupChat([team(name="one"), team(name="two")], max_turns=2)
    assert [who for who, _ in await texts(outer.run_stream(task=QUESTION))] == ["one", "two"]


async def test_a_cancelled_outer_team_can_run_again():
    gate, token = Gate("revise"), CancellationToken()
    voices = Voices(hold=gate)
    outer = RoundRobinGroupChat([team(voices), Peer("peer")], max_turns=3)
    task = asyncio.create_task(outer.run(task=QUESTION, cancellation_token=token))
    await gate.reached.wait()
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open.set()
    assert voices.open_streams == 0
    assert await texts(outer.run_stream(task="And bone?")) == [("peer", "I see."), ("reflection", ANSWER)]


async def test_any_agent_can_be_the_critic_and_sees_its_step_alone():
    model = client(CRITIC, CRITIC)
    critic = AssistantAgent("critic", model, system_message="You are strict.", description="A strict critic.")
    voices = Voices()
    made = ReflectionGroupChat([critic], model=voices, config=CONFIG, library=Shelf())
    result = await made.run(task=QUESTION)
    assert result.messages[-1].to_text() == CITED_ANSWER
    assert "critique" not in voices.stages
    [call] = model.create_calls
    system, user = [m.content for m in call["messages"]]
    assert system == "You are strict."
    for part in (QUESTION, "t1 one two", "It is 87.", "[1] Note 1: Nacre has a fracture toughness"):
        assert part in user
    assert "Thinks in the open" not in user and "Found" not in user


async def test_the_words_of_another_critic_are_heeded_and_counted():
    voices = Voices()
    result = await ReflectionGroupChat([AssistantAgent("critic", client(CRITIC))], model=voices, config=CONFIG).run(
        task=QUESTION
    )
    revise = next(r for r in voices.requests if "rewrite the thinking" in r.messages[-1].content)
    assert "Wrong number, says another." in revise.messages[-1].content
    steps = [e for e in map(watched, result.messages) if isinstance(e, StepFinished) and e.role == "critic"]
    assert steps[0].model == "agent:critic" and steps[0].usage.generated > 0
    started = next(e for e in map(watched, result.messages) if isinstance(e, RunStarted))
    assert started.models["critic"] == "agent:critic" and started.models["thinker"] == "voices"


async def test_each_call_of_another_agent_starts_from_a_clean_slate():
    model = client(CRITIC, CRITIC, CRITIC)
    context = UnboundedChatCompletionContext(initial_messages=[UserMessage(content="Mind the units.", source="user")])
    made = team(Voices(), AssistantAgent("critic", model, model_context=context))
    for question in (QUESTION, "And bone?", "And chalk?"):
        await made.run(task=question)
    asked = [[m.content for m in call["messages"][1:]] for call in model.create_calls]
    assert [len(messages) for messages in asked] == [2, 2, 2]
    assert all(messages[0] == "Mind the units." for messages in asked)
    assert "And chalk?" in asked[2][1] and "And bone?" not in asked[2][1]


async def test_another_agents_text_is_streamed_and_its_thought_told_apart():
    model = client("<think>hm</think>" + CRITIC)
    made = team(Voices(), AssistantAgent("critic", model, model_client_stream=True))
    items = [item async for item in made.run_stream(task=QUESTION)]
    chunks = [i for i in items if isinstance(i, ModelClientStreamingChunkEvent) and i.source == "critic"]
    assert "".join(c.content for c in chunks if c.metadata["channel"] == "thinking").strip() == "hm"
    step = next(e for e in map(watched, items) if isinstance(e, StepFinished) and e.role == "critic")
    assert (step.thinking, step.answer) == ("hm", CRITIC)


async def test_an_agent_of_another_name_can_play_a_role():
    strict = AssistantAgent("strict_one", client(CRITIC))
    result = await team(Voices(), RoleAgent("critic", strict)).run(task=QUESTION)
    thoughts = [m for m in result.messages if isinstance(m, ThoughtEvent) and m.source == "critic"]
    assert CRITIC in [t.content for t in thoughts]


async def test_a_client_can_play_a_role():
    result = await team(Voices(), RoleAgent("critic", client(CRITIC))).run(task=QUESTION)
    steps = [e for e in map(watched, result.messages) if isinstance(e, StepFinished) and e.role == "critic"]
    assert steps[0].model == "autogen:ReplayChatCompletionClient"


async def test_every_role_can_be_played_by_other_peoples_agents():
    says = {
        "thinker": ("<think>t1</think>It is 87.", ANSWER),
        "critic": (CRITIC,),
        "reviser": ("t2",),
        "judge": ("Better: B", "Better: A", "Better: tie", "Better: tie"),
        "integrator": ("Merged.",),
    }
    models = {role: client(*words) for role, words in says.items()}
    agents = [AssistantAgent(role, model) for role, model in models.items()]
    result = await ReflectionGroupChat(agents, config=CONFIG).run(task=QUESTION)
    assert result.messages[-1].to_text() == ANSWER
    prompts_of = {role: [call["messages"][-1].content for call in m.create_calls] for role, m in models.items()}
    told_to_mark = {role: [TAG_HINT.strip() in text for text in texts] for role, texts in prompts_of.items()}
    assert told_to_mark["thinker"] == [True, False] and not any(
        any(t) for r, t in told_to_mark.items() if r != "thinker"
    )


async def test_another_agents_failure_is_a_step_that_failed():
    result = await team(Voices(), AssistantAgent("critic", client())).run(task=QUESTION)
    assert result.messages[-1].to_text() == "It is 87."
    assert any("No more mock responses available" in m.to_text() for m in result.messages)


async def test_a_reflecting_agent_can_be_the_critic():
    inner = ReflectAgent("critic", Voices({"draft": CRITIC}), config=CONFIG)
    result = await team(Voices(), inner).run(task=QUESTION)
    assert result.messages[-1].to_text() == ANSWER


async def test_a_foreign_agent_that_calls_a_tool_first_can_be_the_critic():
    async def look_up(what: str) -> str:
        """Look something up."""
        return f"{what}: 4.5"

    model = client(tool_call("look_up", what="nacre"), CRITIC)
    critic = AssistantAgent("critic", model, tools=[look_up], reflect_on_tool_use=True)
    voices = Voices()
    result = await team(voices, critic).run(task=QUESTION)
    assert result.messages[-1].to_text() == ANSWER
    assert "nacre: 4.5" in str(model.create_calls[1]["messages"])


async def test_an_outer_agent_keeps_only_the_answer_in_its_context():
    context = UnboundedChatCompletionContext()
    peer = AssistantAgent("peer", client("Thanks."), model_context=context)
    await RoundRobinGroupChat([team(), peer], max_turns=2).run(task=QUESTION)
    assert [m.content for m in await context.get_messages()] == [QUESTION, ANSWER, "Thanks."]


@pytest.mark.parametrize(
    ("participants", "complaint"),
    [
        ([Peer("critik")], "participants: 'critik' is no role; did you mean critic"),
        ([Peer("critic"), RoleAgent("critic")], "participants: two of them are named 'critic'"),
        ([Peer("librarian")], "the librarian searches a knowledge store"),
    ],
)
def test_participants_that_do_not_fit_are_refused(participants, complaint):
    with pytest.raises(ConfigError, match=complaint):
        ReflectionGroupChat(participants, model=Voices())


def test_a_role_that_nobody_plays_is_named():
    with pytest.raises(ConfigError, match="nobody plays the reviser"):
        ReflectionGroupChat([Peer("thinker"), Peer("critic")])


async def test_a_role_outside_of_a_group_chat_says_where_it_belongs():
    with pytest.raises(ConfigError, match="only in a ReflectionGroupChat"):
        await RoleAgent("critic").on_messages([TextMessage(content="hi", source="user")], CancellationToken())
