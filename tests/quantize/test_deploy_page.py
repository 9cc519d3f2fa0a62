"""What docs/deploy.md tells a reader to type, typed in that order."""

import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs the train extra")
pytest.importorskip("gguf", reason="needs the quantize extra")

from click.testing import CliRunner

from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.cli.main import cli
from tests.fakes.ollama_engine import Engine
from tests.fakes.ollama_stub import OllamaStub
from tests.quantize.folders import own_tokenizer, random_model

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"


def test_the_page_leads_from_a_file_to_a_model_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").write_bytes(nano_path().read_bytes())
    (tmp_path / "engines").mkdir()
    random_model(tmp_path / "trained-model", own_tokenizer())
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    printed = {}
    with OllamaStub() as stub, Engine(stub, tmp_path / "engines"):
        monkeypatch.setenv("OLLAMA_HOST", stub.host)
        for line in lines:
            program, *words = shlex.split(line)
            done = CliRunner().invoke(cli, words)
            assert (program, done.exit_code) == ("preflexor", 0), done.output
            printed[words[0], words[1]] = done.stdout
        assert "my-model:latest" not in stub.models
    assert "ollama:my-model:latest" in printed["models", "list"]
    assert len(lines) == 6
