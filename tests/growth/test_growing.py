"""Answers that are written back, and a graph that asks."""

from collections.abc import AsyncIterator

import pytest

from preflexor_agents import session
from preflexor_agents.backends.base import Request
from preflexor_agents.backends.scripted import ScriptedBackend
from preflexor_agents.budget import Budget
from preflexor_agents.config import ReflectConfig
from preflexor_agents.errors import BackendError, InputError
from preflexor_agents.events import Event
from preflexor_agents.growth.answers import OWNER, Outcome, keep, outcome
from preflexor_agents.growth.extract import extract, planned
from preflexor_agents.growth.loop import PATIENCE, Grown, grow
from preflexor_agents.packs import load
from preflexor_agents.store import Store

PACK = load("materials")
ENDLESS = Budget(tok=1 << 30, s=1e9)
CONFIG = ReflectConfig(rounds=1, integrate="never")


def answering(answer: str) -> ScriptedBackend:
    return ScriptedBackend(lambda _: f"<|thinking|>so<|/thinking|>{answer}", spec="scripted:thinker")


async def asked(store: Store, question: str, answer: str) -> list[Event]:
    backend = answering(answer)
    cast = {role: backend for role in session.MODEL_ROLES}
    return [event async for event in session.ask(question, cast=cast, config=CONFIG, library=store)]


async def found(store: Store, question: str, answer: str) -> Outcome:
    result = outcome(await asked(store, question, answer))
    assert result is not None
    return result


async def test_the_supported_sentences_of_an_answer_are_kept_with_their_facts_in_the_documents_words(
    store: Store, reader: ScriptedBackend
):
    answer = "Bone is built of collagen and apatite. It is also made of gold and silver wire."
    result = await found(store, "What is bone built of?", answer)
    run = store.graph.begin(planned(reader, PACK, kind="answer", note=result.question))
    kept = await keep(store, reader, result, pack=PACK, run=run)
    assert kept.finding is not None and kept.finding.text.startswith("Bone is built of collagen and apatite.")
    assert "gold" not in kept.finding.text
    (stored,) = store.findings(owner=OWNER)
    assert (stored.title, stored.author) == ("What is bone built of?", "scripted:thinker")
    assert kept.added.relations == 2
    (relation, *_) = store.graph.neighbourhood(store.graph.entity("bone").id).relations
    (evidence,) = store.graph.evidence([relation.id])[relation.id]
    assert evidence.source.endswith("bone.md") and evidence.quote == "Bone is built of collagen and apatite."
    assert (evidence.run.kind, evidence.run.note) == ("answer", "What is bone built of?")


async def test_an_answer_that_no_document_supports_leaves_nothing(store: Store, reader: ScriptedBackend):
    result = await found(store, "What is bone built of?", "Bone is a kind of cheese from the moon.")
    run = store.graph.begin(planned(reader, PACK, kind="answer"))
    kept = await keep(store, reader, result, pack=PACK, run=run)
    assert (kept.finding, store.findings(), store.graph.counts().evidence) == (None, [], 0)


async def test_an_earlier_finding_is_no_evidence_for_a_later_answer(store: Store, reader: ScriptedBackend):
    store.add_finding("Wood is built of cellulose and lignin.", owner="me")
    result = await found(store, "What is wood built of?", "Wood is built of cellulose and lignin.")
    assert result.citations == () and result.supported == ""


async def test_a_run_that_failed_has_no_outcome(store: Store):
    failing = ScriptedBackend(lambda _: BackendError("gone"), spec="scripted:gone")
    cast = {role: failing for role in session.MODEL_ROLES}
    events = [event async for event in session.ask("What?", cast=cast, config=CONFIG, library=store)]
    assert outcome(events) is None and outcome([]) is None


async def filled(store: Store, reader: ScriptedBackend) -> None:
    run = planned(reader, PACK)
    passages = store.graph.unexamined(run)[:1]
    async for _ in extract(store, reader, passages, pack=PACK, run=store.graph.begin(run), budget=ENDLESS):
        pass


async def test_the_graph_asks_grows_and_never_repeats_a_question(store: Store, reader: ScriptedBackend):
    await filled(store, reader)
    before = store.graph.counts()
    questions: list[str] = []

    async def ask(question: str) -> AsyncIterator[Event]:
        questions.append(question)
        about = "Bone is built of collagen and apatite." if len(questions) == 1 else "Mussel glue sticks by dopa."
        for event in await asked(store, about, about):
            yield event

    async def grown() -> list[Grown | str]:
        return [step async for step in grow(store, ask, reader, pack=PACK, questions=2, budget=ENDLESS)]

    steps = [step for step in await grown() if isinstance(step, Grown)]
    assert len(steps) == len(set(questions)) == 2
    after = store.graph.counts()
    assert after.relations > before.relations and sum(step.novelty for step in steps) > 0
    await grown()
    assert len(set(questions)) == len(questions) == 4


async def test_the_loop_ends_when_nothing_new_comes(store: Store, reader: ScriptedBackend):
    await filled(store, reader)
    for n in range(PATIENCE + 2):
        store.graph.begin(planned(reader, PACK, kind="grow", note=f"other {n}"))

    async def ask(question: str) -> AsyncIterator[Event]:
        for event in await asked(store, question, "Nobody knows that, not even the moon."):
            yield event

    steps = [step async for step in grow(store, ask, reader, pack=PACK, questions=50, budget=ENDLESS)]
    assert steps[-1] in ("novelty", "asked_all") and len(steps) <= PATIENCE + 1


@pytest.mark.parametrize(("budget", "stop"), [(Budget(1, 1e9), "budget_tokens"), (Budget(99, 0.0), "budget_seconds")])
async def test_the_loop_keeps_its_budget(store: Store, reader: ScriptedBackend, budget: Budget, stop: str):
    await filled(store, reader)

    async def ask(question: str) -> AsyncIterator[Event]:
        for event in await asked(store, question, "Bone is built of collagen and apatite."):
            yield event

    steps = [step async for step in grow(store, ask, reader, pack=PACK, questions=50, budget=budget)]
    assert steps[-1] == stop and len(steps) <= 2


async def test_an_empty_graph_has_no_questions(store: Store, reader: ScriptedBackend):
    async def ask(question: str) -> AsyncIterator[Event]:
        raise AssertionError(question)
        yield

    with pytest.raises(InputError, match=r"the graph is empty.*preflexor graph extract"):
        _ = [step async for step in grow(store, ask, reader, pack=PACK, questions=1, budget=ENDLESS)]


async def test_facts_that_cannot_be_read_out_of_an_answer_cost_the_facts_not_the_loop(store: Store, reader):
    await filled(store, reader)
    calls: list[Request] = []

    def gone(request: Request) -> BackendError:
        calls.append(request)
        return BackendError("gone")

    async def ask(question: str) -> AsyncIterator[Event]:
        for event in await asked(store, question, "Bone is built of collagen and apatite."):
            yield event

    silent = ScriptedBackend(gone, spec="scripted:reader")
    steps = [step async for step in grow(store, ask, silent, pack=PACK, questions=1, budget=ENDLESS)]
    assert isinstance(steps[0], Grown) and steps[0].error == "gone" and len(calls) == 1
