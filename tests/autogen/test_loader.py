import json
import os
import sys
from dataclasses import replace

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import ChatAgent, Team
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import ComponentModel
from autogen_core.models import ChatCompletionClient
from autogen_core.tools import FunctionTool

import preflexor_agents.autogen as face
from preflexor_agents.autogen.agents import RoleAgent
from preflexor_agents.autogen.client_backend import ClientBackend
from preflexor_agents.autogen.group_chat import ReflectionGroupChat
from preflexor_agents.autogen.loader import ENV, NAMESPACES, load_component
from preflexor_agents.autogen.reflect_agent import ReflectAgent
from preflexor_agents.autogen.terminations import ScoreTermination
from preflexor_agents.config import paper
from preflexor_agents.errors import ConfigError
from tests.autogen.hosts import client
from tests.autogen.voices import CONFIG, QUESTION, Voices, with_teams

AGENT = "preflexor_agents.autogen.ReflectAgent"
TEAM = "preflexor_agents.autogen.ReflectionGroupChat"


def component(provider: str, **config) -> dict:
    return {"provider": provider, "config": config}


def as_json(part) -> dict:
    return json.loads(part.dump_component().model_dump_json())


PLAIN = replace(CONFIG, gate=False, integrate="never")
WORDS = ["It is 87.", "Wrong. Verdict: revise", "t2", "It is 4.5."]
"""What one model says that plays all roles of a plain run of two rounds."""


def test_an_agent_comes_back_from_its_config_whole():
    made = ReflectAgent(
        "reflect",
        "nano",
        roles={"critic": "ollama:qwen3:4b", "judge": client("x")},
        config=paper("self"),
        description="Mine.",
        emit="messages",
    )
    dumped = as_json(made)
    assert dumped["provider"] == AGENT and dumped["config"]["roles"]["critic"] == "ollama:qwen3:4b"
    assert dumped["config"]["roles"]["judge"]["provider"].endswith("ReplayChatCompletionClient")
    assert as_json(load_component(dumped, expected=ChatAgent)) == dumped


@with_teams
def test_a_group_chat_comes_back_from_its_config_whole():
    made = ReflectionGroupChat(
        [AssistantAgent("critic", client("x")), RoleAgent("judge", "gguf:" + __file__), RoleAgent("reviser")],
        model="nano",
        config=CONFIG,
        name="mine",
        termination_condition=ScoreTermination(0.9),
        max_turns=20,
    )
    dumped = as_json(made)
    assert dumped["provider"] == TEAM
    providers = [p["provider"] for p in dumped["config"]["participants"]]
    assert providers == ["autogen_agentchat.agents.AssistantAgent", *["preflexor_agents.autogen.RoleAgent"] * 2]
    assert as_json(load_component(dumped, expected=Team)) == dumped


async def test_a_loaded_agent_opens_its_client_at_the_first_run_and_closes_it():
    dumped = as_json(ReflectAgent("reflect", client(*WORDS), config=PLAIN))
    made = load_component(dumped, expected=ReflectAgent)
    for _ in range(2):
        result = await made.run(task=QUESTION)
        assert result.messages[-1].to_text() == "It is 4.5."
        await made.close()
        await made.on_reset(None)


@with_teams
async def test_a_loaded_group_chat_runs():
    made = ReflectionGroupChat([AssistantAgent("critic", client("Wrong. Verdict: revise"))], model=client(*WORDS))
    dumped = as_json(made)
    dumped["config"]["config"]["rounds"] = 1
    loaded = load_component(dumped, expected=ReflectionGroupChat)
    assert (await loaded.run(task=QUESTION)).messages[-1].to_text() == "It is 87."
    await loaded.close()


async def test_a_team_of_others_with_our_agent_comes_back_and_runs():
    agent = ReflectAgent("reflect", client(*WORDS), config=PLAIN)
    dumped = as_json(RoundRobinGroupChat([agent], max_turns=1))
    loaded = load_component(dumped, expected=RoundRobinGroupChat)
    assert (await loaded.run(task=QUESTION)).messages[-1].to_text() == "It is 4.5."


