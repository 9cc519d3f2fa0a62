"""Embedders that run a model: a GGUF in the process, an Ollama server."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preflexor_agents.errors import BackendError, ModelError
from preflexor_agents.store import Store
from preflexor_agents.store.embedders import GgufEmbedder, HashEmbedder, OllamaEmbedder, open_embedder

Answer = Callable[[dict[str, Any]], tuple[int, Any]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], list[dict[str, Any]]]]:
    """Start a server that answers `/api/embed`; gives the list that the requests go into."""
    servers: list[HTTPServer] = []

    def start(answer: Answer) -> list[dict[str, Any]]:
        requests: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/api/embed"
                requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status, body = answer(requests[-1])
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("OLLAMA_HOST", f"http://127.0.0.1:{server.server_port}")
        return requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def by_length(body: dict[str, Any]) -> tuple[int, Any]:
    return 200, {"model": body["model"], "embeddings": [[float(len(text)), 3.0, 4.0] for text in body["input"]]}


def test_a_spec_opens_its_embedder() -> None:
    assert isinstance(open_embedder("hash"), HashEmbedder)
    ollama = open_embedder("ollama:nomic-embed-text")
    assert isinstance(ollama, OllamaEmbedder)
    assert (ollama.spec, ollama.name) == ("ollama:nomic-embed-text", "ollama:nomic-embed-text:latest")
    assert open_embedder("ollama:qwen3-embedding:0.6b").name == "ollama:qwen3-embedding:0.6b"


def test_ollama_is_asked_once_for_all_texts(serve: Callable[[Answer], list[dict[str, Any]]]) -> None:
    requests = serve(by_length)
    embedder = OllamaEmbedder("some")
    rows = embedder.embed(["", "xxx"])
    assert np.allclose(rows, [[0, 0.6, 0.8], np.array([3, 3, 4]) / np.sqrt(34)], atol=1e-6)
    assert embedder.dim == 3 and [r["input"] for r in requests] == [["", "xxx"]]


def test_a_store_with_ollama_remembers_it(
    serve: Callable[[Answer], list[dict[str, Any]]], tmp_path: Path, notes: Path
) -> None:
    serve(by_length)
    with Store.open(tmp_path / "a.db", embedder="ollama:some") as store:
        assert store.ingest([notes]).added == 3
    with Store.open(tmp_path / "a.db") as store:
        assert (store.stats().embedder, store.stats().dim) == ("ollama:some:latest", 3)
        assert store.search("dragline silk")[0].title == "Spider silk"


def test_ollama_not_running_says_how_to_start_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:1")
    with pytest.raises(BackendError, match="start it with `ollama serve`"):
        OllamaEmbedder("some").embed(["x"])


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (404, {"error": "model not found"}, ModelError, "get it with `ollama pull some`"),
        (500, {"error": "json: unsupported value: NaN"}, BackendError, "unsupported value: NaN"),
        (200, {"embeddings": [[1.0]]}, BackendError, "gave 1 vectors for 2 texts"),
        (200, {"embeddings": [[1.0], [1.0, 2.0]]}, BackendError, "gave 2 vectors for 2 texts"),
        (200, {"embeddings": [[], []]}, BackendError, "update Ollama"),
        (200, b"not json", BackendError, "could not embed"),
        (200, {"nothing": 1}, BackendError, "could not embed"),
    ],
)
def test_what_ollama_answers_wrongly_is_one_line(
    serve: Callable[[Answer], list[dict[str, Any]]], status: int, body: Any, kind: type[Exception], said: str
) -> None:
    serve(lambda _: (status, body))
    with pytest.raises(kind, match=said) as caught:
        OllamaEmbedder("some").embed(["a", "b"])
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights."""
    pytest.importorskip("gguf")
    from tests.fakes.tiny_gguf import write_gguf

    return write_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")


def test_a_gguf_gives_one_normalised_vector_for_each_text(gguf_file: Path) -> None:
    embedder = GgufEmbedder(gguf_file)
    rows = embedder.embed(["silk is strong", "bone", "silk is strong", "", "x" * 20_000, "\ud800"])
    assert rows.shape == (6, embedder.dim) and rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows[[0, 1, 2, 4]], axis=1), 1, atol=1e-5)
    assert np.allclose(rows[0], rows[2]) and not np.allclose(rows[0], rows[1])


def test_a_gguf_is_known_by_its_content_wherever_it_lies(gguf_file: Path, tmp_path: Path, notes: Path) -> None:
    moved = tmp_path / "moved.gguf"
    moved.write_bytes(gguf_file.read_bytes())
    with Store.open(tmp_path / "a.db", embedder=f"gguf:{gguf_file}") as store:
        assert store.ingest([notes]).added == 3
    with Store.open(tmp_path / "a.db", embedder=f"gguf:{moved}") as store:
        assert store.search("silk")


@pytest.mark.parametrize(
    ("data", "said"), [(None, "cannot be read: No such file"), (b"plain text", "is no GGUF"), (b"", "is no GGUF")]
)
def test_a_file_that_is_no_gguf_is_refused_at_once(tmp_path: Path, data: bytes | None, said: str) -> None:
    if data is not None:
        (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(ModelError, match=said):
        open_embedder(f"gguf:{tmp_path}/m.gguf")


def test_a_truncated_gguf_is_refused_at_first_use(gguf_file: Path, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf_file.read_bytes()[:2000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        open_embedder(f"gguf:{tmp_path}/m.gguf").embed(["x"])
