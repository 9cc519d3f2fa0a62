"""Whether a model still thinks in the open: sample questions, and how many of the replies are well-formed."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from preflexor_agents.backends.base import Completion, Request
from preflexor_agents.backends.llamacpp import LlamaCppBackend
from preflexor_agents.config import Sampling
from preflexor_agents.errors import ModelError
from preflexor_agents.events import Passage
from preflexor_agents.prompts import Grounds, draft, hinted
from preflexor_quantize.engine import threads
from preflexor_quantize.files import PARTIAL, Watch, Written, ignore

QUESTIONS = (
    ("How tough is nacre?", "Nacre has a fracture toughness of 4.5 MPa m^0.5."),
    ("What is the stiffness of spider dragline silk?", "Spider dragline silk has a Young's modulus of 10 GPa."),
    ("Which is stiffer, bone or tendon?", "Bone has a Young's modulus of 18 GPa. Tendon has a modulus of 1.2 GPa."),
    ("How strong is bamboo?", "Bamboo has a tensile strength of 200 MPa along the fibres."),
    ("Why does a gecko stick?", "Gecko feet stick by van der Waals forces between millions of spatulae and the wall."),
    ("What colour is the squid beak?", "The squid beak is stiff because its proteins are cross-linked."),
)
_CONTEXT_TOK, _MOST_TOK = 1024, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinking:
    """Replies to the sample questions, greedy."""

    asked: int
    well_formed: int
    """Thinking, closed, then an answer, and nothing odd about the tags."""
    cut: int
    """Not at their end after the most tokens."""


def sample(file: Path, *, watch: Watch = ignore) -> Thinking | None:
    """Ask the sample questions; None if the file has no chat template, or one that cannot be asked.

    Raises:
        ModelError: the file cannot be loaded.
    """
    try:
        replies = asyncio.run(_replies(file, watch))
    except ModelError as e:
        if "no chat template" in str(e):
            return None
        raise
    return Thinking(
        asked=len(replies),
        well_formed=sum(_well_formed(r) for r in replies),
        cut=sum(r.finish_reason == "length" for r in replies),
    )


def lost(before: Thinking | None, after: Thinking | None) -> str:
    """In words, that fewer than half as many replies are well-formed as before; empty if they are not fewer."""
    if before is None or after is None or 2 * after.well_formed >= before.well_formed:
        return ""
    return f"lost the thinking: {after.well_formed} of {after.asked} replies are well-formed, {before.well_formed} were"


async def _replies(file: Path, watch: Watch) -> list[Completion]:
    model = await LlamaCppBackend.open(file, context_tok=_CONTEXT_TOK, threads=threads())
    replies: list[Completion] = []
    try:
        for question, fact in QUESTIONS:
            passage = Passage(chunk_id=1, source="note.md", title="Note", start=0, end=len(fact), text=fact)
            messages = draft(Grounds(question=question, passages=(passage,)))
            request = Request(
                messages=messages if model.native_tags else hinted(messages),
                sampling=Sampling(temperature=0.0, max_tok=_MOST_TOK),
            )
            replies += [item async for item in model.generate(request) if isinstance(item, Completion)]
            watch(Written(f"ask {file.name.removesuffix(PARTIAL)}", len(replies), len(QUESTIONS)))
    finally:
        await model.aclose()
    return replies


def _well_formed(reply: Completion) -> bool:
    return bool(reply.thinking and reply.answer and reply.finish_reason == "stop" and not reply.notes)