def test_a_hand_written_config_needs_little():
    made = load_component(component(AGENT, name="reflect", model="nano", config={"rounds": 2}), expected=ReflectAgent)
    assert made._table.config == CONFIG
    made = load_component(component(AGENT, name="a", model="nano", config={"preset": "paper"}), expected=ReflectAgent)
    assert made._table.config == paper()
    judge = {"judge": {"max_tok": 100}}
    made = load_component(component(AGENT, name="a", model="nano", config=judge), expected=ReflectAgent)
    assert made._table.config.judge.max_tok == 100 and made._table.config.judge.temperature == 0


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (component(AGENT, name="a", model="nano", modle="x"), r"^config\.modle: ReflectAgent has no such field"),
        (component(AGENT, model="nano"), r"^config\.name: Field required"),
        (
            component(AGENT, name="a", model="nano", config={"rouns": 2}),
            "rouns is unknown; known: preset, variant, rou",
        ),
        (component(AGENT, name="a", model="nano", config={"judge": {"temprature": 0}}), "judge.temprature is unknown"),
        (component(AGENT, name="a", model="nano", config={"rounds": 0}), "rounds is 0; it must be 1 to 100"),
        (component(AGENT, name="a", model="nano", config={"rounds": "many"}), "rounds is 'many'"),
        (component(AGENT, name="a", model="nano", config={"preset": "mine"}), "preset 'mine' is unknown"),
        (component(AGENT, name="a", model="nano", emit="loudly"), r"^config\.emit: .*'events' or 'messages'"),
        (component(AGENT, name="a", model="gguf:/no/such.gguf"), "thinker: there is no model file /no/such.gguf"),
        (component(AGENT, name="a", model="banana"), "thinker: 'banana' names no model; use one of: nano"),
        (component(AGENT, name="a", model="nano", store="/no/such.db"), "store: there is no file /no/such.db"),
        (
            component(AGENT, name="a", model="nano", roles={"critik": "nano"}),
            "roles: 'critik' is no role; did you mean",
        ),
        (component(AGENT, name="a", model="nano", roles={"librarian": "nano"}), "the librarian searches a knowledge"),
        (component(AGENT, name="a"), "roles: nobody plays the thinker"),
        (component(AGENT, name="not a name", model="nano"), "must be a valid Python identifier"),
        (component(TEAM, model="nano", participants=[{"provider": AGENT}]), r"^config\.participants\[0\]\.config"),
        (
            component(TEAM, participants=[component(AGENT, name="critic", model="nano", x=1)]),
            r"^config\.participants\[0\]\.config\.x: ReflectAgent has no such field",
        ),
        (
            component(
                "autogen_agentchat.teams.RoundRobinGroupChat",
                participants=[component(AGENT, name="a", model="nano"), component(AGENT, name="a", model="nano")],
            ),
            r"^config\.participants: two of them are named 'a'",
        ),
        (
            component(TEAM, participants=[component("preflexor_agents.autogen.RoleAgent", role="critc")]),
            "role: 'critc' is no role; did you mean critic",
        ),
        (component("preflexor_agents.autogen.Reflect", name="a"), r"^provider: there is no preflexor_agents.autogen"),
        (component("preflexor_agents.autogen.watched", name="a"), "is not a component"),
        (component("preflexor_agents.nothing.X", name="a"), "there is no preflexor_agents.nothing.X"),
        ({"config": {}}, "^provider: a component has one"),
        ({"provider": AGENT}, "^config: a component has one"),
    ],
)
def test_a_wrong_config_gives_one_line_that_names_the_field(config, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_component(config, expected=object)
    assert "\n" not in str(caught.value)


def test_a_part_that_no_config_can_name_is_refused_when_it_is_dumped():
    with pytest.raises(ConfigError, match="model: the backend voices has no place in a config"):
        ReflectAgent("reflect", Voices()).dump_component()


def test_a_backend_over_a_client_is_dumped_as_the_client():
    dumped = as_json(ReflectAgent("reflect", ClientBackend(client("x"))))
    assert dumped["config"]["model"]["provider"].endswith("ReplayChatCompletionClient")


@pytest.mark.parametrize("evil", ["evil.module.Agent", "autogen_evil.Agent", "preflexor_agents_evil.X", "os.system"])
@pytest.mark.parametrize("depth", ["root", "nested"])
def test_a_provider_outside_the_allowed_namespaces_is_refused_before_anything_is_imported(evil, depth, monkeypatch):
    monkeypatch.delenv(ENV, raising=False)
    monkeypatch.setattr("preflexor_agents.autogen.loader.import_module", lambda name: pytest.fail(f"imported {name}"))
    inner = component(evil)
    config = inner if depth == "root" else component(AGENT, name="a", model="nano", roles={"critic": inner})
    where = "provider" if depth == "root" else r"config\.roles\.critic\.provider"
    with pytest.raises(ConfigError, match=f"^{where}: {evil} is outside the allowed namespaces"):
        load_component(config, expected=object)


def test_a_namespace_can_be_allowed_by_name_or_by_the_environment(monkeypatch):
    config = component("tests.autogen.hosts.Peer")
    with pytest.raises(ConfigError, match="outside the allowed namespaces"):
        load_component(config, expected=object)
    with pytest.raises(ConfigError, match="is not a component"):
        load_component(config, expected=object, allow=["tests"])
    monkeypatch.setenv(ENV, "other, tests.autogen.")
    with pytest.raises(ConfigError, match="is not a component"):
        load_component(config, expected=object)


def test_a_tool_whose_config_is_source_code_is_refused(tmp_path):
    def shout(text: str) -> str:
        """Shout."""
        return text.upper()

    dumped = as_json(FunctionTool(shout, description="Shout."))
    dumped["config"]["source_code"] = f"open({str(tmp_path / 'ran')!r}, 'w')\n" + dumped["config"]["source_code"]
    agent = as_json(AssistantAgent("a", client("x")))
    agent["config"]["tools"] = [dumped]
    with pytest.raises(ConfigError, match=r"config\.tools\[0\]\.provider: .*runs the source code in its config"):
        load_component(agent, expected=object)
    assert not (tmp_path / "ran").exists()


def test_loading_leaves_the_environment_as_it_was(monkeypatch):
    monkeypatch.delenv(ENV, raising=False)
    load_component(component(AGENT, name="a", model="nano"), expected=ChatAgent)
    assert ENV not in os.environ
    monkeypatch.setenv(ENV, "mine")
    load_component(component(AGENT, name="a", model="nano"), expected=ChatAgent)
    assert os.environ[ENV] == "mine"


@with_teams
async def test_everything_loads_where_autogen_keeps_a_list_of_its_own(guarded):
    made = ReflectionGroupChat(
        [RoleAgent("critic", client("Wrong. Verdict: revise"))],
        model=client(*WORDS),
        config=PLAIN,
        termination_condition=ScoreTermination(0.9),
    )
    with pytest.raises(ValueError, match="not in a trusted namespace"):
        Team.load_component(made.dump_component())
    loaded = load_component(as_json(made), expected=ReflectionGroupChat)
    assert (await loaded.run(task=QUESTION)).messages[-1].to_text() == "t2"


def test_autogen_itself_loads_our_parts_there_once_our_namespace_is_allowed(guarded, monkeypatch):
    monkeypatch.setenv(ENV, "preflexor_agents")
    agent = ChatAgent.load_component(component(AGENT, name="a", model="nano"))
    assert isinstance(agent, ReflectAgent)
    outer = RoundRobinGroupChat([agent], max_turns=1)
    assert isinstance(Team.load_component(outer.dump_component()), RoundRobinGroupChat)


def test_short_names_of_autogens_own_clients_are_allowed():
    config = component("OpenAIChatCompletionClient", model="gpt-4o-mini", api_key="none")
    assert load_component(config, expected=ChatCompletionClient)


def test_a_component_model_is_as_good_as_a_mapping():
    model = ComponentModel(provider=AGENT, config={"name": "a", "model": "nano"})
    assert load_component(model, expected=ChatAgent).name == "a"


def test_every_provider_name_is_public_and_found():
    for name in ("ReflectAgent", "ReflectionGroupChat", "RoleAgent", "ScoreTermination"):
        assert getattr(face, name).component_provider_override == f"preflexor_agents.autogen.{name}"
    assert all("." not in namespace for namespace in NAMESPACES)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = face.Nothing


def test_loading_opens_no_model():
    before = set(sys.modules)
    load_component(component(AGENT, name="a", model="nano"), expected=ChatAgent)
    assert "llama_cpp" not in set(sys.modules) - before
