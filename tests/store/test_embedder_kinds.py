"""Embedders behind an OpenAI-compatible server and of the sentence-transformers package; prefixes of models."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from preflexor_agents import openai_endpoint
from preflexor_agents.errors import BackendError, InputError, ModelError, PreflexorError
from preflexor_agents.store import Store
from preflexor_agents.store.embedders import OllamaEmbedder, OpenAIEmbedder, SentenceTransformerEmbedder, open_embedder
from preflexor_agents.store.embedders.prefixes import prefixes_of

Answer = tuple[int, Any]


class Server:
    """Answers `/v1/embeddings` from a list, then by the length of each text."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answers: list[Answer] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/embeddings"
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(body)
                server.keys.append(self.headers["Authorization"])
                status, answer = server.answers.pop(0) if server.answers else (200, by_length(body["input"]))
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Retry-After", "0")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def by_length(texts: list[str]) -> dict[str, Any]:
    """Vectors in another order than the texts, told apart by their index."""
    rows = [{"index": n, "embedding": [float(len(text)), 3.0, 4.0]} for n, text in enumerate(texts)]
    return {"data": rows[::-1]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    started = Server()
    yield started
    started.stop()


@pytest.fixture
def embedder(server: Server) -> Iterator[OpenAIEmbedder]:
    opened = OpenAIEmbedder("some", server.url)
    yield opened
    if opened._client is not None:
        opened._client.close()


def test_texts_go_in_batches_and_come_back_in_order(server: Server, embedder: OpenAIEmbedder) -> None:
    rows = embedder.embed(["x" * n for n in range(1, 101)])
    assert [len(request["input"]) for request in server.requests] == [64, 36]
    assert np.allclose(rows[:, 0], [n / np.sqrt(n * n + 25) for n in range(1, 101)], atol=1e-6)
    assert embedder.dim == 3 and server.requests[0]["model"] == "some"


def test_text_that_no_server_takes_is_made_fit(server: Server, embedder: OpenAIEmbedder) -> None:
    assert embedder.embed(["", "\ud800", "\0"]).shape == (3, 3)
    assert server.requests[0]["input"] == [" ", "?", "\0"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again_a_few_times(server: Server, embedder: OpenAIEmbedder, status: int) -> None:
    server.answers = [(status, {})] * 3
    assert embedder.embed(["x"]).shape == (1, 3) and len(server.requests) == 4
    server.answers = [(status, {"error": {"message": "busy\nnow"}})] * 9
    with pytest.raises(BackendError, match=f"{status} busy now") as caught:
        embedder.embed(["x"])
    assert len(server.requests) == 8 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "answer", "kind", "said"),
    [
        (401, {"error": {"message": "no"}}, ModelError, "refused the key .*set OPENAI_API_KEY"),
        (404, {"error": "no such model"}, ModelError, "has no embedding model 'some' .*no such model"),
        (400, b"<html>\x1b[2J", BackendError, "400 <html>"),
        (200, b"not json", BackendError, "no vectors"),
        (200, {"data": 3}, BackendError, "no vectors"),
        (200, {"data": [{"index": 0, "embedding": ["a"]}]}, BackendError, "no vectors"),
        (200, {"data": []}, BackendError, "gave 0 vectors for 2 texts"),
        (200, {"data": [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}]}, BackendError, "gave 2 vectors"),
    ],
)
def test_what_a_server_answers_wrongly_is_one_line(
    server: Server, embedder: OpenAIEmbedder, status: int, answer: Any, kind: type[PreflexorError], said: str
) -> None:
    server.answers = [(status, answer)]
    with pytest.raises(kind, match=said) as caught:
        embedder.embed(["a", "b"])
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_one_line() -> None:
    embedder = OpenAIEmbedder("some", "http://127.0.0.1:1/v1")
    with pytest.raises(BackendError, match="does not answer; start the server or correct the address"):
        embedder.embed(["x"])
    assert embedder._client is not None
    embedder._client.close()


def test_the_key_goes_to_known_hosts_only(
    server: Server, embedder: OpenAIEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    embedder.embed(["x"])
    assert server.keys == ["Bearer secret"]
    assert openai_endpoint.headers("https://api.openai.com/v1")
    elsewhere = "https://api.elsewhere.example/v1"
    assert openai_endpoint.headers(elsewhere) == {}
    monkeypatch.setenv("OPENAI_BASE_URL", elsewhere)
    assert openai_endpoint.headers(elsewhere) == {"Authorization": "Bearer secret"}


@pytest.mark.parametrize("spec", ["openai:m@ftp://x", "openai:m@localhost", "openai:m@http://", "openai:@http://x"])
def test_an_address_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(InputError):
        open_embedder(spec)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="may hold no password") as caught:
        open_embedder("openai:m@http://me:hunter2@host/v1")
    assert "hunter2" not in str(caught.value)


def test_the_address_may_be_left_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert open_embedder("openai:text-embedding-3-small").spec.endswith("@https://api.openai.com/v1")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8080/v1/")
    assert open_embedder("openai:m").spec == "openai:m@http://localhost:8080/v1"


