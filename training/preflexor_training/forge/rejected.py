"""The rejected side of a row: samples of the student, of a teacher that errs on purpose, or the good answer spoilt.

The published code keeps the first sample, whatever it is worth. With a verifier this is rejection sampling: of
`samples` replies those that are worse than the chosen answer by `margin` are accepted, and the worst of them is kept.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from preflexor_agents.backends.base import Completion
from preflexor_agents.errors import BackendError
from preflexor_agents.prompts import Grounds, Message
from preflexor_agents.reflection.verdicts import same
from preflexor_training.forge import judging, prompts, verifiers
from preflexor_training.forge.asking import call, flaw_of, taken
from preflexor_training.forge.given import Question
from preflexor_training.forge.judging import Judged
from preflexor_training.forge.perturbing import perturbed
from preflexor_training.forge.settings import Drawing, ForgeSettings, RejectedKind
from preflexor_training.forge.steps import Dropped, Job, Step, Values, Who
from preflexor_training.forge.thinking import given
from preflexor_training.forge.verifiers import Score
from preflexor_training.pairs import Reply

Fault = Literal["not_worse", "tie", "judge_failed", "equal_to_chosen", "malformed", "unclosed", "empty", "call_failed"]
"""Why a sample was not accepted. `not_worse`: right, or better than the chosen answer, or not worse by the margin."""
FAULTS: tuple[Fault, ...] = (
    *("not_worse", "tie", "judge_failed", "equal_to_chosen"),
    *("malformed", "unclosed", "empty", "call_failed"),
)
"""In this order one of them names the reason for which a row was dropped that had several."""
SPARE = 2
"""Further samples, one after the other, where none of those asked for can be read."""

STRAIGHT = "Task: give the answer straight away, without thinking it over first. Write only the answer."
WRONG = (
    "Task: write an answer that is wrong, for an exam in which wrong answers must sound right: in the style and at the "
    "length of a good one, with the right terms, and with a fact, a number, a cause or a condition that the passages "
    "contradict. Give no reasoning, do not hint that it is wrong, and do not mention passages. Write only the answer."
)
SHALLOW = (
    "Task: answer the question as somebody would who has only heard of the subject: in one to three sentences, in "
    "general terms, without numbers, mechanisms or reasons, and do not mention passages. Write only the answer."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The rejected side of a row that is kept."""

    reply: Reply
    kind: RejectedKind
    scores: Mapping[str, float] = field(default_factory=dict)
    """`samples` drawn, `accepted` of them, and how many were not, by Fault; with a verifier `chosen` and `rejected`,
    from 0 to 1, and `margin`, their difference."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A reply that may become the rejected one, or what is wrong with it."""

    reply: Reply = field(default_factory=Reply)
    fault: Fault | None = None
    why: str = ""
    is_cut: bool = False
    """Whether it ran into the limit of tokens."""


@dataclass(frozen=True, slots=True)
class _Scored:
    sample: Sample
    chosen: float
    rejected: float


def steps(settings: ForgeSettings) -> tuple[Step, ...]:
    """The steps of the rejected side, after those of the rest of a row.

    The last one's value is a Rejected. It raises Dropped with the kind and the counts where no sample is accepted.

    Raises:
        ConfigError: the verifier lacks what it needs.
    """
    score = verifiers.score_of(settings)
    kind = settings.rejected_kind()
    base = ("question", "enrichment") if settings.enriches() else ("question",)

    async def reject(job: Job, values: Values) -> Rejected:
        chosen: Reply = values["answer"]
        samples = values.get("samples", ()) or tuple(_spoilt(job, chosen, n) for n in range(settings.samples))
        return await _choose(settings, job, values, chosen, samples, score)

    if kind == "perturbed":
        return (Step(name="rejected", needs=(*base, "answer"), run=reject),)
    needs = base if kind.startswith("teacher") or settings.prompt == "grounded" else ("question",)
    if settings.variant == "direct":  # one call is soon made, and may be found wrong without any sample
        needs = (*needs, "answer")
    return (
        Step(name="samples", needs=(*needs, "prompt"), run=_sampler(settings, kind, score)),
        Step(name="rejected", needs=(*base, "answer", "samples"), run=reject),
    )


