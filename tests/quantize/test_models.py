"""`preflexor models`: one table of what is in the package, in our folder, in the caches and in Ollama."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from preflexor_agents.backends import installed
from preflexor_agents.backends.gguf_header import read_header
from preflexor_agents.backends.llamacpp import nano_path
from preflexor_agents.cli.main import cli
from preflexor_agents.errors import ModelError
from tests.fakes.ollama_stub import OllamaStub, StubModel


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and no Ollama server."""
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    return tmp_path


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[OllamaStub]:
    with OllamaStub(StubModel(), StubModel(name="plain:7b", tags=None, level="Q4_K_M")) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        yield server


def models(*words: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["models", *words], input=answer)


def listed() -> dict[str, dict[str, Any]]:
    """Every model of the list by its name."""
    done = models("list", "--json")
    assert done.exit_code == 0, done.output
    return {m["name"]: m for place in json.loads(done.stdout)["places"] for m in place["models"]}


def problems() -> dict[str, str]:
    return {place["name"]: place["problem"] for place in json.loads(models("list", "--json").stdout)["places"]}


def own(*names: str) -> Path:
    """Copies of nano in our folder."""
    folder = installed.models_folder()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(nano_path().read_bytes())
    return folder


def cached(home: Path, repository: str, files: dict[str, bytes]) -> Path:
    """A repository in the cache of Hugging Face, with links into its blobs."""
    root = home / ".cache" / "huggingface" / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / "abc"
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc", encoding="utf-8")
    for n, (name, content) in enumerate(files.items()):
        (root / "blobs" / str(n)).write_bytes(content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(root / "blobs" / str(n))
    return snapshot


def safetensors(**metadata: str) -> bytes:
    head = json.dumps({"__metadata__": metadata}).encode()
    return len(head).to_bytes(8, "little") + head


def test_nano_is_always_there_and_a_missing_server_is_one_dim_line() -> None:
    done = models("list")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[1].split() == ["nano", "8.5", "MB", "F16", "2048", "thinking", "bundled"]
    assert [line for line in lines if line.startswith("Ollama: ")] == [
        "Ollama: no Ollama server answers at http://127.0.0.1:9; start it with: ollama serve, or set OLLAMA_HOST"
    ]


def test_a_model_in_our_folder_is_listed_with_its_spec() -> None:
    folder = own("a.gguf", "bundle/b.gguf")
    found = listed()
    assert found["a.gguf"]["spec"] == f"gguf:{folder}/a.gguf"
    assert found["b.gguf"]["can"] == ["thinking"]
    assert "gguf:~/" in models("list").stdout


def test_the_cache_of_hugging_face_shows_mlx_gguf_and_what_has_to_be_converted(home: Path) -> None:
    plain = json.dumps({"max_position_embeddings": 4096, "dtype": "bfloat16"}).encode()
    quantized = json.dumps({"quantization": {"bits": 4, "group_size": 64}}).encode()
    tools = b"{{ tools }}<think>"
    cached(home, "org/base", {"config.json": plain, "model.safetensors": safetensors(format="pt")})
    cached(home, "mlx/bf16", {"config.json": plain, "model.safetensors": safetensors(format="mlx")})
    four = {"config.json": quantized, "model.safetensors": b"", "chat_template.jinja": tools}
    snapshot = cached(home, "mlx/four", four)
    cached(home, "org/files", {"sub/x-Q4.gguf": nano_path().read_bytes()})
    found = listed()
    assert [(n, found[n]["format"], found[n]["level"], found[n]["spec"] != "") for n in sorted(found)] == [
        ("mlx/bf16", "MLX", "bfloat16", True),
        ("mlx/four", "MLX", "4-bit", True),
        ("nano", "GGUF", "F16", True),
        ("org/base", "safetensors", "bfloat16", False),
        ("x-Q4.gguf", "GGUF", "F16", True),
    ]
    assert found["mlx/four"]["spec"] == f"mlx:{snapshot}" and found["mlx/four"]["can"] == ["thinking", "tools"]
    assert found["org/base"]["context_tok"] == 4096


def test_ollama_models_come_with_what_they_can_and_whether_they_are_loaded(stub: OllamaStub) -> None:
    stub.loaded["plain:7b"] = stub.models["plain:7b"]
    found = listed()
    assert found["tiny:latest"]["can"] == ["completion", "thinking"]
    assert (found["plain:7b"]["level"], found["plain:7b"]["loaded"], found["plain:7b"]["context_tok"]) == (
        "Q4_K_M",
        True,
        4096,
    )
    assert "Ollama, loaded" in models("list").stdout


def test_what_is_wrong_with_one_place_or_file_leaves_the_others(
    stub: OllamaStub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own("good.gguf")
    (folder / "bad.gguf").write_bytes(b"GGUF\x03")
    (home / ".cache").write_text("no folder", encoding="utf-8")
    found = listed()
    assert {"nano", "good.gguf", "bad.gguf", "tiny:latest"} <= found.keys()
    assert "cut short or damaged" in found["bad.gguf"]["problem"]
    stub.stop()
    assert problems()["Ollama"] and not problems()["models folder"]
    monkeypatch.setenv("OLLAMA_HOST", "not a host://")
    assert "OLLAMA_HOST" in problems()["Ollama"]


def test_show_tells_what_is_known(stub: OllamaStub) -> None:
    shown = json.loads(models("show", "nano", "--json").stdout)
    assert (shown["llama.block_count"], shown["tags"][0]) == (4, "<|thinking|>")
    assert "start_header_id" in models("show", "ollama:tiny").stdout
    assert models("show", f"gguf:{nano_path()}").exit_code == 0


def test_names_from_a_server_cannot_steer_the_terminal(stub: OllamaStub) -> None:
    stub.models["x\x1b[2J:1"] = StubModel(name="x\x1b[2J:1")
    for words in (("list",), ("show", "ollama:x\x1b[2J:1")):
        assert "\x1b" not in models(*words).stdout


def test_rm_asks_and_removes_what_is_ours(stub: OllamaStub) -> None:
    folder = own("a.gguf")
    assert models("rm", "a.gguf", answer="n\n").exit_code == 1
    assert (folder / "a.gguf").exists()
    assert models("rm", "a.gguf", answer="y\n").exit_code == 0
    assert not (folder / "a.gguf").exists()
    assert models("rm", "ollama:tiny", "--yes").exit_code == 0
    assert list(stub.models) == ["plain:7b"]


def test_rm_without_an_answer_removes_nothing() -> None:
    folder = own("a.gguf")
    assert models("rm", "a.gguf").exit_code == 1
    assert (folder / "a.gguf").exists()


def test_rm_takes_the_whole_folder_that_deploy_made() -> None:
    folder = own("shared/a.gguf", "b.gguf")
    for name in ("Modelfile", "SHA256SUMS"):
        (folder / "shared" / name).write_text("", encoding="utf-8")
    assert models("rm", "a.gguf", "--yes").exit_code == 0
    assert [f.name for f in folder.iterdir()] == ["b.gguf"]


def test_rm_leaves_what_is_not_ours(home: Path) -> None:
    snapshot = cached(home, "org/files", {"x.gguf": nano_path().read_bytes()})
    for name in ("x.gguf", "nano", f"gguf:{nano_path()}"):
        done = models("rm", name, "--yes")
        assert done.exit_code == 2 and "cannot be removed here" in done.stderr
    assert (snapshot / "x.gguf").exists() and nano_path().exists()


def test_a_name_that_is_nowhere_or_twice_is_one_line(stub: OllamaStub) -> None:
    own("one/a.gguf", "two/a.gguf")
    twice = models("rm", "a.gguf", "--yes")
    assert twice.exit_code == 2 and "is there 2 times; name one: gguf:" in twice.stderr
    assert "there is no model 'zzz' here" in models("show", "zzz").stderr
    stub.stop()
    gone = models("rm", "ollama:tiny", "--yes")
    assert gone.exit_code == 1 and "ollama serve" in gone.stderr


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"GGUF" + b"\xff" * 100,
        b"GGUF" + bytes([3, 0, 0, 0]) + bytes(8) + bytes([1]) + bytes(7) + b"\xff" * 9,
        nano_path().read_bytes()[:3000],
    ],
)
def test_a_damaged_head_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=str(file)):
        read_header(file)


def test_the_head_says_what_llama_cpp_says() -> None:
    import llama_cpp

    head = read_header(nano_path())
    engine = llama_cpp.Llama(str(nano_path()), vocab_only=True, verbose=False)
    try:
        numbers = {k: v for k, v in engine.metadata.items() if k not in ("tokenizer.chat_template",)}
    finally:
        engine.close()
    assert numbers.keys() == head.values.keys()
    assert all(float(v) == pytest.approx(head.values[k]) for k, v in numbers.items() if v.replace(".", "").isdigit())
