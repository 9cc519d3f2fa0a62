"""Questions through whole protocols: with a scripted model where what it says counts, and with nano."""

from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import pytest

from preflexor_agents.backends.base import Request
from preflexor_agents.errors import BackendError, ConfigError, InputError
from preflexor_agents.evaluation.results import Result, from_json, to_json
from preflexor_agents.evaluation.running import evaluate
from preflexor_agents.evaluation.systems import PROTOCOLS, system
from preflexor_agents.evaluation.tasks import Task
from preflexor_agents.store import Store
from tests.evaluation.speaking import speak

TASK = Task(id="t", question="How much?", kind="numeric", answer="4", column="sums")


async def results(*protocols: str, tasks: tuple[Task, ...] = (TASK,), **more: int) -> list[Result]:
    systems = [system(f"nano::{protocol}") for protocol in protocols]
    return [result async for result in evaluate(tasks, systems, **more)]


def critical(request: Request) -> str:
    """Drafts 3, is criticised, revises to 4; the judge finds what says 4 better."""
    text = request.messages[-1].content
    if "Better:" in text:
        return "Better: A" if "It is 4." in text.partition("\n\nB:")[0] else "Better: B"
    if "Verdict:" in text:
        return "Count again.\nVerdict: revise"
    if "rewrite the thinking" in text:
        return "One more than three."
    return "It is 4." if request.thinking else "<think>Three.</think>It is 3."


async def test_each_round_is_scored_and_so_is_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    speak(monkeypatch, critical)
    (found,) = await results("gate:rounds=2")
    assert (found.right, found.rounds_right, found.proposed_right) == (True, (False, True), (True,))
    assert (found.accepted, found.changed, found.drafts_right) == ((True,), (True,), (False,))
    assert found.well_formed and found.thinking == "Three." and found.calls >= 5


async def test_the_bare_answer_is_one_call_without_thinking(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = speak(monkeypatch, lambda request: "It is 4.")
    (found,) = await results("answer")
    assert found.right and found.well_formed is None and found.calls == 1
    assert backend.requests[0].thinking == ""


async def test_drafts_are_scored_one_by_one_for_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter("3454")
    speak(
        monkeypatch, lambda r: "Better: tie" if "Better:" in r.messages[-1].content else f"<think>x</think>{next(said)}"
    )
    (found,) = await results("best-of:candidates=4")
    assert sorted(found.drafts_right) == [False, False, True, True]


async def test_a_draft_without_thinking_is_not_well_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    speak(monkeypatch, lambda request: "<think>It goes on and on")
    (found,) = await results("think")
    assert found.well_formed is False and not found.right


async def test_a_question_that_fails_is_a_result_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    speak(monkeypatch, lambda r: BackendError("gone") if "Bad" in r.messages[-1].content else "<think>x</think>4")
    tasks = (Task(id="bad", question="Bad?", kind="numeric", answer="4", column="sums"), TASK)
    found = {result.task: result for result in await results("think", "answer", tasks=tasks)}
    assert "gone" in found["bad"].error and found["t"].right


async def test_what_is_done_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = speak(monkeypatch, lambda request: "<think>x</think>4")
    systems = [system("nano::think")]
    first = [r async for r in evaluate([TASK], systems, seeds=(0, 1))]
    asked = len(backend.requests)
    again = [r async for r in evaluate([TASK], systems, seeds=(0, 1, 2), done={r.key() for r in first})]
    assert [r.seed for r in again] == [2] and len(backend.requests) == asked + 1


async def test_texts_that_come_with_a_question_stand_in_its_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = speak(monkeypatch, lambda request: "<think>x</think>4")
    given = Task(id="g", question="How much?", kind="numeric", answer="4", passages=("It is four.", "Or not."))
    await results("think", "answer", tasks=(given,))
    assert all("It is four." in r.messages[-1].content for r in backend.requests)


def test_a_result_is_a_line_of_json_and_back() -> None:
    result = Result(task="t", system="s", seed=1, column="c", proposed_right=(None, True), accepted=(False, True))
    assert from_json(to_json(result), where="line 1") == result
    with pytest.raises(InputError, match=r"^line 1 is no result of this version"):
        from_json({**to_json(result), "new": 1}, where="line 1")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_that_is_listed_exists(protocol: str) -> None:
    found = system(f"mine=gguf:a/b.gguf::{protocol}")
    assert (found.name, found.model, found.protocol) == ("mine", "gguf:a/b.gguf", protocol)


def test_a_protocol_is_changed_by_key() -> None:
    found = system("ollama:qwen3:4b::default:rounds=4,gate=off,integrate=never", budget_tok=99)
    assert found.config is not None and found.name == "ollama:qwen3:4b default:rounds=4,gate=off,integrate=never"
    changed = asdict(found.config)
    assert (changed["rounds"], changed["gate"], changed["integrate"], changed["budget_tok"]) == (4, False, "never", 99)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no model"),
        ("nano::magic", "protocol 'magic' is unknown; use one of: answer, think"),
        ("nano::default:depth=3", "'depth=3' changes nothing of protocol default; known keys: variant, rounds"),
        ("nano::default:gate=maybe", "gate is 'maybe'; it must be on or off"),
        ("nano::default:rounds=many", "rounds is 'many'; it must be a number"),
        ("nano::default:rounds=0", "rounds is 0; it must be 1 to 100"),
        ("nano::answer:rounds=2", "has no settings"),
    ],
)
def test_a_system_that_is_none_is_one_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        system(text)


async def test_nano_answers_from_its_library(tmp_path: Path) -> None:
    tasks = [
        Task(id="a", question="What is the density of bamboo?", kind="numeric", answer="0.7 g/cm^3", column="single"),
        Task(id="b", question="What is the price of bamboo?", kind="unanswerable", column="unanswerable"),
    ]
    with Store.open(tmp_path / "library.db") as store:
        store.ingest([Path(str(files("preflexor_agents") / "data" / "library"))])
        systems = [system("nano::think"), system("nano::default:rounds=2")]
        found = [r async for r in evaluate(tasks, systems, library=store)]
    assert {(r.task, r.system) for r in found if r.right} >= {("a", "nano think"), ("a", "nano default:rounds=2")}
    assert all(r.tokens_generated and not r.error for r in found)
    assert next(r for r in found if r.key()[:2] == ("nano default:rounds=2", "a")).supported == 1
