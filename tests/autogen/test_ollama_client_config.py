"""What an Ollama client is made of: written and read again, and refused in one line where it is wrong."""

import json

import pytest
from autogen_core.models import ChatCompletionClient, ModelFamily
from pydantic import SecretStr

from preflexor_agents.autogen import OllamaClient
from preflexor_agents.autogen.clients.config import checked
from preflexor_agents.errors import ConfigError


async def test_everything_survives_writing_and_reading() -> None:
    client = OllamaClient(
        "tiny",
        host="http://box:1",
        options={"temperature": 0.5, "seed": 7, "num_ctx": 512},
        think="high",
        keep_alive=3.5,
        headers={"Authorization": SecretStr("Bearer abc"), "X-Team": "silk"},
        timeout=9,
        follow_redirects=False,
        stream_thinking=True,
        model_info={**OllamaClient("llava").model_info},
    )
    written = client.dump_component()
    again = ChatCompletionClient.load_component(written)
    assert isinstance(again, OllamaClient)
    assert written.provider == "preflexor_agents.autogen.OllamaClient"
    assert again.dump_component() == written
    assert vars(again) == vars(client) | {"_connection": None, "_usage": again._usage, "_correction": again._correction}
    assert "abc" not in written.model_dump_json()
    assert '"X-Team":"silk"' in written.model_dump_json()


def test_a_masked_header_is_not_sent_by_mistake() -> None:
    written = OllamaClient("tiny", headers={"Authorization": "Bearer abc"}).dump_component().model_dump_json()
    with pytest.raises(ConfigError, match="header 'Authorization' was masked when this config was written"):
        ChatCompletionClient.load_component(json.loads(written))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"modle": "tiny"}, "OllamaClientConfig field 'model' is missing"),
        ({"model": "tiny", "base_url": "x"}, "field 'base_url' is unknown; known: model, host, "),
        ({"model": "tiny", "timeout": -1}, "field 'timeout' is -1: Input should be greater than 0"),
        ({"model": "tiny", "think": "hard"}, "field 'think"),
        ({"model": "tiny", "options": {"temprature": 1}}, "options has no option 'temprature'; Ollama knows: "),
        ({"model": "tiny", "host": "ftp://x"}, "host is 'ftp://x'; it must be like"),
        ({"model": " "}, "model is empty"),
    ],
)
def test_a_wrong_config_is_one_line_that_names_the_field(config, said) -> None:
    wrong = {"provider": "preflexor_agents.autogen.OllamaClient", "component_type": "model", "config": config}
    with pytest.raises(ConfigError, match=said) as caught:
        ChatCompletionClient.load_component(wrong)
    assert "\n" not in str(caught.value)


def test_a_model_info_that_lacks_a_field_is_refused() -> None:
    with pytest.raises(ConfigError, match="model_info lacks 'function_calling'"):
        checked({"vision": False, "json_output": True, "family": "unknown"})  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("name", "sees"),
    [
        ("llava:7b", True),
        ("qwen2.5vl:3b", True),
        ("qwen3-vl", True),
        ("hf.co/x/llama3.2-vision", True),
        ("gemma3:4b", True),
        ("gemma3:1b", False),
        ("qwen3:4b", False),
        ("llama3.2", False),
    ],
)
def test_what_a_model_can_is_guessed_from_its_name(name, sees) -> None:
    client = OllamaClient(name)
    assert client.model_info["vision"] is sees
    assert client.capabilities == client.model_info
    assert client.model_info["family"] == ModelFamily.UNKNOWN
    assert OllamaClient("deepseek-r1:8b").model_info["family"] == ModelFamily.R1
