"""The thinking of a row: the pack's categories, the knowledge graph with its pattern, or the tagged blocks."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from preflexor_agents.events import Passage
from preflexor_agents.packs import Category, Pack
from preflexor_agents.prompts import Message
from preflexor_training.forge import graphs, prompts
from preflexor_training.forge.asking import Written, call, taken
from preflexor_training.forge.contexts import distinct
from preflexor_training.forge.graphs import ConceptGraph
from preflexor_training.forge.prompts import Given
from preflexor_training.forge.settings import ForgeSettings
from preflexor_training.forge.steps import Dropped, Job, Step, Values

GRAPH_HEADING = "Knowledge Graph"
"""The published name of the graph's part; it was published twice over, here it stands once."""
CONCEPTS, PATTERN, PATTERN_CONTEXT = "Core Concepts and Relationships", "Abstract Pattern", "Pattern Context"
TRIES = 2
"""How often a pattern is asked for until it can be read."""
_NOTHING = re.compile(
    r"""^\W*(?:(?:none|nothing|n/?a|empty(?:\s+string)?|not\s+applicable|unknown)\W*$
    |(?:there\s+(?:is|are)\s+)?(?:no|none|nothing)\s+(?:relevant|specific|explicit|such|additional|further|information|other)\b[^.\n]{0,80}\W*$
    |(?:the\s+)?(?:passages?|texts?|context)\s+(?:do|does)\s+not\b[^.\n]{0,80}\W*$)""",
    re.IGNORECASE | re.VERBOSE,
)

