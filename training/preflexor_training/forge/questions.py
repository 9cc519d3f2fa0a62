"""The question of a row: written by the teacher from the passages that were drawn, or given; then gated."""

import json
import re

from preflexor_training.forge import gates, prompts
from preflexor_training.forge.asking import call, taken
from preflexor_training.forge.given import Question, read_questions
from preflexor_training.forge.prompts import Given
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Dropped, Job, Step, Values

_CHECKED = ("stands_alone", "answerable", "gives_away")
_CHECK_TOK = 64
_LABEL = re.compile(
    r"\A\s*(?:[-*#>]+\s+)?(?:\d{1,2}[.)]\s+)?"
    r"(?:[*_#\s]*(?:(?:expert\s+|exam(?:ination)?\s+)?question(?:\s+\d+)?|q\s*\d*)\s*[*_]*\s*[:.][*_\s]*)?",
    re.IGNORECASE,
)
_OTHER_PART = re.compile(
    r"\A\s*[*_#]*\s*(?:answer|explanation|rationale|note|solution|justification)s?\b[^?\n]{0,20}[:*]", re.IGNORECASE
)
_COMMENT = re.compile(
    r"[\s\"'*_\u201d\u2019)]*(?:\Z|\(|-{2,}|(?:i|this|these|note|hint|let\s+me|answer|explanation|feel\s+free|please|"
    r"the\s+question)\b)",
    re.IGNORECASE,
)
"""What teachers say after a question, about it."""
_QUOTES = "\"'`*_\u201c\u201d\u2018\u2019\u00ab\u00bb \t"


def step(settings: ForgeSettings) -> Step:
    """The first step of every row.

    Its value is a Question. It raises Dropped for a question that a gate refuses; one that was given is not gated.

    Raises:
        InputError: the file of given questions cannot be used.
    """
    if settings.questions is None:
        return Step(name="question", run=lambda job, _: _written(settings, job))
    known = read_questions(settings.questions)

    async def run(job: Job, values: Values) -> Question:
        return known[(settings.round * settings.rows + job.number) % len(known)]

    return Step(name="question", run=run)


def cleaned(reply: str) -> str:
    """The question alone, on one line: without a preface, a label, quotation marks, or what was said after it."""
    lines = [line.strip() for line in reply.strip().splitlines() if line.strip(_QUOTES + "-#")]
    if len(lines) > 1 and lines[0].rstrip("*_ ").endswith(":"):
        lines = lines[1:]
    kept: list[str] = []
    for line in lines:
        if kept and _OTHER_PART.match(line):
            break
        kept.append(_LABEL.sub("", line) if not kept else line)
    text = " ".join(" ".join(kept).split()).strip(_QUOTES)
    end = max(text.rfind(mark) for mark in "?\uff1f\u061f") + 1
    return text[:end] if end and _COMMENT.match(text[end:]) else text


async def _written(settings: ForgeSettings, job: Job) -> Question:
    base = Given(pack=job.pack, passages=job.passages)
    reply = await job.ask(
        call(job, "question", prompts.turns(base, prompts.question(job.pack)), settings.question_drawing)
    )
    text = cleaned(taken(reply, keep_marks=True).text)
    gates.standalone(text)
    gates.answerable(text, job.passages)
    if settings.check_questions:
        await _checked(settings, job, text)
    return Question(text=text)


async def _checked(settings: ForgeSettings, job: Job, question: str) -> None:
    """The teacher's own opinion of the question. Raises Dropped, also for a reply that is not what was asked for."""
    drawing = settings.judge_drawing.model_copy(update={"max_tok": _CHECK_TOK})
    verdicts = {name: {"type": "boolean"} for name in _CHECKED}
    schema = {"type": "object", "properties": verdicts, "required": list(_CHECKED), "additionalProperties": False}
    base = Given(pack=job.pack, passages=job.passages, question=question)
    reply = await job.ask(call(job, "check", prompts.turns(base, prompts.CHECK), drawing, json_schema=schema))
    try:
        said = json.loads(reply.answer, strict=False)
        stands_alone, answerable, gives_away = (bool(said[name]) for name in _CHECKED)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Dropped("bad_json", f"the check of the question is no JSON: {reply.answer[:60]!r}") from None
    if not stands_alone:
        raise Dropped("not_standalone", f"the teacher says so of {question[:80]!r}")
    if not answerable:
        raise Dropped("not_answerable", f"the teacher says so of {question[:80]!r}")
    if gives_away:
        raise Dropped("gives_away", f"the teacher says so of {question[:80]!r}")
