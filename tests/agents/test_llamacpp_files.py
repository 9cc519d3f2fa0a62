"""What `open` says to files that cannot be used."""

import shutil
import threading
from contextlib import aclosing
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

gguf = pytest.importorskip("gguf", reason="needs the quantize extra")

from preflexor_agents.backends import open_backend  # noqa: E402
from preflexor_agents.backends.base import Delta, Request  # noqa: E402
from preflexor_agents.backends.llamacpp import LlamaCppBackend  # noqa: E402
from preflexor_agents.config import GREEDY  # noqa: E402
from preflexor_agents.errors import ModelError  # noqa: E402
from preflexor_agents.prompts import Grounds, draft  # noqa: E402
from tests.agents.conftest import Writer  # noqa: E402

EMBEDDER = "makes embeddings; use a file of an instruction-tuned model"


async def refusal(path: Path) -> str:
    """The message, which is one line, and behind which no thread is left."""
    before = threading.active_count()
    with pytest.raises(ModelError) as caught:
        await LlamaCppBackend.open(path, threads=1)
    assert "\n" not in str(caught.value)
    assert threading.active_count() == before
    return str(caught.value)


async def test_missing_file_is_named(tmp_path):
    assert await refusal(tmp_path / "no.gguf") == (
        f"model file {tmp_path}/no.gguf does not exist; give the path of a GGUF file"
    )


async def test_folder_is_no_model(tmp_path):
    assert "Is a directory" in await refusal(tmp_path)


@pytest.mark.parametrize("data", [b"", b"GG", b"PK\x03\x04 a zip file", b'{"a": 1}'])
async def test_other_kind_of_file_is_told(tmp_path, data):
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    assert "is not a GGUF file" in await refusal(path)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.999])
async def test_truncated_file_is_told_with_llama_cpps_own_reason(tmp_path, write_model: Writer, share, capfd):
    whole = write_model().read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: int(len(whole) * share)])
    message = await refusal(path)
    assert message.startswith(f"{path} cannot be loaded: ")
    assert "key-value pairs" in message or "not within the file bounds" in message
    assert message.endswith("; download or convert it again")
    assert capfd.readouterr() == ("", "")


async def test_model_without_chat_template_is_told_what_to_do(write_model: Writer):
    assert "has no chat template; use a file of an instruction-tuned model" in await refusal(
        write_model(chat_template=None)
    )


async def test_broken_chat_template_is_told_with_the_file(write_model: Writer):
    path = write_model(chat_template="{% if %}")
    assert (await refusal(path)).startswith(f"{path}: the model's chat template is broken: ")


async def test_template_that_cannot_take_a_question_is_told_when_the_model_is_opened(write_model: Writer):
    path = write_model(chat_template="{{ raise_exception('pictures only') }}")
    assert "cannot render the turns system, user: pictures only" in await refusal(path)


@pytest.mark.parametrize("extra", [{"llama.pooling_type": 1}, {"llama.attention.causal": False}])
async def test_embedding_model_is_told(write_model: Writer, extra):
    message = await refusal(write_model(extra=extra))
    assert "(llama) is no text generator but " + EMBEDDER in message


async def test_file_name_need_not_be_ascii(tmp_path, write_model: Writer):
    path = tmp_path / "modèle été 1.gguf"
    shutil.copy(write_model(), path)
    backend = await LlamaCppBackend.open(path, threads=1)
    assert backend.spec == f"gguf:{path}"
    await backend.aclose()


async def test_spec_opens_a_file_from_the_home_folder(tmp_path, write_model: Writer, monkeypatch):
    shutil.copy(write_model(), tmp_path / "m.gguf")
    monkeypatch.setenv("HOME", str(tmp_path))
    backend = await open_backend("gguf:~/m.gguf")
    assert backend.spec == "gguf:~/m.gguf"
    await backend.aclose()


@pytest.mark.parametrize("spec", ["", "gpt-4", "gguf", "gguf:", "ollama:", "nano:7b", "model.gguf"])
async def test_spec_without_a_known_form_is_answered_with_the_forms(spec):
    with pytest.raises(ModelError, match=r"names no model; use one of: nano \(bundled\), ollama:NAME, gguf:PATH"):
        await open_backend(spec)


async def test_bundled_model_opens_by_its_name_and_thinks_before_it_answers():
    if not resources.files("preflexor_agents").joinpath("data", "nano", "nano.gguf").is_file():
        pytest.skip("the bundled model is not here")
    backend = await open_backend("nano")
    grounds = Grounds(question="How tough is nacre?")
    request = Request(messages=draft(grounds), sampling=replace(GREEDY, max_tok=8))
    async with aclosing(backend.generate(request)) as stream:
        first = await anext(stream)
    await backend.aclose()
    assert (backend.spec, backend.native_tags) == ("nano", True)
    assert isinstance(first, Delta) and first.channel == "thinking"


async def test_installation_without_the_bundled_model_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    with pytest.raises(ModelError, match="model nano is not in this installation; install preflexor-agents again"):
        await open_backend("nano")
