"""The stub of an Ollama server has the habits that were seen on a real one."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.ollama_stub import OllamaStub, StubModel, says

ASK = [{"role": "user", "content": "Why?"}]


@pytest.fixture
def stub() -> Iterator[OllamaStub]:
    plain, minilm = StubModel(name="plain:latest", tags=None), StubModel(name="minilm:latest", tags=None, embeds=True)
    with OllamaStub(StubModel(), plain, minilm) as server:
        yield server


@pytest.fixture
def http(stub: OllamaStub) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{stub.host}", timeout=10, trust_env=False) as client:
        yield client


def chat(http: httpx.Client, **body: Any) -> httpx.Response:
    return http.post("/api/chat", json={"model": "tiny", "messages": ASK, **body})


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.text.splitlines()]


def test_a_stream_is_chunked_ndjson_with_counts_in_the_last_piece(stub: OllamaStub, http: httpx.Client) -> None:
    stub.script.append(says("<|thinking|>a b<|/thinking|>c d"))
    response = chat(http)
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["transfer-encoding"] == "chunked"
    *pieces, last = lines(response)
    assert [p["message"].get("thinking") for p in pieces] == ["a", " b", None, None]
    assert [p["message"]["content"] for p in pieces] == ["", "", "c", " d"]
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "stop", 6)
    assert last["prompt_eval_count"] > 0
    assert not any(p["done"] for p in pieces)


def test_not_streaming_gives_one_object(stub: OllamaStub, http: httpx.Client) -> None:
    stub.script.append(says("<|thinking|>a b<|/thinking|>c d"))
    assert chat(http, stream=False).json()["message"] == {"role": "assistant", "content": "c d", "thinking": "a b"}


def test_thinking_off_leaves_the_tags_in_the_content(stub: OllamaStub, http: httpx.Client) -> None:
    stub.script.append(says("<|thinking|>a<|/thinking|>b"))
    message = chat(http, stream=False, think=False).json()["message"]
    assert message == {"role": "assistant", "content": "<|thinking|>a<|/thinking|>b"}


def test_only_the_first_pair_of_tags_is_parsed(stub: OllamaStub, http: httpx.Client) -> None:
    text = "b<|reflect|>c<|/reflect|><|thinking|>d<|/thinking|>"
    stub.script.append(says(f"<|thinking|>a<|/thinking|>{text}"))
    assert chat(http, stream=False).json()["message"] == {"role": "assistant", "content": text, "thinking": "a"}


def test_refusals_have_the_real_words(http: httpx.Client) -> None:
    refused = chat(http, model="plain", think=True)
    assert (refused.status_code, refused.json()) == (400, {"error": '"plain" does not support thinking'})
    unknown = chat(http, model="x")
    assert (unknown.status_code, unknown.json()) == (404, {"error": "model 'x' not found"})
    assert http.post("/api/chat").json() == {"error": "missing request body"}
    assert http.post("/api/embed", json={"model": "tiny", "input": "a"}).status_code == 501


def test_empty_messages_load_and_unload(stub: OllamaStub, http: httpx.Client) -> None:
    assert chat(http, messages=[]).json()["done_reason"] == "load"
    assert [m["name"] for m in http.get("/api/ps").json()["models"]] == ["tiny:latest"]
    assert chat(http, messages=[], keep_alive=0).json()["done_reason"] == "unload"
    assert http.get("/api/ps").json()["models"] == []


def test_the_schema_waits_until_thinking_ends(stub: OllamaStub, http: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    stub.script.extend([says("<|thinking|>a<|/thinking|>free"), says("never opens"), says("free")])
    first, second, third = (chat(http, stream=False, format=schema, think=t).json() for t in (True, True, False))
    assert first["message"] == {"role": "assistant", "content": '{"n": 0}', "thinking": "a"}
    assert second["message"]["content"] == "never opens"
    assert third["message"]["content"] == '{"n": 0}'


def test_a_last_assistant_message_is_continued_or_closed_by_the_template(stub: OllamaStub, http: httpx.Client) -> None:
    stub.models["closed:latest"] = StubModel(name="closed:latest", style="closed")
    talk = [*ASK, {"role": "assistant", "thinking": "T", "content": ""}]
    ends = {}
    for name in ("tiny", "closed"):
        told = chat(http, model=name, messages=talk, _debug_render_only=True).json()
        ends[name] = told["_debug_info"]["rendered_template"].partition("<|thinking|>")[2]
    assert ends["tiny"] == "T<|/thinking|>"
    assert ends["closed"] == "T<|/thinking|><|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"


def test_the_oldest_messages_are_dropped_and_the_last_one_stays(http: httpx.Client) -> None:
    talk = [{"role": "system", "content": "S"}, {"role": "user", "content": "old " * 200}, *ASK]
    told = chat(http, messages=talk, options={"num_ctx": 64}, _debug_render_only=True).json()
    prompt = told["_debug_info"]["rendered_template"]
    assert ("S<|eot_id|>" in prompt, "old" in prompt, "Why?" in prompt) == (True, False, True)
    refused = chat(http, messages=[{"role": "user", "content": "long " * 200}], options={"num_ctx": 64})
    assert (refused.status_code, "exceeds the available context size" in refused.text) == (400, True)


def test_raw_prompts_are_taken_as_they_are(stub: OllamaStub, http: httpx.Client) -> None:
    stub.script.append(says("b c"))
    response = http.post("/api/generate", json={"model": "tiny", "prompt": "a<|/thinking|>", "raw": True})
    *pieces, last = lines(response)
    assert "".join(p["response"] for p in pieces) == "b c"
    assert last["prompt_eval_count"] == 3


def test_a_blob_becomes_a_model(stub: OllamaStub, http: httpx.Client) -> None:
    data = b"GGUF" * 100
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    assert http.head(f"/api/blobs/{digest}").status_code == 404
    assert (
        http.post(f"/api/blobs/sha256:{'0' * 64}", content=data).json()["error"].startswith("digest mismatch, expected")
    )
    assert [http.post(f"/api/blobs/{digest}", content=iter([data[:7], data[7:]])).status_code for _ in "ab"] == [
        201,
        200,
    ]
    template = StubModel().template
    made = http.post("/api/create", json={"model": "mine", "files": {"m.gguf": digest}, "template": template})
    assert lines(made)[-1] == {"status": "success"}
    shown = http.post("/api/show", json={"model": "mine"}).json()
    assert shown["capabilities"] == ["completion", "thinking"]
    assert digest.removeprefix("sha256:") in shown["modelfile"]


def test_a_pull_fails_in_the_stream_under_status_200(http: httpx.Client) -> None:
    response = http.post("/api/pull", json={"model": "far"})
    first, last = lines(response)
    assert (response.status_code, first) == (200, {"status": "pulling manifest"})
    assert "no such host" in last["error"]


def test_embeddings_depend_on_the_text_alone(http: httpx.Client) -> None:
    asked = {"model": "minilm", "input": ["silk", "nacre", "silk"]}
    a, b, c = http.post("/api/embed", json=asked).json()["embeddings"]
    assert a == c != b
    assert sum(x * x for x in a) == pytest.approx(1)