Run = Callable[[Job, Values], Awaitable[Written]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinking:
    """The finished thinking."""

    categories: tuple[tuple[str, str], ...]
    """Name and text of each part, in order; those without a text are left out."""
    text: str
    """As it stands between the thinking tags."""
    counts: Mapping[str, int] = field(default_factory=dict)


def given(job: Job, values: Values) -> Given:
    """What a call after the question stands on."""
    enrichment: Written = values.get("enrichment", Written())
    return Given(
        pack=job.pack,
        passages=job.passages,
        question=values["question"].text,
        found=enrichment.passages,
        additional=enrichment.text,
    )


def enrichment(settings: ForgeSettings) -> Step:
    """Passages found for the question, and what all of them say that bears on it."""

    async def run(job: Job, values: Values) -> Written:
        found = await _beyond(job, values["question"].text, job.passages, settings.passages)
        base = Given(pack=job.pack, passages=job.passages, question=values["question"].text, found=found)
        asked = call(job, "enrichment", prompts.turns(base, prompts.ENRICH), settings.teacher_drawing)
        written = taken(await job.ask(asked))
        return replace(written, text="" if said_nothing(written.text) else written.text, passages=found)

    return Step(name="enrichment", needs=("question",), run=run)


def categories(settings: ForgeSettings, pack: Pack, *, needs: tuple[str, ...]) -> tuple[Step, ...]:
    """A step for each category of the pack, side by side, and one that puts them together."""
    parts = tuple(
        Step(name=step_of(wanted), needs=needs, run=_category(settings, wanted)) for wanted in pack.categories
    )

    async def join(job: Job, values: Values) -> Thinking:
        return joined([(wanted.name, values[step_of(wanted)]) for wanted in pack.categories])

    return (*parts, Step(name="thinking", needs=tuple(part.name for part in parts), run=join))


def step_of(wanted: Category) -> str:
    """Name of the step that writes a category."""
    return "background" if wanted.retrieved else f"category:{wanted.name}"


def with_graph(settings: ForgeSettings, pack: Pack, *, needs: tuple[str, ...]) -> tuple[Step, ...]:
    """The categories, and before them the graph, its abstract pattern, and where else the pattern is at work."""
    *parts, _ = categories(settings, pack, needs=needs)

    async def join(job: Job, values: Values) -> Thinking:
        graph, pattern, context = values["graph"], values["pattern"], values["pattern_context"]
        sections = {CONCEPTS: graph.lines(), PATTERN: pattern.text, PATTERN_CONTEXT: context.text}
        said = "\n\n".join(f"**{name}**:\n\n{text}" for name, text in sections.items() if text)
        rest = [(wanted.name, values[step_of(wanted)]) for wanted in pack.categories]
        return joined([(GRAPH_HEADING, Written(text=said)), *rest])

    names = ("graph", "pattern", "pattern_context", *(part.name for part in parts))
    return (
        Step(name="graph", needs=needs, run=_graph(settings, typed=False)),
        *parts,
        Step(name="pattern", needs=(*needs, "graph"), run=_pattern(settings)),
        Step(name="pattern_context", needs=(*needs, "graph"), run=_pattern_context(settings)),
        Step(name="thinking", needs=names, run=join),
    )


def typed(settings: ForgeSettings, pack: Pack, *, needs: tuple[str, ...]) -> tuple[Step, ...]:
    """The tagged blocks; each is written in sight of those before it, as it will be read."""

    async def join(job: Job, values: Values) -> Thinking:
        graph: ConceptGraph = values["graph"]
        texts = (values["brainstorm"].text, graph.lines(), graph.json(), values["patterns"].text)
        blocks = tuple(zip(graphs.BLOCKS, (*texts, values["synthesis"].text), strict=True))
        lacking = [name for name, text in blocks if not text]
        if lacking:
            raise Dropped("empty_thinking", f"nothing was written for {' and '.join(lacking)}")
        return Thinking(categories=blocks, text="\n".join(map(_block, *zip(*blocks, strict=True))))

    asks = "; ".join(category.asks for category in pack.categories)
    brainstorm = prompts.BRAINSTORM.format(asks=asks)
    return (
        Step(name="brainstorm", needs=needs, run=_block_step(settings, "brainstorm", brainstorm, ())),
        Step(name="graph", needs=(*needs, "brainstorm"), run=_graph(settings, typed=True)),
        Step(name="patterns", needs=(*needs, "brainstorm", "graph"), run=_patterns(settings)),
        Step(
            name="synthesis",
            needs=(*needs, "brainstorm", "graph", "patterns"),
            run=_block_step(settings, "synthesis", prompts.SYNTHESIS, ("brainstorm", "graph", "patterns")),
        ),
        Step(name="thinking", needs=("brainstorm", "graph", "patterns", "synthesis"), run=join),
    )


def joined(parts: Sequence[tuple[str, Written]]) -> Thinking:
    """The parts under their headings, as published; those with nothing to say are left out and counted.

    Raises:
        Dropped: no part says anything (`empty_thinking`).
    """
    counts: Counter[str] = Counter()
    said = []
    for name, written in parts:
        text = _unheaded(written.text, name)
        counts["headings_mended"] += text != written.text
        if text:
            said.append((name, text))
        else:
            counts["categories_empty"] += 1
    if not said:
        raise Dropped("empty_thinking", f"none of {len(parts)} categories says anything")
    text = "\n\n".join(f"**{name}**:\n\n{text}" for name, text in said)
    return Thinking(categories=tuple(said), text=text, counts=+counts)


def said_nothing(text: str) -> bool:
    """Whether a teacher says that there is nothing to write."""
    return not text.strip(" \t\r\n\"'`*.()[]{}") or _NOTHING.match(text.strip()) is not None


def _category(settings: ForgeSettings, wanted: Category) -> Run:
    async def run(job: Job, values: Values) -> Written:
        base, task = given(job, values), prompts.category(wanted)
        found: tuple[Passage, ...] = ()
        if wanted.retrieved:
            found = await _beyond(job, f"{base.question} {wanted.name}", base.context, settings.passages)
            task = prompts.background(wanted)
        messages = prompts.turns(base, *prompts.more(base, found), task)
        asked = call(job, step_of(wanted), messages, settings.teacher_drawing, may_be_empty=True)
        written = taken(await job.ask(asked))
        return replace(written, text="" if said_nothing(written.text) else written.text, passages=found)

    return run


def _graph(settings: ForgeSettings, *, typed: bool) -> Callable[[Job, Values], Awaitable[ConceptGraph]]:
    """A graph; where no edge of the first reply can be kept, edges between its nodes are asked for, held to these."""

    async def run(job: Job, values: Values) -> ConceptGraph:
        base, before = given(job, values), _blocks(values, ("brainstorm",) if typed else ())
        messages = prompts.turns(base, *before, prompts.graph(job.pack, typed=typed))
        schema = graphs.schema(job.pack, typed=typed)
        ask = partial(call, job, "graph", drawing=settings.teacher_drawing)
        first = (await job.ask(ask(messages, json_schema=schema))).answer
        with suppress(Dropped):
            return graphs.read(first, job.pack)
        names = graphs.names(first, job.pack)
        if not names:
            again = await job.ask(ask(messages, json_schema=schema, attempt=1))
            return graphs.read(again.answer, job.pack)
        listed = prompts.section("Nodes", "\n".join(names))
        messages = prompts.turns(base, *before, listed, prompts.EDGES)
        schema = graphs.edges_schema(job.pack, names)
        edges = await job.ask(ask(messages, json_schema=schema, attempt=1))
        return graphs.read(edges.answer, job.pack, nodes_from=first)

    return run


def _pattern(settings: ForgeSettings) -> Run:
    async def run(job: Job, values: Values) -> Written:
        graph: ConceptGraph = values["graph"]
        messages = prompts.turns(given(job, values), prompts.section(GRAPH_HEADING, graph.lines()), prompts.PATTERN)
        section = f"{graph.lines()}\n\n**{PATTERN}**:\n\n"
        return await _readable(
            job, settings, "pattern", messages, derived=graphs.abstract(graph), heading=PATTERN, before=section
        )

    return run


def _patterns(settings: ForgeSettings) -> Run:
    async def run(job: Job, values: Values) -> Written:
        graph: ConceptGraph = values["graph"]
        before = _blocks(values, ("brainstorm", "graph"))
        messages = prompts.turns(given(job, values), *before, prompts.PATTERNS)
        section = f"{_block('graph_json', graph.json())}\n<patterns>\n"
        derived = " \u2192 ".join(graphs.longest_chain(graph))
        return await _readable(job, settings, "patterns", messages, derived=derived, heading="patterns", before=section)

    return run


async def _readable(
    job: Job,
    settings: ForgeSettings,
    step: str,
    messages: tuple[Message, ...],
    *,
    derived: str,
    heading: str,
    before: str,
) -> Written:
    """A pattern that can be read back behind `before`; where no try gives one, that which follows from the graph."""
    written = Written()
    for attempt in range(TRIES):
        reply = await job.ask(call(job, step, messages, settings.teacher_drawing, attempt=attempt, may_be_empty=True))
        written = taken(reply, tags=graphs.TAGS)
        text = _unheaded(written.text, heading)
        if graphs.has_pattern(before + text):
            return Written(text=text, counts=written.counts)
    return Written(text=derived, counts={**written.counts, "patterns_derived": 1})


def _pattern_context(settings: ForgeSettings) -> Run:
    async def run(job: Job, values: Values) -> Written:
        base, graph = given(job, values), values["graph"]
        found = await _beyond(job, " ".join(graph.nodes), base.context, settings.passages)
        shown = prompts.section(GRAPH_HEADING, graph.lines())
        messages = prompts.turns(base, shown, *prompts.more(base, found), prompts.PATTERN_CONTEXT)
        asked = call(job, "pattern_context", messages, settings.teacher_drawing, may_be_empty=True)
        written = taken(await job.ask(asked))
        text = "" if said_nothing(written.text) else _unheaded(written.text, PATTERN_CONTEXT)
        return replace(written, text=text, passages=found)

    return run


def _block_step(settings: ForgeSettings, name: str, task: str, before: tuple[str, ...]) -> Run:
    async def run(job: Job, values: Values) -> Written:
        messages = prompts.turns(given(job, values), *_blocks(values, before), task)
        written = taken(await job.ask(call(job, name, messages, settings.teacher_drawing)), tags=graphs.TAGS)
        return replace(written, text="") if said_nothing(written.text) else written

    return run


def _blocks(values: Values, names: tuple[str, ...]) -> list[str]:
    """The blocks that stand before a task, as the parts of a prompt."""
    texts = {name: values[name].lines() if name == "graph" else values[name].text for name in names}
    return [prompts.section(name.capitalize(), text) for name, text in texts.items()]


def _block(name: str, text: str) -> str:
    return f"<{name}>\n{text}\n</{name}>"


async def _beyond(job: Job, query: str, known: tuple[Passage, ...], count: int) -> tuple[Passage, ...]:
    """Passages found by a query that are not known yet."""
    seen = {passage.chunk_id for passage in known}
    found = await job.retrieve(query, k=count + len(seen))
    return tuple(passage for passage in distinct(found) if passage.chunk_id not in seen)[:count]


def _unheaded(text: str, name: str) -> str:
    """The text without a heading that only says the name again."""
    heading = rf"\A\s*(?:\#+\s*)?[*_]*{re.escape(name)}[*_]*\s*:?[*_]*[ \t]*(?:\n+|(?<=:)\s*|(?<=\*)\s*)"
    return re.sub(heading, "", text, count=1, flags=re.IGNORECASE).strip()
