"""Models that clients of one process share: loaded once, freed when nobody has used them for a while."""

import asyncio
import gc
import threading
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="needs the quantize extra")

from preflexor_agents.autogen import LlamaCppClient
from preflexor_agents.backends import model_file
from preflexor_agents.backends.model_cache import MODELS, ModelCache
from preflexor_agents.errors import ModelError
from tests.autogen.client_calls import QUESTION
from tests.autogen.local_models import TALKS


async def test_a_host_that_builds_its_team_anew_for_each_run_loads_the_model_once(write_model, counts) -> None:
    path = write_model(TALKS)
    for _ in range(3):
        client = LlamaCppClient(path, n_threads=1)
        await client.create(QUESTION)
        await client.close()
    assert counts.loads == 1
    assert len(MODELS) == 1


async def test_a_host_that_never_closes_its_clients_loads_the_model_once_too(write_model, counts) -> None:
    path = write_model(TALKS)
    for _ in range(3):
        client = LlamaCppClient(path, n_threads=1)
        await client.create(QUESTION)
        del client
        gc.collect()
    assert counts.loads == 1
    MODELS.free_idle()
    assert len(MODELS) == 0


def test_each_run_may_have_an_event_loop_of_its_own(write_model, counts) -> None:
    client = LlamaCppClient(write_model(TALKS), n_threads=1)
    said = {asyncio.run(client.create(QUESTION)).content for _ in range(3)}
    assert (said, counts.loads) == ({"yes it holds"}, 1)
    asyncio.run(client.close())


async def test_clients_in_use_at_once_share_a_model_and_others_have_their_own(write_model, counts) -> None:
    path = write_model(TALKS)
    clients = [LlamaCppClient(path, n_threads=1) for _ in range(4)]
    clients += [LlamaCppClient(path, n_threads=1, n_ctx=256), LlamaCppClient(path, n_threads=2)]
    await asyncio.gather(*(client.create(QUESTION) for client in clients))
    assert (counts.loads, counts.contexts, len(MODELS)) == (3, 3, 3)
    for client in clients:
        await client.close()


async def test_different_names_of_a_file_are_one_model(write_model, counts, monkeypatch) -> None:
    path = Path(write_model(TALKS))
    monkeypatch.chdir(path.parent)
    clients = [LlamaCppClient(p, n_threads=1) for p in (path, path.name, path.parent / "." / path.name)]
    for client in clients:
        await client.create(QUESTION)
        await client.close()
    assert counts.loads == 1


async def test_a_model_is_held_as_long_as_anyone_uses_it(write_model, counts) -> None:
    path = write_model(TALKS)
    first, second = (LlamaCppClient(path, n_threads=1, keep_alive=0) for _ in range(2))
    await first.create(QUESTION)
    await second.create(QUESTION)
    await first.close()
    MODELS.free_idle()
    assert (await second.create(QUESTION)).content == "yes it holds"
    await second.close()
    assert counts.loads == 1


async def test_a_model_that_is_not_kept_alive_is_freed_with_its_thread(write_model, counts) -> None:
    client = LlamaCppClient(write_model(TALKS), n_threads=1, keep_alive=0)
    await client.create(QUESTION)
    (waiting,) = (t for t in threading.enumerate() if t.name == "preflexor models")
    await client.close()
    waiting.join()
    assert (len(MODELS), counts.contexts) == (0, 0)
    assert not any(t.name.startswith("llama.cpp") for t in threading.enumerate())


async def test_a_closed_client_can_be_used_again(write_model, counts) -> None:
    client = LlamaCppClient(write_model(TALKS), n_threads=1, keep_alive=0)
    for _ in range(2):
        assert (await client.create(QUESTION)).content == "yes it holds"
        await client.close()
        await client.close()
        MODELS.free_idle()
    assert counts.loads == 2


async def test_a_client_that_is_closed_during_a_call_still_answers_it(write_model, counts) -> None:
    client = LlamaCppClient(write_model(TALKS), n_threads=1, keep_alive=0)
    call = asyncio.ensure_future(client.create(QUESTION))
    await asyncio.sleep(0)
    await client.close()
    assert (await call).content == "yes it holds"


def test_a_broken_template_is_told_with_its_file_and_leaves_nothing(write_model, counts) -> None:
    client = LlamaCppClient(write_model(TALKS, chat_template="{% if %}"), n_threads=1)
    for _ in range(2):
        with pytest.raises(ModelError, match=r"\.gguf: the model's chat template is broken"):
            client.count_tokens(QUESTION)
    asyncio.run(client.close())


async def test_counting_tokens_reads_the_vocabulary_alone(write_model, counts) -> None:
    client = LlamaCppClient(write_model(TALKS), n_threads=1)
    before = client.count_tokens(QUESTION)
    assert client.remaining_tokens(QUESTION) == 2048 - before
    assert (counts.loads, counts.vocabularies) == (0, 1)
    result = await client.create(QUESTION)
    assert result.usage.prompt_tokens == client.count_tokens(QUESTION) == before
    assert (counts.loads, counts.vocabularies) == (1, 1)
    await client.close()


async def test_the_event_loop_goes_on_while_a_model_is_loaded(write_model, counts, monkeypatch) -> None:
    gate = threading.Event()
    load = model_file.load

    def slow(path: Path, *, vocabulary_only: bool = False) -> model_file.ModelFile:
        gate.wait()
        return load(path, vocabulary_only=vocabulary_only)

    monkeypatch.setattr(model_file, "load", slow)
    client = LlamaCppClient(write_model(TALKS), n_threads=1)
    asking = [asyncio.ensure_future(client.create(QUESTION)) for _ in range(2)]
    for _ in range(10):
        await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.wait(asking[:1])
    gate.set()
    assert (await asking[1]).content == "yes it holds"
    await client.close()


async def test_a_file_that_cannot_be_loaded_can_be_tried_again(write_model, tmp_path, counts) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUFnot really")
    client = LlamaCppClient(path, n_threads=1)
    for _ in range(2):
        with pytest.raises(ModelError, match="cannot be loaded"):
            await client.create(QUESTION)
    with pytest.raises(ModelError, match="cannot be loaded"):
        client.count_tokens(QUESTION)
    path.write_bytes(Path(write_model(TALKS)).read_bytes())
    assert (await client.create(QUESTION)).content == "yes it holds"
    await client.close()


def test_freeing_what_was_never_held_returns_at_once() -> None:
    cache = ModelCache()
    cache.free_idle()
    assert len(cache) == 0


def test_leases_taken_and_given_back_by_many_threads_leave_nothing(tmp_path) -> None:
    cache, before = ModelCache(), threading.active_count()

    def use(n: int) -> None:
        for k in range(50):
            cache.lease(tmp_path / f"{(n + k) % 3}.gguf", context_tok=1, threads=1).release(0)

    users = [threading.Thread(target=use, args=(n,)) for n in range(8)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    cache.free_idle()
    assert (len(cache), threading.active_count()) == (0, before)