def _sampler(
    settings: ForgeSettings, kind: RejectedKind, score: Score | None
) -> Callable[[Job, Values], Awaitable[tuple[Sample, ...]]]:
    async def run(job: Job, values: Values) -> tuple[Sample, ...]:
        if score is not None and "answer" in values:
            _good(values["answer"], values["question"], score, samples=0)
        messages = _asked(settings, kind, job, values)
        samples = await _drawn(settings, kind, job, messages, range(settings.samples))
        while all(sample.fault for sample in samples) and len(samples) < settings.samples + SPARE:
            samples += await _drawn(settings, kind, job, messages, range(len(samples), len(samples) + 1))
        return tuple(samples)

    return run


def _asked(settings: ForgeSettings, kind: RejectedKind, job: Job, values: Values) -> tuple[Message, ...]:
    """The prompt of a sample; the student with thinking gets the one that is trained on."""
    trained: tuple[Message, ...] = values["prompt"]
    match kind:
        case "student_thinking":
            return trained
        case "student" if settings.prompt == "grounded":
            grounds = Grounds(question=values["question"].text, passages=given(job, values).context)
            return (*trained[:-1], Message("user", f"{grounds.text()}\n\n{STRAIGHT}"))
        case "student":
            return (*trained[:-1], Message("user", f"{values['question'].text}\n\n{STRAIGHT}"))
        case "teacher_wrong":
            return prompts.turns(given(job, values), WRONG)
        case _:
            return prompts.turns(given(job, values), SHALLOW)


async def _drawn(
    settings: ForgeSettings, kind: RejectedKind, job: Job, messages: tuple[Message, ...], attempts: range
) -> list[Sample]:
    """Samples side by side: one prompt, which an engine prefills once, and a seed for each.

    Raises BackendError: not one call came to anything.
    """
    who: Who = "student" if kind in ("student", "student_thinking") else "teacher"
    drawing = _drawing(settings, kind)

    async def one(attempt: int) -> Completion | BackendError:
        try:
            return await job.ask(call(job, "sample", messages, drawing, who=who, attempt=attempt, may_be_empty=True))
        except BackendError as e:
            return e

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(attempt)) for attempt in attempts]
    came = [task.result() for task in tasks]
    failed = [reply for reply in came if isinstance(reply, BackendError)]
    if len(failed) == len(came):
        raise failed[0]
    marks = settings.prompt == "grounded"
    return [
        Sample(fault="call_failed", why=str(reply))
        if isinstance(reply, BackendError)
        else read(reply, kind, keep_marks=marks)
        for reply in came
    ]


def _drawing(settings: ForgeSettings, kind: RejectedKind) -> Drawing:
    """Several samples of a teacher must differ, so they are drawn as its questions are."""
    if kind == "student":
        return settings.student_drawing
    if kind == "student_thinking":
        return settings.student_thinking_drawing
    return settings.teacher_drawing if settings.samples == 1 else settings.question_drawing


def read(reply: Completion, kind: RejectedKind, *, keep_marks: bool = False) -> Sample:
    """What a reply is worth as a sample. One whose sections cannot be told apart is worth nothing.

    Args:
        reply: of the student or the teacher.
        kind: of the rejected side; all but `student_thinking` are answers without thinking, which is left out.
        keep_marks: whether a teacher's citation marks stay.
    """
    is_cut = reply.finish_reason == "length"
    flaw = flaw_of(reply)
    if flaw is not None:
        return Sample(fault=flaw.kind, why=flaw.why, is_cut=is_cut)
    by_teacher = kind in ("teacher_wrong", "teacher_shallow")
    answer = taken(reply, keep_marks=keep_marks).text if by_teacher else reply.answer.strip()
    if not answer:
        return Sample(fault="empty", why="the answer is empty", is_cut=is_cut)
    if kind != "student_thinking":
        return Sample(Reply(answer=answer), is_cut=is_cut)
    return Sample(
        Reply(thinking=reply.thinking or None, reflection=reply.reflection or None, answer=answer), is_cut=is_cut
    )


def _spoilt(job: Job, chosen: Reply, number: int) -> Sample:
    """The good answer with something wrong in it, after the same thinking: all the difference is in the answer."""
    names = [passage.title for passage in job.passages]
    answer = perturbed(chosen.answer, seed=job.seed + number, names=names)
    return Sample(Reply(thinking=chosen.thinking, reflection=chosen.reflection, answer=answer))


