"""Facts out of the passages of a store."""

import asyncio
import json

import pytest

from preflexor_agents.backends import open_backend
from preflexor_agents.backends.base import Request
from preflexor_agents.backends.scripted import Gate, ScriptedBackend
from preflexor_agents.budget import Budget
from preflexor_agents.errors import BackendError
from preflexor_agents.growth import reading
from preflexor_agents.growth.extract import FAILURES, Examined, ask, extract, planned
from preflexor_agents.packs import load
from preflexor_agents.store import Store
from tests.growth.conftest import facts_in

PACK = load("materials")
ENDLESS = Budget(tok=1 << 30, s=1e9)


async def read_all(store: Store, backend: ScriptedBackend, *, budget: Budget = ENDLESS) -> list[Examined]:
    run = planned(backend, PACK)
    passages = store.graph.unexamined(run)
    run = store.graph.begin(run)
    return [done async for done in extract(store, backend, passages, pack=PACK, run=run, budget=budget)]


async def test_facts_are_stored_with_the_words_that_say_so(store: Store, reader: ScriptedBackend):
    done = await read_all(store, reader)
    assert len(done) == 3 and [d.error for d in done] == [""] * 3
    near = store.graph.neighbourhood(store.graph.entity("bone").id)
    assert {entity.name for entity in near.entities} == {"bone", "collagen", "apatite"}
    for quotes in store.graph.evidence([r.id for r in near.relations]).values():
        assert [q.quote for q in quotes] == ["Bone is built of collagen and apatite."]
        assert quotes[0].source.endswith("bone.md") and quotes[0].run.model == "scripted:reader"
    assert any("quote is not in the text" in line for d in done for line in d.added.refused)
    assert store.graph.find("gold") == []


async def test_what_was_read_is_not_read_again_until_its_text_changes(store: Store, reader: ScriptedBackend, tmp_path):
    await read_all(store, reader)
    assert await read_all(store, reader) == []
    assert len(reader.requests) == 3
    (tmp_path / "bone.md").write_text("# Bone\n\nBone is built of collagen and apatite. It heals.\n", encoding="utf-8")
    store.ingest([tmp_path / "bone.md"])
    assert [d.passage.title for d in await read_all(store, reader)] == ["Bone"]
    other = ScriptedBackend(facts_in, spec="scripted:other")
    assert len(await read_all(store, other)) == 3


async def test_an_extraction_that_is_broken_off_goes_on_with_the_rest(store: Store):
    gate = Gate()
    halting = ScriptedBackend(facts_in, spec="scripted:reader", gates={2: gate})
    work = asyncio.create_task(read_all(store, halting))
    await gate.reached.wait()
    while len(store.graph.unexamined(planned(halting, PACK))) > 1:
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    rest = await read_all(store, ScriptedBackend(facts_in, spec="scripted:reader"))
    assert len(rest) == 1
    assert store.graph.counts().relations == 4


async def test_a_spent_budget_leaves_the_rest_for_next_time(store: Store, reader: ScriptedBackend):
    assert await read_all(store, reader, budget=Budget(tok=0, s=1e9)) == []
    assert await read_all(store, reader, budget=Budget(tok=100, s=0.0)) == []
    assert len(await read_all(store, reader)) == 3


async def test_a_passage_that_fails_is_told_and_tried_again(store: Store):
    def fails_on_bone(request: Request) -> str | BackendError:
        return BackendError("no") if "Bone" in request.messages[-1].content else facts_in(request)

    done = await read_all(store, ScriptedBackend(fails_on_bone, spec="scripted:reader"))
    assert sorted(d.error for d in done) == ["", "", "no"]
    again = await read_all(store, ScriptedBackend(facts_in, spec="scripted:reader"))
    assert [d.passage.title for d in again] == ["Bone"]


async def test_a_model_that_is_gone_ends_the_extraction(store: Store):
    for n in range(8):
        store.add_finding(f"Finding {n}.", owner="me")
    gone = ScriptedBackend(lambda _: BackendError("connection refused"), spec="scripted:gone")
    with pytest.raises(
        BackendError, match=f"{FAILURES} calls failed one after the other, the last: connection refused"
    ):
        await read_all(store, gone)
    assert len(store.graph.unexamined(planned(gone, PACK))) == 11


async def test_a_real_model_is_held_to_the_schema_and_nothing_without_a_quote_is_stored(store: Store):
    nano = await open_backend("nano")
    try:
        (passage, *_) = store.graph.unexamined(planned(nano, PACK))
        reply = await ask(nano, passage, PACK, seed=1)
        said = json.loads(reply.answer) if reply.finish_reason == "stop" else {"facts": []}
        assert all(f["relation"] in PACK.relations for f in said["facts"])
        found = reading.read(reply.answer, passage)
        assert all(passage.text[q.start : q.end] for f in found.facts for q in f.quotes)
    finally:
        await nano.aclose()
