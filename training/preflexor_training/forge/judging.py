"""Asks a judge which of two answers is better: blind, in both orders, with ties."""

import asyncio
from dataclasses import dataclass

from preflexor_agents import prompts
from preflexor_agents.errors import BackendError
from preflexor_agents.prompts import Grounds
from preflexor_agents.reflection.verdicts import points, readable
from preflexor_training.forge.asking import call
from preflexor_training.forge.settings import Drawing
from preflexor_training.forge.steps import Job


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge makes of two answers."""

    score: float
    """Share of the comparisons that the first answer won, a tie counting as a half; 0.5 is a tie."""
    failed: str = ""
    """Why there is no verdict; empty if there is one."""


async def compare(job: Job, grounds: Grounds, answer: str, other: str, *, drawing: Drawing, number: int) -> Judged:
    """Have two answers compared, each once under A and once under B.

    Both comparisons must come to a verdict: of one alone it cannot be told whether the judge just prefers a place.

    Args:
        job: the row.
        grounds: what is asked, and the passages that an answer can be checked against.
        answer: the answer whose share is given.
        other: the answer it is compared with.
        drawing: how the judge's words are drawn.
        number: of the comparison within the row; with the row's seed it decides the seeds.
    """
    orders = (("A", answer, other), ("B", other, answer))
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(_verdict(job, grounds, a, b, drawing=drawing, attempt=2 * number + n))
            for n, (_, a, b) in enumerate(orders)
        ]
    said = [task.result() for task in asked]
    failures = [str(words) for words in said if isinstance(words, BackendError)]
    if failures:
        return Judged(0.5, failures[0])
    texts = [words for words in said if isinstance(words, str)]
    unread = next((text for text in texts if not readable(text)), None)
    if unread is not None:
        return Judged(0.5, f"the judge gave no verdict: {unread[:60]!r}")
    won = [points(text, challenger=place) for text, (place, _, _) in zip(texts, orders, strict=True)]
    return Judged(sum(won) / len(won))


async def _verdict(job: Job, grounds: Grounds, a: str, b: str, *, drawing: Drawing, attempt: int) -> str | BackendError:
    messages = prompts.judge(grounds, a=a, b=b)
    try:
        reply = await job.ask(call(job, "judge", messages, drawing, who="judge", attempt=attempt))
    except BackendError as e:
        return e
    return reply.answer
