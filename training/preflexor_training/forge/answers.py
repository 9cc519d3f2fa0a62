"""The preferred answer: written from the finished thinking, revised by a reflection, or what a teacher says at once."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from preflexor_agents.backends.base import Completion
from preflexor_agents.reflection.verdicts import sound
from preflexor_training.forge import gates, prompts
from preflexor_training.forge.asking import Written, call, flaw_of, taken
from preflexor_training.forge.given import Question
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Dropped, Job, Step, Values
from preflexor_training.forge.thinking import given
from preflexor_training.pairs import Reply

Run = Callable[[Job, Values], Awaitable[Written]]

TRIES = 3
"""How often a teacher is asked for a whole reply until it can be read."""
_VERDICT = re.compile(r"[\s*_#>-]{0,12}\bverdict\W{0,8}(?:sound|revise)\b\W*", re.IGNORECASE)
_LEAST_REFLECTION = 3
"""Words; fewer say nothing that an answer could heed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A whole reply of a teacher."""

    reply: Reply
    counts: Mapping[str, int] = field(default_factory=dict)
    """What had to be mended in it, by kind."""


def answer(settings: ForgeSettings, *, needs: tuple[str, ...]) -> tuple[Step, ...]:
    """The answer, from the thinking or, as published, from the context alone; then the whole reply of it."""
    known = (*needs, "thinking") if settings.answer_from == "thinking" else needs

    async def write(job: Job, values: Values) -> Written:
        written = await _drafted(settings, job, values, step="answer")
        return _gated(settings, values, written)

    return (
        Step(name="written", needs=known, run=write),
        Step(name="answer", needs=("thinking", "written"), run=_reply),
    )


def reflected(settings: ForgeSettings, *, needs: tuple[str, ...]) -> tuple[Step, ...]:
    """A draft, a reflection on it with the passages at hand, and the answer that heeds it.

    Where the reflection finds nothing to change the draft is the answer, and the row counts as `reflection_sound`.
    """
    known = (*needs, "thinking") if settings.answer_from == "thinking" else needs
    marks = settings.prompt == "grounded"

    async def draft(job: Job, values: Values) -> Written:
        return await _drafted(settings, job, values, step="draft")

    async def reflect(job: Job, values: Values) -> Written:
        messages = prompts.turns(given(job, values), *_before(values, ("thinking", "draft")), prompts.REFLECT)
        reply = await job.ask(call(job, "critique", messages, settings.teacher_drawing))
        written = taken(reply, keep_marks=marks)
        text = _VERDICT.sub("\n", written.text).strip()
        if len(text.split()) < _LEAST_REFLECTION:
            raise Dropped("empty_reflection", f"it says only {written.text[:60]!r}")
        return Written(text=text, counts={**written.counts, "reflection_sound": int(sound(reply.answer))})

    async def revise(job: Job, values: Values) -> Written:
        if values["critique"].counts["reflection_sound"]:
            return Written(text=_gated(settings, values, values["draft"]).text)
        parts = _before(values, ("thinking", "draft", "critique"))
        task = prompts.REVISE_SHORT if marks else prompts.REVISE
        messages = prompts.turns(given(job, values), *parts, task)
        asked = call(job, "answer", messages, settings.teacher_drawing, may_decline=_may_decline(values))
        reply = await job.ask(asked)
        return _gated(settings, values, taken(reply, keep_marks=marks))

    return (
        Step(name="draft", needs=known, run=draft),
        Step(name="critique", needs=(*needs, "thinking", "draft"), run=reflect),
        Step(name="written", needs=(*needs, "thinking", "draft", "critique"), run=revise),
        Step(name="answer", needs=("thinking", "critique", "written"), run=_reply),
    )


def direct(settings: ForgeSettings) -> tuple[Step, ...]:
    """The teacher's own reply to the turns that are trained on: its thinking, its reflection if any, its answer.

    A reply that lacks thinking or an answer, or whose tags do not fit together, is asked for again, and then refused.
    """

    async def ask(job: Job, values: Values) -> Said:
        for attempt in range(TRIES):
            asked = call(
                job,
                "reply",
                values["prompt"],
                settings.teacher_drawing,
                attempt=attempt,
                may_be_empty=True,
                may_decline=_may_decline(values),
            )
            reply = await job.ask(asked)
            lacking = _lacking(reply)
            if lacking is None:
                return _said(settings, values, reply)
        assert lacking is not None
        raise lacking

    async def reply(job: Job, values: Values) -> Reply:
        said: Said = values["reply"]
        return said.reply

    return (
        Step(name="reply", needs=("question", "prompt"), run=ask),
        Step(name="answer", needs=("reply",), run=reply),
    )


def _lacking(reply: Completion) -> Dropped | None:
    """Why a reply is no whole one."""
    flaw = flaw_of(reply)
    if flaw is not None:
        return Dropped(flaw.kind, flaw.why)
    if not reply.thinking.strip():
        return Dropped("empty_thinking", "the teacher answers without thinking; it must be one that reasons by itself")
    return None if reply.answer.strip() else Dropped("empty_answer", "there are no words after the thinking")


def _said(settings: ForgeSettings, values: Values, reply: Completion) -> Said:
    """The sections of a whole reply; nothing in them reads as a tag. Raises Dropped: a row may not have this answer."""
    written = taken(reply, keep_marks=settings.prompt == "grounded")
    answer = _gated(settings, values, written).text
    thinking, reflection = (
        taken(Completion(answer=text), keep_marks=True) for text in (reply.thinking, reply.reflection)
    )
    counts = Counter(written.counts) + Counter(thinking.counts) + Counter(reflection.counts)
    return Said(reply=Reply(thinking=thinking.text, reflection=reflection.text or None, answer=answer), counts=counts)


async def _drafted(settings: ForgeSettings, job: Job, values: Values, *, step: str) -> Written:
    """A first answer."""
    marks = settings.prompt == "grounded"
    unthought = prompts.DRAFT if "thinking" in values else prompts.DRAFT_UNTHOUGHT
    parts = _before(values, ("thinking",) if "thinking" in values else ())
    messages = prompts.turns(given(job, values), *parts, prompts.SHORT if marks else unthought)
    asked = call(job, step, messages, settings.teacher_drawing, may_decline=_may_decline(values))
    return taken(await job.ask(asked), keep_marks=marks)


def _gated(settings: ForgeSettings, values: Values, written: Written) -> Written:
    """The answer, if it is whole and one that a row may have. Raises Dropped."""
    if written.counts.get("cut_off"):
        raise Dropped("cut_off", f"the answer was cut at {settings.teacher_drawing.max_tok} tokens; allow it more")
    gates.answered(written.text, names_passages=settings.prompt == "grounded", may_decline=_may_decline(values))
    if settings.questions is None:
        gates.not_leaked(values["question"].text, written.text)
    return written


def _may_decline(values: Values) -> bool:
    """Whether to decline is the right answer to the question of a row."""
    question: Question = values["question"]
    return question.is_unanswerable


async def _reply(job: Job, values: Values) -> Reply:
    """The chosen reply, section by section."""
    critique = values.get("critique")
    return Reply(
        thinking=values["thinking"].text,
        reflection=critique.text if critique else None,
        answer=values["written"].text,
    )


def _before(values: Values, names: tuple[str, ...]) -> list[str]:
    """What was written before, as parts of a prompt."""
    heads = {"thinking": "Thinking", "draft": "Draft", "critique": "Reflection"}
    return [prompts.section(heads[name], values[name].text) for name in names]