def test_a_store_remembers_the_server(server: Server, tmp_path: Path, notes: Path) -> None:
    with Store.open(tmp_path / "a.db", embedder=f"openai:some@{server.url}") as store:
        assert store.ingest([notes]).added == 3
        store._opened_embedder()._client.close()  # type: ignore[attr-defined]
    with Store.open(tmp_path / "a.db") as store:
        assert store.search("dragline silk")[0].title == "Spider silk"
        store._opened_embedder()._client.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("model", "query", "document"),
    [
        ("nomic-embed-text:v1.5", "search_query: ", "search_document: "),
        ("intfloat/multilingual-e5-small", "query: ", "passage: "),
        ("multilingual-e5-large-instruct", "Instruct: ", ""),
        ("BAAI/bge-small-en-v1.5", "Represent this sentence", ""),
        ("bge-m3", "", ""),
        ("embeddinggemma:300m", "task: search result", "title: none"),
        ("Qwen3 Embedding 0.6B", "Instruct: ", ""),
        ("snowflake-arctic-embed2", "query: ", ""),
        ("snowflake-arctic-embed:335m", "Represent", ""),
        ("all-minilm", "", ""),
        ("text-embedding-3-small", "", ""),
    ],
)
def test_models_get_the_prefixes_of_their_cards(model: str, query: str, document: str) -> None:
    found = prefixes_of(model)
    assert found.query.startswith(query) and found.document.startswith(document)
    assert bool(found.query) == bool(query) and bool(found.document) == bool(document)


def test_queries_and_texts_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    embedder = OllamaEmbedder("nomic-embed-text")
    monkeypatch.setattr(embedder, "_asked", lambda texts: asked.append(texts) or np.zeros((len(texts), 3)))
    embedder.embed(["a", "b"])
    embedder.embed_query("c")
    assert asked == [["search_document: a", "search_document: b"], ["search_query: c"]]


class FakeTransformer:
    """What the package's class does, as far as it is used."""

    prompts: ClassVar[dict[str, str]] = {}
    seen: ClassVar[list[str]] = []

    def __init__(self, model: str) -> None:
        if "missing" in model:
            raise OSError(f"{model} is not a local folder and is not a valid model identifier\nmore")

    def encode(self, texts: list[str], *, prompt: str, convert_to_numpy: bool, show_progress_bar: bool) -> Any:
        assert prompt == "" and convert_to_numpy and not show_progress_bar
        FakeTransformer.seen += texts
        return np.array([[len(text), 3.0, 4.0] for text in texts], dtype=np.float32).reshape(len(texts), 3)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> type[FakeTransformer]:
    """The package, replaced."""
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = FakeTransformer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    monkeypatch.setattr(FakeTransformer, "seen", [])
    return FakeTransformer


def test_without_the_package_the_command_that_gets_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ModelError, match="pip install sentence-transformers"):
        SentenceTransformerEmbedder("all-MiniLM-L6-v2").embed(["x"])


def test_a_model_of_the_package_embeds(package: type[FakeTransformer]) -> None:
    embedder = open_embedder("sentence-transformers:intfloat/e5-small-v2")
    assert np.allclose(embedder.embed(["a"])[0], np.array([10, 3, 4]) / np.sqrt(125))
    embedder.embed_query("b")
    assert package.seen == ["passage: a", "query: b"] and embedder.dim == 3


def test_the_models_own_prompts_come_first(package: type[FakeTransformer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "prompts", {"query": "Q ", "document": ""})
    embedder = SentenceTransformerEmbedder("intfloat/e5-small-v2")
    embedder.embed(["a", "\ud800"])
    embedder.embed_query("b")
    assert package.seen == ["a", "?", "Q b"]


def test_a_model_that_cannot_be_loaded_is_one_line(package: type[FakeTransformer]) -> None:
    with pytest.raises(ModelError, match="cannot be loaded: missing is not a local folder") as caught:
        SentenceTransformerEmbedder("missing").embed(["x"])
    assert "\n" not in str(caught.value)


def test_a_folder_is_known_by_its_content_wherever_it_lies(package: type[FakeTransformer], tmp_path: Path) -> None:
    names = []
    for folder, weights in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors").write_bytes(weights)
        names.append(open_embedder(f"sentence-transformers:{tmp_path / folder}").name)
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(("path", "said"), [("/no/such/folder", "does not exist"), (".", "holds no model")])
def test_a_folder_without_a_model_is_refused_at_once(
    path: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=said):
        open_embedder(f"sentence-transformers:{path}")


def test_what_a_server_says_cannot_steer_a_terminal(server: Server, embedder: OpenAIEmbedder) -> None:
    server.answers = [(400, {"error": {"message": "\x1b]0;owned\x07"}})]
    with pytest.raises(BackendError) as caught:
        embedder.embed(["x"])
    assert str(caught.value).isprintable()
