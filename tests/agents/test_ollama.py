"""The Ollama backend against a stub that behaves like a real server."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import httpx
import ollama
import pytest

from preflexor_agents.backends import ollama_server
from preflexor_agents.backends.base import Backend, Completion, Delta, Request
from preflexor_agents.backends.ollama import CACHE_UNKNOWN, ENDED_EARLY, UNCOUNTED, OllamaBackend
from preflexor_agents.backends.ollama_server import connect, connect_plain, server_url
from preflexor_agents.backends.served_reply import NOT_JSON
from preflexor_agents.config import Sampling
from preflexor_agents.errors import BackendError, ConfigError, ModelError
from preflexor_agents.prompts import Message
from tests.fakes.http_stub import Answer, HttpStub, Recorded
from tests.fakes.ollama_stub import THINK_TAGS, Fault, Gate, OllamaStub, Reply, StubModel, says

QUESTION = (Message("system", "Be brief."), Message("user", "Why is silk strong?"))
VERDICT = {"type": "object", "properties": {"better": {"enum": ["A", "B"]}}, "required": ["better"]}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[OllamaStub]:
    with OllamaStub() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        yield server


def add(stub: OllamaStub, model: StubModel) -> None:
    stub.models[model.name] = model


async def ask(backend: Backend, request: Request | None = None) -> tuple[list[Delta], Completion]:
    items = [item async for item in backend.generate(request or Request(messages=QUESTION))]
    *deltas, completion = items
    assert isinstance(completion, Completion)
    assert all(isinstance(d, Delta) for d in deltas)
    return [d for d in deltas if isinstance(d, Delta)], completion


async def once(name: str = "tiny", request: Request | None = None) -> Completion:
    backend = await OllamaBackend.open(name)
    try:
        return (await ask(backend, request))[1]
    finally:
        await backend.aclose()


def written(deltas: list[Delta], channel: str) -> str:
    return "".join(d.text for d in deltas if d.channel == channel).strip()


async def test_open_says_what_the_model_is(stub: OllamaStub) -> None:
    add(stub, StubModel(name="long:1b", tags=None, parameters=(("num_ctx", 2048), ("stop", "<|eot_id|>"))))
    backend = await OllamaBackend.open("long:1b")
    assert (backend.spec, backend.context_tok, backend.native_tags) == ("ollama:long:1b", 2048, False)
    await backend.aclose()
    await backend.aclose()


async def test_context_is_never_more_than_the_model_was_made_for(stub: OllamaStub) -> None:
    backend = await OllamaBackend.open("tiny")
    assert backend.context_tok == 4096
    assert backend.native_tags
    await backend.aclose()


async def test_without_a_server_the_error_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with OllamaStub() as gone:
        monkeypatch.setenv("OLLAMA_HOST", gone.host)
    with pytest.raises(BackendError, match=r"no Ollama server answers at .*; start it with: ollama serve") as caught:
        await OllamaBackend.open("tiny")
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


async def test_an_unknown_model_is_met_with_the_installed_ones(stub: OllamaStub) -> None:
    add(stub, StubModel(name="qwen3:4b"))
    with pytest.raises(ModelError, match=r"no model 'llama9'; installed: qwen3:4b, tiny:latest; .*ollama pull llama9"):
        await OllamaBackend.open("llama9")
    with pytest.raises(ModelError, match="no model is named after 'ollama:'"):
        await OllamaBackend.open("")


async def test_an_embedding_model_is_refused(stub: OllamaStub) -> None:
    add(stub, StubModel(name="minilm:latest", tags=None, embeds=True))
    with pytest.raises(ModelError, match="minilm cannot chat"):
        await OllamaBackend.open("minilm")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        (" 10.0.0.7 ", "http://10.0.0.7:11434"),
        (":5000", "http://127.0.0.1:5000"),
        ("0.0.0.0:5000", "http://127.0.0.1:5000"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("http://box", "http://box:80"),
        ("https://box/ollama/", "https://box:443/ollama"),
    ],
)
def test_the_host_is_read_as_ollama_reads_it(host: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert server_url() == url


async def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()

    async def silent(request: Recorded) -> Answer:
        await gate.passed()
        return Answer({})

    server = HttpStub(silent)
    server.start()
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.port}")
    monkeypatch.setattr(ollama_server, "ASK_S", 0.01)
    try:
        with pytest.raises(BackendError, match=r"did not answer within .*; is it starting\?"):
            await OllamaBackend.open("tiny")
    finally:
        server.stop()


async def test_a_silent_model_is_given_up_in_the_end(stub: OllamaStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_NUM_PARALLEL", "1")

    async def chat(*args: object, **options: object) -> AsyncIterator[ollama.ChatResponse]:
        async def pieces() -> AsyncIterator[ollama.ChatResponse]:
            yield ollama.ChatResponse(message=ollama.Message(role="assistant", content="half "))
            raise httpx.ReadTimeout("")

        return pieces()

    monkeypatch.setattr(ollama.AsyncClient, "chat", chat)
    with pytest.raises(BackendError, match="sent nothing for 600 s after 5 characters"):
        await once()


async def test_no_wait_is_for_ever() -> None:
    for client in (connect("http://127.0.0.1:1")._client, connect_plain("http://127.0.0.1:1")):
        assert client.timeout.as_dict() == {"connect": 5.0, "read": 600.0, "write": 60.0, "pool": 600.0}
        await client.aclose()


@pytest.mark.parametrize("host", ["http://[::1", "127.0.0.1:99999", "ftp://here"])
async def test_a_host_that_is_no_address_is_named(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    with pytest.raises(ConfigError, match=r"OLLAMA_HOST is .*; it must be like"):
        await OllamaBackend.open("tiny")


@pytest.mark.parametrize(
    "answer", [Answer("hello"), Answer({"no": "models"}), Answer({"error": "404 page not found"}, 404)]
)
async def test_another_server_on_the_port_is_told_apart(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def other(request: Recorded) -> Answer:
        return answer

    server = HttpStub(other)
    server.start()
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.port}")
    try:
        with pytest.raises(BackendError, match="is not an Ollama server"):
            await OllamaBackend.open("tiny")
    finally:
        server.stop()


async def test_a_server_on_this_machine_is_not_asked_through_a_proxy(
    stub: OllamaStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert (await once()).answer


async def test_thinking_field_and_content_become_channels(stub: OllamaStub) -> None:
    stub.script.append(says("<|thinking|>recall protein fibres<|/thinking|>Silk is a protein fibre."))
    backend = await OllamaBackend.open("tiny")
    deltas, done = await ask(backend)
    await backend.aclose()
    assert (done.thinking, done.answer) == ("recall protein fibres", "Silk is a protein fibre.")
    assert written(deltas, "thinking") == "recall protein fibres"
    assert written(deltas, "answer") == "Silk is a protein fibre."
    assert len(deltas) > 4
    assert stub.bodies("/api/chat")[0]["think"] is True


async def test_reflection_left_in_the_content_is_told_apart(stub: OllamaStub) -> None:
    stub.script.append(says("<|thinking|>T<|/thinking|><|reflect|>too short<|/reflect|>A."))
    done = await once()
    assert (done.thinking, done.reflection, done.answer) == ("T", "too short", "A.")
    assert done.notes == (CACHE_UNKNOWN,)


async def test_a_model_without_the_capability_is_parsed_here(stub: OllamaStub) -> None:
    add(stub, StubModel(name="plain:latest", tags=None))
    stub.script.append(says("<think>", "a b", "</think>", "c d"))
    done = await once("plain")
    assert (done.thinking, done.answer) == ("a b", "c d")
    assert "think" not in stub.bodies("/api/chat")[0]


async def test_a_closing_tag_after_the_servers_thinking_claims_no_answer(stub: OllamaStub) -> None:
    stub.script.append(says("<|thinking|>T<|/thinking|>A.<|/thinking|> B."))
    done = await once()
    assert (done.thinking, done.answer) == ("T", "A.\nB.")


async def test_what_looks_like_the_beginning_of_a_tag_is_given_out_at_the_end(stub: OllamaStub) -> None:
    stub.script.append(says("a <"))
    backend = await OllamaBackend.open("tiny")
    deltas, done = await ask(backend)
    await backend.aclose()
    assert written(deltas, "answer") == done.answer == "a <"


async def test_an_answer_in_one_piece_is_not_lost(stub: OllamaStub) -> None:
    stub.script.append(Reply(steps=("Yes.",), whole=True))
    assert (await once()).answer == "Yes."


async def test_thinking_that_never_ends_is_noted(stub: OllamaStub) -> None:
    stub.script.append(says("<|thinking|>on and on and on"))
    done = await once(request=Request(messages=QUESTION, sampling=Sampling(max_tok=3)))
    assert (done.thinking, done.answer, done.finish_reason) == ("on and", "", "length")
    assert "thinking was not closed" in done.notes


async def test_length_is_length_and_usage_is_counted(stub: OllamaStub) -> None:
    stub.script.append(says("one two three four five"))
    done = await once(request=Request(messages=QUESTION, sampling=Sampling(max_tok=3)))
    assert (done.answer, done.finish_reason, done.usage.generated) == ("one two three", "length", 3)
    assert done.usage.prompt > 10
    assert done.usage.cached == 0
    assert done.seconds > 0


async def test_the_unknown_cache_is_noted_once(stub: OllamaStub) -> None:
    backend = await OllamaBackend.open("tiny")
    _, first = await ask(backend)
    _, second = await ask(backend)
    await backend.aclose()
    assert (first.notes, second.notes) == ((CACHE_UNKNOWN,), ())


async def test_a_prompt_that_was_not_counted_is_estimated(stub: OllamaStub) -> None:
    stub.script.append(Reply(steps=("Yes.",), counted=False))
    done = await once()
    assert UNCOUNTED in done.notes
    assert done.usage.prompt > 0


async def test_every_option_is_sent(stub: OllamaStub) -> None:
    sampling = Sampling(temperature=0.7, top_k=7, top_p=0.5, repeat_penalty=1.1, max_tok=9)
    await once(request=Request(messages=QUESTION, sampling=sampling, seed=42))
    assert stub.bodies("/api/chat")[0]["options"] == {
        "num_ctx": 4096,
        "num_predict": 9,
        "temperature": 0.7,
        "top_k": 7,
        "top_p": 0.5,
        "repeat_penalty": 1.1,
        "seed": 42,
    }


async def test_own_stop_strings_do_not_drop_the_models(stub: OllamaStub) -> None:
    stub.script.append(says("first ## second"))
    done = await once(request=Request(messages=QUESTION, stop=("##",)))
    assert done.answer == "first"
    assert stub.bodies("/api/chat")[0]["options"]["stop"] == ["<|eot_id|>", "##"]


async def test_the_same_seed_gives_the_same_reply(stub: OllamaStub) -> None:
    hot = Sampling(temperature=0.8)
    replies = [(await once(request=Request(messages=QUESTION, sampling=hot, seed=s))).answer for s in (1, 1, 2)]
    assert replies[0] == replies[1] != replies[2]


async def test_a_schema_turns_thinking_off_and_holds(stub: OllamaStub) -> None:
    stub.script.append(says("<|thinking|>hm<|/thinking|>I like B"))
    done = await once(request=Request(messages=QUESTION, json_schema=VERDICT))
    body = stub.bodies("/api/chat")[0]
    assert (body["think"], body["format"]) == (False, VERDICT)
    assert json.loads(done.answer) == {"better": "A"}
    assert done.thinking == ""


async def test_a_schema_on_a_plain_model_sends_no_think_flag(stub: OllamaStub) -> None:
    add(stub, StubModel(name="plain:latest", tags=None))
    done = await once("plain", Request(messages=QUESTION, json_schema=VERDICT))
    assert json.loads(done.answer) == {"better": "A"}
    assert "think" not in stub.bodies("/api/chat")[0]


async def test_a_built_in_parser_gets_the_schema_with_a_raw_prompt(stub: OllamaStub) -> None:
    add(stub, StubModel(name="parsed:latest", tags=THINK_TAGS, parser="qwen3.5"))
    stub.script.append(says("free text"))
    done = await once("parsed", Request(messages=QUESTION, json_schema=VERDICT))
    assert json.loads(done.answer) == {"better": "A"}
    (body,) = stub.bodies("/api/generate")
    assert body["raw"] is True
    assert "Why is silk strong?" in body["prompt"]


async def test_a_schema_that_was_not_obeyed_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    with OllamaStub(StubModel(tags=THINK_TAGS, parser="qwen3.5"), knows_debug=False) as old:
        monkeypatch.setenv("OLLAMA_HOST", old.host)
        old.script.extend([says("x"), says("free text")])
        done = await once(request=Request(messages=QUESTION, json_schema=VERDICT))
    assert done.answer == "free text"
    assert NOT_JSON in done.notes


async def test_tags_inside_json_are_left_alone(stub: OllamaStub) -> None:
    text = '{"better": "A", "why": "it says <think>"}'
    stub.script.append(Reply(steps=(text,), whole=True))
    add(stub, StubModel(name="plain:latest", tags=None))
    assert (await once("plain", Request(messages=QUESTION, json_schema=VERDICT))).answer == text


async def test_closing_the_stream_closes_the_connection(stub: OllamaStub) -> None:
    gate = Gate()
    stub.script.append(says("one two ", gate, "three"))
    backend = await OllamaBackend.open("tiny")
    stream = backend.generate(Request(messages=QUESTION))
    assert isinstance(await anext(stream), Delta)
    await stream.aclose()
    assert await asyncio.to_thread(stub.hung_up.wait, 10)
    stub.script.append(says("still here"))
    assert (await ask(backend))[1].answer == "still here"
    await backend.aclose()


async def test_the_clients_stream_is_closed_before_close_returns(
    stub: OllamaStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    async def chat(*args: object, **options: object) -> AsyncIterator[ollama.ChatResponse]:
        async def pieces() -> AsyncIterator[ollama.ChatResponse]:
            try:
                while True:
                    yield ollama.ChatResponse(message=ollama.Message(role="assistant", content="word "))
            finally:
                closed.append(True)

        kept.append(pieces())
        return kept[0]

    kept: list[AsyncIterator[ollama.ChatResponse]] = []
    monkeypatch.setattr(ollama.AsyncClient, "chat", chat)
    backend = await OllamaBackend.open("tiny")
    stream = backend.generate(Request(messages=QUESTION))
    await anext(stream)
    await stream.aclose()
    assert closed == [True]
    await backend.aclose()


async def test_cancelling_before_the_first_token_closes_the_connection(stub: OllamaStub) -> None:
    gate = Gate()
    stub.script.append(says(gate, "never"))
    backend = await OllamaBackend.open("tiny")
    task = asyncio.create_task(ask(backend))
    assert await asyncio.to_thread(gate.reached.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(stub.hung_up.wait, 10)
    await backend.aclose()


async def test_a_lost_connection_says_how_much_had_arrived(stub: OllamaStub) -> None:
    stub.script.append(says("<|thinking|>abcde<|/thinking|>fghij", Fault("drop")))
    with pytest.raises(BackendError, match="was lost after 10 characters of the reply") as caught:
        await once()
    assert "\n" not in str(caught.value)


async def test_an_error_in_the_stream_is_reported(stub: OllamaStub) -> None:
    stub.script.append(says("half an ", Fault("error", "CUDA error:\nout of memory")))
    with pytest.raises(BackendError, match=r"could not go on with tiny after 8 char.*: CUDA error: out of memory"):
        await once()


async def test_an_error_before_the_first_token_is_reported(stub: OllamaStub) -> None:
    stub.script.append(says(Fault("error", "model requires more system memory (5.6 GiB) than is available")))
    with pytest.raises(BackendError, match="before the first token: model requires more system memory"):
        await once()


async def test_a_reply_without_a_last_piece_is_kept_and_noted(stub: OllamaStub) -> None:
    stub.script.append(says("no no no no", Fault("end")))
    done = await once()
    assert (done.answer, done.finish_reason) == ("no no no no", "length")
    assert ENDED_EARLY in done.notes
    assert done.usage.generated == 3
    stub.script.append(says(Fault("end")))
    with pytest.raises(BackendError, match="before its first token"):
        await once()


async def test_a_model_removed_meanwhile_is_named(stub: OllamaStub) -> None:
    backend = await OllamaBackend.open("tiny")
    stub.models.clear()
    with pytest.raises(ModelError, match="no model 'tiny'; get it with: ollama pull tiny"):
        await ask(backend)
    await backend.aclose()


async def test_a_restarted_server_is_found_again(stub: OllamaStub) -> None:
    backend = await OllamaBackend.open("tiny")
    await ask(backend)
    stub.stop()
    with pytest.raises(BackendError, match="start it with: ollama serve"):
        await ask(backend)
    stub.restart()
    assert (await ask(backend))[1].answer
    await backend.aclose()


async def test_a_server_that_stops_in_mid_answer_is_an_error_not_a_wait(stub: OllamaStub) -> None:
    gate = Gate()
    stub.script.append(says("one two ", gate, "three"))
    backend = await OllamaBackend.open("tiny")
    task = asyncio.create_task(ask(backend))
    assert await asyncio.to_thread(gate.reached.wait, 10)
    await asyncio.to_thread(stub.stop)
    with pytest.raises(BackendError, match="was lost after 8 characters"):
        await task
    await backend.aclose()


async def test_a_prompt_that_cannot_fit_is_refused_before_it_is_sent(stub: OllamaStub) -> None:
    with pytest.raises(BackendError, match=r"about 25.* tokens and tiny takes 4096; ask a shorter question"):
        await once(request=Request(messages=(Message("user", "strong silk" * 9_091),)))
    assert stub.bodies("/api/chat") == []


async def test_a_prompt_that_the_server_refuses_is_explained(stub: OllamaStub) -> None:
    with pytest.raises(BackendError, match=r"does not fit tiny .*4096 tokens.*; use fewer passages or a larger"):
        await once(request=Request(messages=(Message("user", "a b " * 5_000),)))


async def test_a_prompt_that_was_cut_is_noted(stub: OllamaStub) -> None:
    earlier = Message("user", "silk is a fibre " * 900)
    cut = await once(request=Request(messages=(earlier, Message("assistant", "Yes."), *QUESTION)))
    assert not any("may have cut the prompt" in note for note in cut.notes)
    longer = Message("user", "silk is a fibre, " * 900)
    cut = await once(request=Request(messages=(longer, Message("assistant", "Yes."), *QUESTION)))
    assert any("may have cut the prompt" in note and "num_ctx is 4096" in note for note in cut.notes)


async def test_a_loaded_twin_with_another_template_is_noted(stub: OllamaStub) -> None:
    add(stub, StubModel(name="twin:latest", tags=None))
    add(stub, StubModel(name="minilm:latest", tags=None, embeds=True, weights="c" * 64))
    stub.loaded = dict(stub.models)
    done = await once()
    assert [n for n in done.notes if "ollama stop" in n] == [n for n in done.notes if n.startswith("twin:latest is")]
    assert len(done.notes) == 2


async def test_tokens_are_estimated_from_the_text(stub: OllamaStub) -> None:
    backend = await OllamaBackend.open("tiny")
    few, many = [await backend.count_tok((Message("user", "silk " * n),)) for n in (10, 100)]
    await backend.aclose()
    assert 10 <= few < many <= 200


async def test_calls_may_overlap(stub: OllamaStub) -> None:
    backend = await OllamaBackend.open("tiny")
    gate = Gate()
    stub.script.extend([says(gate, "slow"), says("fast")])
    slow = asyncio.create_task(ask(backend))
    assert await asyncio.to_thread(gate.reached.wait, 10)
    assert (await ask(backend))[1].answer == "fast"
    gate.release()
    assert (await slow)[1].answer == "slow"
    await backend.aclose()
