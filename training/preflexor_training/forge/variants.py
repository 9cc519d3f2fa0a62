"""What a row is made of in each variant, as steps that say what they need; and what has become of them.

`plain` takes four calls one after the other (question, enrichment, categories and background, answer), `graph` five,
where the published code makes ten and thirteen. `direct` takes one, and the question if none is given.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from preflexor_agents import packs
from preflexor_agents import prompts as agents
from preflexor_agents.prompts import Grounds, Message
from preflexor_agents.store import citations
from preflexor_training.forge import answers, questions, thinking
from preflexor_training.forge.asking import Written
from preflexor_training.forge.contexts import distinct, span
from preflexor_training.forge.given import Question
from preflexor_training.forge.records import Span
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Job, Step, Values
from preflexor_training.pairs import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What the steps of a row came to, the rejected side aside; of a row that fell, what was there by then."""

    question: str = ""
    gold: str = ""
    prompt: tuple[Message, ...] = ()
    """The turns that are trained on."""
    categories: tuple[tuple[str, str], ...] = ()
    chosen: Reply = field(default_factory=Reply)
    context: tuple[Span, ...] = ()
    """All passages that a prompt of the row held: drawn, found for the question, found for a part of the thinking."""
    counts: Mapping[str, float] = field(default_factory=dict)
    """What was mended, by kind, and `claims` of the answer with those that no passage bears out, `unsupported`."""


def steps(settings: ForgeSettings) -> tuple[Step, ...]:
    """The steps of a row, the rejected side aside.

    Values by name: `question` is a Question, `prompt` the turns that are trained on, `thinking` a Thinking, `written`
    and `draft` are texts, `reply` what a teacher said all at once, `answer` is the chosen Reply.

    Raises:
        InputError: the pack or the file of questions cannot be used.
    """
    pack = packs.load(settings.pack)
    base = ("question", "enrichment") if settings.enriches() else ("question",)
    match settings.variant:
        case "graph":
            thought = thinking.with_graph(settings, pack, needs=base)
        case "typed":
            thought = thinking.typed(settings, pack, needs=base)
        case "direct":
            return (questions.step(settings), _prompt(settings, needs=base), *answers.direct(settings))
        case "plain" | "reflection":
            thought = thinking.categories(settings, pack, needs=base)
    answer = answers.reflected if settings.variant == "reflection" else answers.answer
    return (
        questions.step(settings),
        *((thinking.enrichment(settings),) if settings.enriches() else ()),
        _prompt(settings, needs=base),
        *thought,
        *answer(settings, needs=base),
    )


def assemble(job: Job, values: Values) -> Made:
    """What the values of a row's steps come to, however many of them there are."""
    question: Question = values.get("question", Question(text=""))
    thought: thinking.Thinking = values.get("thinking", thinking.Thinking(categories=(), text=""))
    chosen: Reply = values.get("answer", Reply())
    found = [p for value in values.values() if isinstance(value, Written) for p in value.passages]
    context = distinct((*job.passages, *found))
    counts: Counter[str] = Counter()
    for value in values.values():
        counts.update(getattr(value, "counts", {}))
    counts = +counts
    if chosen.answer:
        claims = citations.claims(chosen.answer)
        counts["claims"] = len(claims)
        counts["unsupported"] = len(citations.cite(chosen.answer, context).unsupported)
    return Made(
        question=question.text,
        gold=question.gold,
        prompt=values.get("prompt", ()),
        categories=thought.categories,
        chosen=chosen,
        context=tuple(map(span, context)),
        counts={name: float(count) for name, count in sorted(counts.items())},
    )


def _prompt(settings: ForgeSettings, *, needs: tuple[str, ...]) -> Step:
    """The turns that are trained on: the question and the trigger, or what the agents ask with these passages."""

    async def run(job: Job, values: Values) -> tuple[Message, ...]:
        question = values["question"].text
        if settings.prompt == "question":
            return (Message("user", question + settings.trigger),)
        grounds = Grounds(question=question, passages=thinking.given(job, values).context)
        return agents.draft(grounds, reflect=settings.variant == "reflection")

    return Step(name="prompt", needs=needs if settings.prompt == "grounded" else ("question",), run=run)
