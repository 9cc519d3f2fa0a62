"""What every call of a row has in common: its seed, how it is sampled, and what is taken from the reply."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from preflexor_agents import markup
from preflexor_agents.backends.base import Completion, Request
from preflexor_agents.config import Sampling
from preflexor_agents.events import Passage
from preflexor_agents.prompts import Message
from preflexor_agents.store import sentences
from preflexor_training.forge.settings import Drawing, ForgeSettings
from preflexor_training.forge.steps import Call, Job, Who

_MARKS = re.compile(r"[^\S\n]{0,3}\[\d{1,3}(?:\s*[,;\u2013-]\s*\d{1,3})*\]")
_FINISHED = re.compile(r"[.!?:;)\]\"'\u201d\u2019*`>|]\s*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A text that a teacher wrote for a row."""

    text: str = ""
    passages: tuple[Passage, ...] = ()
    """Found for it, beyond those that the row had."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What had to be mended in it, by kind."""


class Flaw(NamedTuple):
    """Why a reply cannot be used."""

    kind: Literal["unclosed", "malformed"]
    why: str


def seed_of(*parts: int | str) -> int:
    """A seed of 31 bits, the same on every machine for the same parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4]) >> 1


def row_seed(settings: ForgeSettings, number: int) -> int:
    """Seed of a row, made of the run's seed, the refresh and the row's number."""
    return seed_of("row", settings.seed, settings.round, number)


def call(
    job: Job,
    step: str,
    messages: tuple[Message, ...],
    drawing: Drawing,
    *,
    who: Who = "teacher",
    attempt: int = 0,
    json_schema: Mapping[str, Any] | None = None,
    may_be_empty: bool = False,
    may_decline: bool = False,
) -> Call:
    """A call whose seed follows from the row, the step and the attempt, so that no order of calls changes it."""
    request = Request(
        messages=messages,
        sampling=sampling(drawing),
        seed=seed_of(job.seed, step, attempt),
        json_schema=json_schema,
    )
    return Call(
        step=step, who=who, request=request, attempt=attempt, may_be_empty=may_be_empty, may_decline=may_decline
    )


def sampling(drawing: Drawing) -> Sampling:
    """The drawing in the backend's terms."""
    return Sampling(temperature=drawing.temperature, top_k=drawing.top_k, top_p=drawing.top_p, max_tok=drawing.max_tok)


def taken(reply: Completion, *, tags: Collection[str] = markup.TAGS.keys(), keep_marks: bool = False) -> Written:
    """The answer of a teacher's reply as plain text: nothing in it reads as a tag, and it ends with a whole sentence.

    Args:
        reply: The teacher's; its own thinking is left out.
        tags: Strings that would end or open a section; what a teacher spells of them is broken visibly.
        keep_marks: Leave citation marks as `[2]`; without the passages in the prompt they point nowhere.
    """
    counts: Counter[str] = Counter()
    text = reply.answer.encode("utf-8", "replace").decode("utf-8").strip()
    spelt = sum(text.count(tag) for tag in tags)
    if spelt:
        text = markup.neutralise(text, tags)
        counts["tags_neutralised"] = spelt
    if not keep_marks:
        text, counts["marks_removed"] = _MARKS.subn("", text)
    if reply.finish_reason == "length" and text and not _FINISHED.search(text):
        text = _without_last(text)
        counts["cut_off"] = 1
    return Written(text=text.strip(), counts=+counts)


def _without_last(text: str) -> str:
    """The text without the sentence that was broken off; nothing, if it is the only one."""
    spans = sentences.split(text)
    return text[: spans[-2].end] if len(spans) > 1 else ""


def flaw_of(reply: Completion) -> Flaw | None:
    """What keeps the sections of a reply from being told apart; thinking that the template opened is no flaw."""
    unclosed = next((note for note in reply.notes if note.endswith("was not closed")), "")
    if not unclosed and reply.finish_reason == "length" and reply.thinking and not reply.answer.strip():
        unclosed = "thinking was not closed"
    if unclosed:
        return Flaw("unclosed", unclosed)
    odd = next((note for note in reply.notes if _is_odd(note)), None)
    return None if odd is None else Flaw("malformed", odd)


def _is_odd(note: str) -> bool:
    return note.startswith(tuple(markup.TAGS)) and not note.endswith("without an opening tag")
