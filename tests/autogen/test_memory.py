"""The knowledge memory by itself: asking, keeping, clearing, configs."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from autogen_core import CancellationToken, Image
from autogen_core.memory import Memory, MemoryContent, MemoryMimeType

from preflexor_agents.autogen import KnowledgeMemory, load_component
from preflexor_agents.errors import ConfigError, InputError, PreflexorError, StoreError
from preflexor_agents.store import Store
from tests.autogen.shelf import HeldEmbedder, cancelled, make_store

TOUGHNESS = "fracture toughness of nacre"
LIMPET = "Limpet teeth reach a tensile strength of 4.9 GPa."


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_store(tmp_path / "library.db")


@pytest.fixture
async def memory(path: Path) -> AsyncIterator[KnowledgeMemory]:
    made = KnowledgeMemory(path, name="notebook")
    yield made
    await made.close()


def text(words: str, **metadata: Any) -> MemoryContent:
    return MemoryContent(content=words, mime_type=MemoryMimeType.TEXT, metadata=metadata)


async def sources(memory: KnowledgeMemory, query: str) -> list[str]:
    return [(m.metadata or {})["source"] for m in (await memory.query(query)).results]


async def test_a_query_gives_passages_with_scores_and_their_place_in_the_document(memory):
    results = (await memory.query(TOUGHNESS)).results
    best = results[0].metadata
    assert [type(m.metadata["score"]) for m in results] == [float] * 3
    assert best["score"] > results[1].metadata["score"] and best["number"] == 1
    document = Path(best["source"]).read_text(encoding="utf-8")
    assert results[0].content == document[best["start"] : best["end"]] and "4.5 MPa" in results[0].content
    assert (best["title"], best["page"]) == ("Nacre", None) and isinstance(best["chunk_id"], int)


async def test_a_query_may_be_content_and_want_another_number_of_passages(memory):
    assert len((await memory.query(text(TOUGHNESS), k=1)).results) == 1
    assert (await memory.query("?!")).results == []


async def test_an_argument_that_means_nothing_is_refused(memory):
    with pytest.raises(InputError, match="no argument 'top_k'; it takes k"):
        await memory.query(TOUGHNESS, top_k=3)
    with pytest.raises(ConfigError, match="k is 0"):
        await memory.query(TOUGHNESS, k=0)


async def test_a_cancelled_token_ends_a_query_and_an_addition_before_they_begin(memory, path):
    for call in (memory.query(TOUGHNESS, cancelled()), memory.add(text(LIMPET), cancelled())):
        with pytest.raises(asyncio.CancelledError):
            await call
    with Store.open(path) as store:
        assert store.findings() == []


async def test_a_cancelled_token_ends_the_waiting_for_a_slow_store(path):
    held, token = HeldEmbedder(), CancellationToken()
    with Store.open(path, embedder=held) as store:
        query = asyncio.create_task(KnowledgeMemory(store).query(TOUGHNESS, token))
        await asyncio.to_thread(held.reached.wait, 20)
        token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await query
        held.go_on.set()


async def test_many_calls_at_once_all_come_through(memory):
    await asyncio.gather(
        *(memory.add(text(f"Limpet number {n} grazes.")) for n in range(10)),
        *(memory.query(TOUGHNESS) for _ in range(10)),
    )
    assert len((await memory.query("limpet grazes", k=20)).results) == 13


async def test_what_was_added_is_found_with_where_it_came_from(memory, path):
    await memory.add(text(LIMPET, author="Ann", title="Limpets", topic="teeth", year=2015))
    await memory.close()
    again = KnowledgeMemory(path)
    found = (await again.query("limpet teeth")).results[0]
    await again.close()
    assert found.content == LIMPET and found.metadata["title"] == "Limpets"
    assert (found.metadata["topic"], found.metadata["year"]) == ("teeth", 2015)
    origin = found.metadata["finding"]
    assert (origin["author"], origin["owner"], origin["mime_type"]) == ("Ann", "notebook", "text/plain")
    assert origin["added_at"].endswith("+00:00") and origin["metadata"]["year"] == 2015


async def test_metadata_of_ones_own_cannot_hide_the_place_of_a_passage(memory):
    await memory.add(text(LIMPET, source="hearsay", score="high", chunk_id="x"))
    found = (await memory.query("limpet teeth")).results[0].metadata
    assert found["source"].startswith("finding:") and isinstance(found["score"], float)
    assert found["finding"]["metadata"] == {"source": "hearsay", "score": "high", "chunk_id": "x"}


@pytest.mark.parametrize(
    ("content", "mime_type"),
    [
        ("# Limpets\n\nTeeth of goethite.\n", MemoryMimeType.MARKDOWN),
        ({"animal": "limpet", "teeth": "goethite"}, MemoryMimeType.JSON),
        (b"Limpet teeth are goethite.", "text/plain"),
    ],
)
async def test_whatever_is_text_can_be_added(memory, content, mime_type):
    await memory.add(MemoryContent(content=content, mime_type=mime_type))
    found = (await memory.query("limpet goethite")).results[0]
    assert "goethite" in str(found.content) and found.metadata["source"].startswith("finding:")


@pytest.mark.parametrize(
    ("content", "mime_type", "says"),
    [
        (Image(PIL.Image.new("RGB", (1, 1))), MemoryMimeType.IMAGE, "has no text to search"),
        ("iVBORw0KGgo=", "image/png", "has no text to search"),
        (b"\x00\x01", MemoryMimeType.BINARY, "has no text to search"),
        (b"\xff\xfe\xfa", "text/plain", "cannot be read as text"),
        ({"a": {1}}, MemoryMimeType.JSON, "cannot be read as text"),
        ("  ", MemoryMimeType.TEXT, "the finding is empty"),
    ],
)
async def test_what_has_no_text_is_refused_in_one_line(memory, content, mime_type, says):
    with pytest.raises(InputError, match=says) as caught:
        await memory.add(MemoryContent(content=content, mime_type=mime_type))
    assert "\n" not in str(caught.value)


async def test_clear_removes_what_this_memory_added_and_nothing_else(memory, path):
    other = KnowledgeMemory(path)
    await memory.add(text(LIMPET))
    await other.add(text(LIMPET))
    await other.add(text("Limpets graze on rocks."))
    await memory.clear()
    with Store.open(path) as store:
        assert [f.text for f in store.findings()] == [LIMPET, "Limpets graze on rocks."]
        assert store.stats().documents == 5
    await other.close()


async def test_two_memories_without_a_name_do_not_clear_each_other(path):
    first, second = KnowledgeMemory(path), KnowledgeMemory(path)
    await first.add(text(LIMPET))
    await second.clear()
    assert (await sources(first, "limpet"))[0].startswith("finding:")
    await first.clear()
    assert not any(s.startswith("finding:") for s in await sources(first, "limpet"))
    await first.close()
    await second.close()


async def test_a_memory_closes_what_it_opened_and_can_be_used_again(memory):
    first = await sources(memory, TOUGHNESS)
    opened = memory._shelf._store()
    await memory.close()
    await memory.close()
    with pytest.raises(StoreError, match="is closed"):
        opened.stats()
    assert await sources(memory, TOUGHNESS) == first


async def test_an_open_store_stays_open(path):
    with Store.open(path) as store:
        memory = KnowledgeMemory(store)
        await memory.query(TOUGHNESS)
        await memory.close()
        assert store.stats().documents == 3
    with pytest.raises(StoreError, match="is closed"):
        await memory.query(TOUGHNESS)


async def test_a_loaded_memory_is_the_one_that_was_dumped(path):
    memory = KnowledgeMemory(path, k=2, budget_tok=300, role="assistant")
    await memory.add(text(LIMPET))
    dumped = json.loads(memory.dump_component().model_dump_json())
    assert dumped["provider"] == "preflexor_agents.autogen.KnowledgeMemory" and dumped["component_type"] == "memory"
    for load in (Memory.load_component, lambda config: load_component(config, expected=KnowledgeMemory)):
        loaded = load(dumped)
        assert loaded.dump_component() == memory.dump_component()
        assert len((await loaded.query("limpet")).results) == 2
    await loaded.clear()
    with Store.open(path) as store:
        assert store.findings() == []


def test_a_memory_of_an_open_store_is_dumped_with_its_path(path):
    with Store.open(path) as store:
        assert KnowledgeMemory(store).dump_component().config["store"] == str(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"store": "none.db"}, "store: there is no file none.db; make it with"),
        ({"k": 0}, "k is 0; it must be 1 to"),
        ({"k": "many"}, "config.k: "),
        ({"budget_tok": 5}, "budget_tok is 5; it must be at least 128"),
        ({"role": "system"}, "config.role: "),
        ({"name": " "}, "name is empty"),
        ({"top_k": 3}, "config.top_k: KnowledgeMemory has no such field"),
    ],
)
def test_a_wrong_config_gives_one_line_that_names_the_field(path, change, says):
    dumped = KnowledgeMemory(path).dump_component().model_dump()
    dumped["config"].update(change)
    with pytest.raises(ConfigError) as caught:
        load_component(dumped, expected=KnowledgeMemory)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_block_is_never_said_by_the_system(path):
    with pytest.raises(ConfigError, match="role is 'system'; it must be user or assistant"):
        KnowledgeMemory(path, role="system")


async def test_a_damaged_store_is_an_error_of_ours(tmp_path):
    (tmp_path / "bad.db").write_text("no database", encoding="utf-8")
    with pytest.raises(PreflexorError, match="is no SQLite file"):
        await KnowledgeMemory(tmp_path / "bad.db").query(TOUGHNESS)