async def _choose(
    settings: ForgeSettings, job: Job, values: Values, chosen: Reply, samples: Sequence[Sample], score: Score | None
) -> Rejected:
    """The sample that is worse than the chosen answer by most; of equals the first. Raises Dropped if there is none."""
    checked = [_unlike(sample, chosen) for sample in samples]
    usable = [sample for sample in checked if not sample.fault]
    faulty = [sample for sample in checked if sample.fault]
    if settings.verifier == "none":
        scored = [_Scored(sample, 1.0, 0.0) for sample in usable]
    elif score is not None:
        scored = _scored(usable, chosen, values["question"], score)
    else:
        found = await _judged(settings, job, values, chosen, usable)
        scored = [one for one in found if isinstance(one, _Scored)]
        faulty += [one for one in found if isinstance(one, Sample)]
    accepted = [s for s in scored if s.chosen > s.rejected and s.chosen - s.rejected >= settings.margin]
    faulty += [_refused(s, settings.margin) for s in scored if s not in accepted]
    counts = {"samples": len(samples), "accepted": len(accepted), "cut": sum(sample.is_cut for sample in samples)}
    scores = {name: float(count) for name, count in (counts | Counter(str(s.fault) for s in faulty)).items()}
    if not accepted:
        raise _dropped(faulty, scores)
    best = max(accepted, key=lambda s: s.chosen - s.rejected)
    if settings.verifier != "none":
        scores |= {"chosen": best.chosen, "rejected": best.rejected, "margin": best.chosen - best.rejected}
    return Rejected(reply=best.sample.reply, kind=settings.rejected_kind(), scores=scores)


def _unlike(sample: Sample, chosen: Reply) -> Sample:
    if not sample.fault and same(sample.reply.answer, chosen.answer):
        return Sample(sample.reply, "equal_to_chosen", "it says the same words", sample.is_cut)
    return sample


def _scored(samples: Sequence[Sample], chosen: Reply, question: Question, score: Score) -> list[_Scored]:
    """The samples' scores. Raises Dropped as `_good`."""
    good = _good(chosen, question, score, samples=len(samples))
    return [_Scored(sample, good, score(sample.reply.answer, question)) for sample in samples]


def _good(chosen: Reply, question: Question, score: Score, *, samples: int) -> float:
    """The chosen answer's score. Raises Dropped: there is no known answer, or this one does not meet it."""
    good = score(chosen.answer, question)
    if not good:
        raise Dropped(
            "chosen_wrong", "the chosen answer does not pass the verifier", scores={"samples": float(samples)}
        )
    return good


async def _judged(
    settings: ForgeSettings, job: Job, values: Values, chosen: Reply, samples: Sequence[Sample]
) -> list[_Scored | Sample]:
    """The samples' shares of the comparisons; answers that are the same are compared once."""
    question: Question = values["question"]
    known = (f"The right answer is: {question.gold}",) if question.gold else ()
    grounds = Grounds(question=question.text, passages=given(job, values).context, steering=known)

    async def one(number: int, answer: str) -> Judged:
        return await judging.compare(job, grounds, chosen.answer, answer, drawing=settings.judge_drawing, number=number)

    async with asyncio.TaskGroup() as group:
        answers = dict.fromkeys(sample.reply.answer for sample in samples)
        tasks = {text: group.create_task(one(number, text)) for number, text in enumerate(answers)}
    found: list[_Scored | Sample] = []
    for sample in samples:
        judged = tasks[sample.reply.answer].result()
        if judged.failed:
            found.append(Sample(sample.reply, "judge_failed", judged.failed, sample.is_cut))
        else:
            found.append(_Scored(sample, judged.score, 1 - judged.score))
    return found


def _refused(scored: _Scored, margin: float) -> Sample:
    fault: Fault = "tie" if scored.chosen == scored.rejected else "not_worse"
    why = f"{scored.rejected:g} to {scored.chosen:g}, margin {margin:g}"
    return Sample(scored.sample.reply, fault, why, scored.sample.is_cut)


def _dropped(faulty: Sequence[Sample], scores: Mapping[str, float]) -> Dropped:
    """Why no sample will do: the fault that came nearest to acceptance, and how many there were of each."""
    counts = Counter(sample.fault for sample in faulty)
    kind = next(fault for fault in FAULTS if counts[fault])
    why = next(sample.why for sample in faulty if sample.fault == kind)
    each = ", ".join(f"{counts[fault]} {fault}" for fault in FAULTS if counts[fault])
    return Dropped(kind, f"{why} (of {len(faulty)} samples: {each})", scores=scores)
