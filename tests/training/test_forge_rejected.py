"""The rejected side of a row: where it comes from, which sample is kept, and why others are not."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflexor_agents import packs
from preflexor_agents.backends.base import Backend, Completion, Request, complete
from preflexor_agents.backends.llamacpp import LlamaCppBackend, nano_path
from preflexor_agents.backends.scripted import Reply as Scripted
from preflexor_agents.backends.scripted import ScriptedBackend
from preflexor_agents.errors import BackendError, PreflexorError
from preflexor_agents.events import Passage
from preflexor_agents.prompts import Grounds, Message, draft
from preflexor_agents.reflection.verdicts import same
from preflexor_training.forge import rejected
from preflexor_training.forge.asking import Written
from preflexor_training.forge.given import Question
from preflexor_training.forge.perturbing import perturbed
from preflexor_training.forge.rejected import Rejected
from preflexor_training.forge.rows import run_steps
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Call, Dropped, Job, Step
from preflexor_training.forge.verifiers import exact
from preflexor_training.pairs import Reply

CHOSEN = Reply(thinking="Tablets slide.", answer="Nacre has a toughness of 4.5 MPa m^0.5.")
QUESTION = "How tough is nacre?"
TRAINED = (Message("user", f"{QUESTION} Use <|thinking|>."),)
PASSAGES = (
    Passage(
        chunk_id=1,
        source="nacre.md",
        title="Nacre",
        text="Nacre has 4.5 MPa m^0.5.",
        page=None,
        start=0,
        end=24,
        score=1,
    ),
)
Say = Callable[[Request], Scripted]


def fixed(name: str, value: object) -> Step:
    async def run(_job: Job, _values: object) -> object:
        return value

    return Step(name=name, run=run)


async def run(
    settings: ForgeSettings,
    *,
    student: Say | list[Scripted] = lambda _: "Glue.",
    teacher: Say | list[Scripted] = lambda _: "Glue.",
    judge: Say | list[Scripted] = lambda _: "Better: tie",
    gold: str = "",
    chosen: Reply = CHOSEN,
    calls: list[Call] | None = None,
) -> Rejected:
    backends: dict[str, Backend] = {
        "student": ScriptedBackend(student),
        "teacher": ScriptedBackend(teacher),
        "judge": ScriptedBackend(judge),
    }

    async def ask(call: Call) -> Completion:
        if calls is not None:
            calls.append(call)
        return await complete(backends[call.who], call.request)

    async def retrieve(_query: str, *, k: int) -> tuple[Passage, ...]:
        return ()

    job = Job(number=0, seed=1, passages=PASSAGES, pack=packs.load("general"), ask=ask, retrieve=retrieve)
    before = (
        fixed("question", Question(text=QUESTION, gold=gold)),
        fixed("enrichment", Written()),
        fixed("prompt", TRAINED),
        fixed("answer", chosen),
    )
    ran = await run_steps((*before, *rejected.steps(settings)), lambda _: job)
    if ran.fall is not None:
        raise ran.fall
    found: Rejected = ran.values["rejected"]
    return found


def first_is_better(_: Request) -> str:
    return "Better: A"


def worse_with_glue(request: Request) -> str:
    """A judge that knows: the answer with glue is the worse one."""
    a = request.messages[-1].content.split("\n\nA:\n")[1].split("\n\nB:\n")[0]
    return "Better: B" if "Glue" in a else "Better: A"


async def test_in_phase_one_the_student_answers_straight_away_and_what_it_thinks_is_left_out() -> None:
    calls: list[Call] = []
    found = await run(ForgeSettings(), student=lambda _: "<|thinking|>hm<|/thinking|>Glue.", calls=calls)
    assert found.reply == Reply(answer="Glue.") and found.kind == "student"
    (asked,) = calls
    assert asked.who == "student" and asked.request.messages[-1].content == f"{QUESTION}\n\n{rejected.STRAIGHT}"
    assert asked.request.sampling.temperature == 1.0 and asked.request.sampling.max_tok == 512
    assert found.scores["samples"] == found.scores["accepted"] == 1


async def test_with_the_agents_prompt_the_student_has_the_passages_too() -> None:
    calls: list[Call] = []
    await run(ForgeSettings(prompt="grounded"), calls=calls)
    (asked,) = calls
    assert PASSAGES[0].text in asked.request.messages[-1].content
    assert asked.request.messages[-1].content.endswith(f"Question: {QUESTION}\n\n{rejected.STRAIGHT}")


async def test_in_phase_two_the_student_is_asked_as_it_is_trained_and_keeps_its_thinking() -> None:
    calls: list[Call] = []
    say = "<|thinking|>hm<|/thinking|><|reflect|>well<|/reflect|>Glue."
    found = await run(ForgeSettings(phase=2), student=lambda _: say, calls=calls)
    assert found.reply == Reply(thinking="hm", reflection="well", answer="Glue.")
    assert calls[0].request.messages == TRAINED and calls[0].request.sampling.max_tok == 1500


@pytest.mark.parametrize(("kind", "task"), [("teacher_wrong", rejected.WRONG), ("teacher_shallow", rejected.SHALLOW)])
async def test_a_teacher_is_told_to_err_and_writes_no_tags(kind: str, task: str) -> None:
    calls: list[Call] = []
    settings = ForgeSettings.model_validate({"rejected": kind})
    say = Completion(answer="It is soft [1]. <|/thinking|>")
    found = await run(settings, teacher=lambda _: say, calls=calls)
    assert calls[0].who == "teacher" and calls[0].request.messages[-1].content.endswith(task)
    assert (
        found.reply.thinking is None and "<|/thinking|>" not in found.reply.answer and "[1]" not in found.reply.answer
    )


async def test_a_spoilt_answer_costs_no_call_and_keeps_the_thinking() -> None:
    calls: list[Call] = []
    found = await run(ForgeSettings(rejected="perturbed"), calls=calls)
    assert calls == [] and found.reply.thinking == CHOSEN.thinking
    assert not same(found.reply.answer, CHOSEN.answer)


@pytest.mark.parametrize(
    ("say", "kind"),
    [
        ("<|thinking|>and on and on", "unclosed"),
        ("<|thinking|>a<|thinking|>b<|/thinking|>Glue.", "malformed"),
        ("<|thinking|>a<|/thinking|>Glue.<|/reflect|>", "malformed"),
        ("<|thinking|>a<|/thinking|>", "empty"),
        ("Nacre has a toughness of 4.5 MPa m^0.5", "equal_to_chosen"),
    ],
)
@pytest.mark.parametrize("phase", [1, 2])
async def test_a_reply_that_is_of_no_use_is_not_used(say: str, kind: str, phase: int) -> None:
    with pytest.raises(Dropped) as dropped:
        await run(ForgeSettings.model_validate({"phase": phase}), student=lambda _: say)
    assert dropped.value.kind == kind
    assert dropped.value.scores[kind] == dropped.value.scores["samples"] and dropped.value.scores["accepted"] == 0


async def test_another_sample_is_drawn_where_none_can_be_read() -> None:
    calls: list[Call] = []
    found = await run(ForgeSettings(phase=2), student=["<|thinking|>on", "<|thinking|>on", "Glue."], calls=calls)
    assert found.reply == Reply(answer="Glue.")
    assert found.scores["samples"] == 3 and found.scores["unclosed"] == 2
    assert [call.attempt for call in calls] == [0, 1, 2] and len({call.request.seed for call in calls}) == 3


async def test_thinking_that_runs_into_the_limit_is_unclosed_where_the_server_tells_sections_apart() -> None:
    cut = Completion(thinking="and on", finish_reason="length")
    with pytest.raises(Dropped, match="unclosed"):
        await run(ForgeSettings(phase=2), student=lambda _: cut)


async def test_samples_share_one_prompt_and_differ_in_their_seeds() -> None:
    calls: list[Call] = []
    words = itertools.count()
    found = await run(ForgeSettings(samples=4), student=lambda _: f"Glue {next(words)}.", calls=calls)
    assert len({call.request.messages for call in calls}) == 1 and len({call.request.seed for call in calls}) == 4
    assert found.reply.answer == "Glue 0." and found.scores["samples"] == 4


async def test_of_samples_that_are_worse_by_the_verifier_the_worst_is_kept() -> None:
    settings = ForgeSettings.model_validate(
        {"samples": 3, "verifier": "numeric", "questions": "q.jsonl", "margin": 0.4}
    )
    chosen = replace(CHOSEN, answer="It is 2 nm and 5 GPa.")
    found = await run(settings, student=["2 nm, 5000 MPa.", "2 nm.", "9 nm."], gold="2 nm and 5 GPa", chosen=chosen)
    assert found.reply.answer == "9 nm."
    assert found.scores == {
        "samples": 3,
        "accepted": 2,
        "cut": 0,
        "tie": 1,
        "chosen": 1.0,
        "rejected": 0.0,
        "margin": 1.0,
    }


async def test_a_sample_that_is_not_worse_by_the_margin_is_not_kept() -> None:
    settings = ForgeSettings.model_validate({"verifier": "numeric", "questions": "q.jsonl", "margin": 0.6})
    chosen = replace(CHOSEN, answer="It is 2 nm and 5 GPa.")
    with pytest.raises(Dropped, match=r"not_worse: 0.5 to 1, margin 0.6 \(of 1 samples: 1 not_worse\)"):
        await run(settings, student=lambda _: "2 nm.", gold="2 nm and 5 GPa", chosen=chosen)


async def test_a_chosen_answer_that_is_wrong_makes_no_pair() -> None:
    settings = ForgeSettings(verifier="rule", rule="keratin")
    with pytest.raises(Dropped, match="chosen_wrong"):
        await run(settings)


async def test_a_question_without_a_known_answer_cannot_be_verified() -> None:
    settings = ForgeSettings.model_validate({"verifier": "exact", "questions": "q.jsonl"})
    with pytest.raises(Dropped, match="no_gold"):
        await run(settings)


async def test_a_judge_decides_blind_in_both_orders() -> None:
    calls: list[Call] = []
    settings = ForgeSettings(verifier="judge", samples=2)
    found = await run(settings, student=["Better than gold.", "Glue."], judge=worse_with_glue, calls=calls)
    assert found.reply.answer == "Glue." and found.scores["margin"] == 1.0
    asked = [call.request.messages[-1].content for call in calls if call.who == "judge"]
    assert len(asked) == 4
    for answer in ("Glue.", "Better than gold."):
        shown = [text for text in asked if answer in text]
        assert sorted(text.index(answer) < text.index(CHOSEN.answer) for text in shown) == [False, True]
    assert all("Tablets slide" not in text and PASSAGES[0].text in text for text in asked)


async def test_answers_that_are_the_same_are_judged_once() -> None:
    calls: list[Call] = []
    await run(ForgeSettings(verifier="judge", samples=4), judge=worse_with_glue, calls=calls)
    assert sum(call.who == "judge" for call in calls) == 2


async def test_a_judge_that_always_prefers_the_first_answer_yields_ties_and_no_pair() -> None:
    with pytest.raises(Dropped, match=r"tie: 0\.5 to 0\.5") as dropped:
        await run(ForgeSettings(verifier="judge", samples=5), judge=first_is_better)
    assert dropped.value.scores == {"samples": 5, "accepted": 0, "cut": 0, "tie": 5}


async def test_a_judge_that_finds_the_sample_better_makes_no_pair() -> None:
    with pytest.raises(Dropped, match="not_worse: 1 to 0"):
        await run(
            ForgeSettings(verifier="judge"),
            judge=lambda r: "Better: A" if worse_with_glue(r) == "Better: B" else "Better: B",
        )


@pytest.mark.parametrize("say", ["I would rather not.", BackendError("the judge is away"), ""])
async def test_a_judge_that_fails_accepts_nothing(say: Scripted) -> None:
    with pytest.raises(Dropped, match="judge_failed") as dropped:
        await run(ForgeSettings(verifier="judge", samples=2), judge=lambda _: say)
    assert dropped.value.scores["judge_failed"] == 2


async def test_one_verdict_is_not_enough() -> None:
    with pytest.raises(Dropped, match="judge_failed"):
        await run(ForgeSettings(verifier="judge"), judge=["Better: A", "Hm."])


async def test_a_call_that_fails_leaves_the_other_samples() -> None:
    found = await run(ForgeSettings(samples=2), student=[BackendError("away"), "Glue."])
    assert found.scores["call_failed"] == 1 and found.scores["accepted"] == 1


async def test_a_row_fails_where_every_call_does() -> None:
    with pytest.raises(BackendError, match="away"):
        await run(ForgeSettings(samples=2), student=lambda _: BackendError("away"))


async def test_what_ends_the_run_is_let_through() -> None:
    class Spent(PreflexorError):
        pass

    for settings in (ForgeSettings(samples=3), ForgeSettings(samples=3, verifier="judge")):
        with pytest.raises(Spent):
            await run(settings, student=[Spent("a"), "b", "c"] if settings.verifier == "none" else lambda _: "Glue.",
                      judge=lambda _: Spent("j"))  # fmt: skip


@given(st.text(min_size=0, max_size=200), st.integers(0, 2**31))
def test_a_spoilt_answer_is_never_the_answer_and_always_the_same(answer: str, seed: int) -> None:
    found = perturbed(answer, seed=seed, names=["Nacre", "Spider silk"])
    assert not same(found, answer) and found == perturbed(answer, seed=seed, names=["Nacre", "Spider silk"])


@pytest.mark.parametrize(
    ("answer", "results"),
    [
        ("Of 1,200 MPa since 1998 [1].", {"Of 120 MPa since 1998 [1].", "Of 12,000 MPa since 1998 [1]."}),
        ("It can't burn.", {"It can burn."}),
        ("Glass is not a crystal.", {"Glass is a crystal."}),
        ("Nacre sticks.", {"Spider silk sticks."}),
        ("The tile grows stiffer.", {"The tile grows softer."}),
        ("Yes.", {"No."}),
        ("Glue", {"It is not true that glue"}),
    ],
)
def test_what_is_spoilt_in_an_answer(answer: str, results: set[str]) -> None:
    found = {perturbed(answer, seed=seed, names=["Nacre", "Spider silk"]) for seed in range(40)}
    assert results <= found and all(not same(text, answer) for text in found)


async def test_a_judge_is_told_the_known_answer() -> None:
    calls: list[Call] = []
    await run(ForgeSettings(verifier="judge"), judge=worse_with_glue, gold="4.5 MPa m^0.5", calls=calls)
    asked = [call.request.messages[-1].content for call in calls if call.who == "judge"]
    assert len(asked) == 2 and all("The right answer is: 4.5 MPa m^0.5" in text for text in asked)


@pytest.mark.parametrize(
    "text", ["1," * 20_000 + "x", "Aa " * 10_000, "\n" * 20_000 + "A", "is " * 10_000, "-1" * 9000]
)
def test_no_answer_takes_long_to_score_or_to_spoil(text: str) -> None:
    assert not same(perturbed(text, seed=3, names=["Nacre"]), text)
    assert exact(text, "keratin") == exact(text, "no") == 0


async def test_samples_of_one_prompt_are_read_from_it_once() -> None:
    backend = await LlamaCppBackend.open(nano_path(), context_tok=1024)
    replies: list[Completion] = []

    async def ask(call: Call) -> Completion:
        replies.append(await complete(backend, call.request))
        return replies[-1]

    async def retrieve(_query: str, *, k: int) -> tuple[Passage, ...]:
        return ()

    try:
        passages = tuple(
            replace(PASSAGES[0], text="Nacre is built of aragonite tablets and protein. " * 8) for _ in "ab"
        )
        trained = draft(Grounds(question=QUESTION, passages=passages))
        settings = ForgeSettings.model_validate(
            {
                "phase": 2,
                "samples": 4,
                "prompt": "grounded",
                "student_thinking_drawing": {"temperature": 4, "max_tok": 48},
            }
        )
        job = Job(number=0, seed=1, passages=passages, pack=packs.load("general"), ask=ask, retrieve=retrieve)
        before = (fixed("question", Question(text=QUESTION)), fixed("enrichment", Written()), fixed("prompt", trained))
        await run_steps((*before, rejected.steps(settings)[0]), lambda _: job)
    finally:
        await backend.aclose()
    read = sum(reply.usage.prompt - reply.usage.cached for reply in replies)
    assert len(replies) >= 4 and read < 1.5 * max(reply.usage.prompt for reply in replies)
    assert len({(reply.thinking, reply.answer) for reply in replies}) > 1
