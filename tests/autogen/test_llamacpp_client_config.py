"""What a llama.cpp client is made of: refused in one line where it is wrong."""

import pytest

pytest.importorskip("gguf", reason="needs the quantize extra")

from autogen_core.models import ChatCompletionClient

from preflexor_agents.autogen import LlamaCppClient
from preflexor_agents.errors import ConfigError
from tests.autogen.local_models import TALKS


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "LlamaCppClientConfig field 'model_path' is missing"),
        ({"model_path": "/no/model.gguf"}, "model_path is '/no/model.gguf': there is no such file"),
        ({"model_path": "x", "repo_id": "y"}, "field 'repo_id' is unknown; known: model_path, n_ctx"),
        ({"model_path": "x", "n_ctx": 0}, "field 'n_ctx' is 0: Input should be greater"),
    ],
)
def test_a_wrong_config_is_one_line_that_names_the_field(config, said) -> None:
    wrong = {"provider": "preflexor_agents.autogen.LlamaCppClient", "component_type": "model", "config": config}
    with pytest.raises(ConfigError, match=said) as caught:
        ChatCompletionClient.load_component(wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"options": {"temprature": 1}}, "LlamaCppOptions field 'temprature' is unknown; known: temperature, top_k"),
        ({"options": {"temperature": -1}}, "LlamaCppOptions field 'temperature' is -1"),
        ({"model_info": {"vision": True}}, "model_info lacks|field 'model_info"),
        ({"n_threads": 0}, "field 'n_threads' is 0"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(write_model, settings, said) -> None:
    with pytest.raises(ConfigError, match=said):
        LlamaCppClient(write_model(TALKS), **settings)
