"""The stub of an Ollama server makes, pulls and deletes models as the real one was seen to."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.ollama_stub import OllamaStub, StubModel

TEMPLATE = "{{ range .Messages }}[{{ .Role }}]{{ if .Thinking }}<t>{{ .Thinking }}</t>{{ end }}{{ .Content }}{{ end }}"
DATA = b"GGUF" + bytes(100)
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def stub() -> Iterator[OllamaStub]:
    with OllamaStub() as server:
        server.blobs[DIGEST] = DATA
        yield server


@pytest.fixture
def http(stub: OllamaStub) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{stub.host}", timeout=10, trust_env=False) as client:
        yield client


def create(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    response = http.post("/api/create", json={"model": "mine", "files": {"m.gguf": DIGEST}, **body})
    return [json.loads(line) for line in response.text.splitlines()]


def prompt(http: httpx.Client, model: str, *messages: dict[str, str]) -> str:
    body = {"model": model, "messages": messages, "_debug_render_only": True}
    told: str = http.post("/api/chat", json=body).json()["_debug_info"]["rendered_template"]
    return told


def test_the_template_is_run_and_names_the_tags(http: httpx.Client) -> None:
    create(http, template=TEMPLATE, system="S")
    shown = http.post("/api/show", json={"model": "mine"}).json()
    assert (shown["template"], shown["capabilities"]) == (TEMPLATE, ["completion", "thinking"])
    reply = {"role": "assistant", "content": "c", "thinking": "b"}
    assert prompt(http, "mine", {"role": "user", "content": "a"}, reply) == "[system]S[user]a[assistant]<t>b</t>c"


def test_neighbouring_messages_of_one_role_become_one(http: httpx.Client) -> None:
    create(http, template=TEMPLATE)
    assert prompt(http, "mine", *({"role": "user", "content": c} for c in "ab")) == "[user]a\n\nb"


def test_the_same_weights_are_a_known_layer_and_every_stop_a_line(http: httpx.Client) -> None:
    first = create(http, template=TEMPLATE, parameters={"stop": ["a", "b"], "num_ctx": 64})
    second = create(http, template=TEMPLATE, model="other")
    assert [lines[2]["status"].split()[0] for lines in (first, second)] == ["creating", "using"]
    shown = http.post("/api/show", json={"model": "mine"}).json()["parameters"]
    assert [line.split() for line in shown.splitlines()] == [["stop", '"a"'], ["stop", '"b"'], ["num_ctx", "64"]]


def test_what_cannot_be_made_is_an_error_in_the_real_place(stub: OllamaStub, http: httpx.Client) -> None:
    assert "not found" in create(http, files={"m.gguf": "sha256:0"})[0]["error"]
    assert "template error" in create(http, template="{{ range }")[0]["error"]
    stub.blobs["sha256:1"] = b"no model"
    assert create(http, files={"m.gguf": "sha256:1"})[-1] == {"error": "invalid file magic"}
    assert "mine:latest" not in stub.models


def test_a_twin_without_template_is_answered_through_a_placeholder(stub: OllamaStub, http: httpx.Client) -> None:
    create(http, template=TEMPLATE)
    create(http, model="bare")
    asked = {"role": "user", "content": "a"}
    assert prompt(http, "mine", asked) == "[user]a"
    assert prompt(http, "bare", asked).startswith("<|im_start|>user\na")


def test_models_are_pulled_with_amounts_and_deleted(stub: OllamaStub, http: httpx.Client) -> None:
    stub.registry["far:latest"] = StubModel(name="far:latest")
    lines = [json.loads(line) for line in http.post("/api/pull", json={"model": "far"}).text.splitlines()]
    assert [(p["completed"], p["total"]) for p in lines if "total" in p][-1] == (8_000_000, 8_000_000)
    assert lines[-1] == {"status": "success"} and "far:latest" in stub.models
    assert http.request("DELETE", "/api/delete", json={"model": "far"}).status_code == 200
    again = http.request("DELETE", "/api/delete", json={"model": "far"})
    assert (again.status_code, again.json()) == (404, {"error": "model 'far' not found"})
