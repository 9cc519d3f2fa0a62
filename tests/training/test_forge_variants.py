"""What forge rows are made of, variant by variant, with a teacher that says what it was told to."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from graphlib import TopologicalSorter
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

from preflexor_agents import markup, packs, prompts
from preflexor_agents.backends import open_backend
from preflexor_agents.backends.base import Completion, Request, complete
from preflexor_agents.graph import tagged
from preflexor_agents.prompts import Grounds, Message
from preflexor_agents.store import Store
from preflexor_training.forge import contexts, gates, graphs, variants
from preflexor_training.forge.given import Question
from preflexor_training.forge.settings import Drawing, ForgeSettings, Variant
from preflexor_training.forge.steps import Call
from preflexor_training.forge.thinking import said_nothing
from preflexor_training.pairs import Reply
from tests.training.teaching import GRAPH, Made, Teacher, library, made_with, make, teach

VARIANTS: tuple[Variant, ...] = get_args(Variant)
EVERY = ["question", "enrichment", "background", "answer"]
CATEGORIES = [f"category:{c.name}" for c in packs.load("general").categories if not c.retrieved]
CALLS: dict[Variant, list[str]] = {
    "plain": [*EVERY, *CATEGORIES],
    "graph": [*EVERY, *CATEGORIES, "graph", "pattern", "pattern_context"],
    "reflection": [*EVERY, *CATEGORIES, "draft", "critique"],
    "typed": ["question", "enrichment", "brainstorm", "graph", "patterns", "synthesis", "answer"],
    "direct": ["question", "reply"],
}
TAG = re.compile("|".join(map(re.escape, graphs.TAGS)))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with library(tmp_path_factory.mktemp("variants") / "library.db") as opened:
        yield opened


def waves(settings: ForgeSettings) -> list[set[str]]:
    """The steps with a call in the order of their calls, if every step starts as soon as it can."""
    needs = {step.name: step.needs for step in variants.steps(settings)}
    without_call = {"prompt", "thinking", "answer"}
    wave: dict[str, int] = {}
    for name in TopologicalSorter(needs).static_order():
        wave[name] = max((wave[need] for need in needs[name]), default=0) + (name not in without_call)
    return [{n for n in needs if wave[n] == at and n not in without_call} for at in range(1, max(wave.values()) + 1)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_makes_its_calls_once_and_comes_to_a_whole_row(store: Store, variant: Variant):
    teacher = Teacher()
    made = make(store, ForgeSettings(variant=variant), teacher, number=3)
    assert not made.fell
    assert sorted(call.step for call in teacher.calls) == sorted(CALLS[variant])
    row = made.row
    assert row.prompt == (Message("user", f"{row.question} Use <|thinking|>."),)
    assert row.chosen.thinking and row.chosen.answer and not TAG.search(row.chosen.answer)
    assert (row.chosen.reflection is not None) == (variant == "reflection")
    assert bool(row.categories) == (variant != "direct")


def test_a_plain_row_takes_four_calls_one_after_the_other_and_a_graph_row_five():
    plain, graph = waves(ForgeSettings()), waves(ForgeSettings(variant="graph"))
    assert plain == [{"question"}, {"enrichment"}, {*CATEGORIES, "background"}, {"written"}]
    assert graph[2] == {*CATEGORIES, "background", "graph"} and graph[3] == {"pattern", "pattern_context"}
    assert len(graph) == 5
    assert sum(map(len, plain)) == 9 and sum(map(len, graph)) == 12


def test_the_published_form_writes_the_answer_beside_the_thinking_and_without_it(store: Store):
    settings = ForgeSettings(answer_from="context")
    assert "written" in waves(settings)[2]
    teacher = Teacher()
    make(store, settings, teacher)
    (asked,) = (call.request.messages[-1].content for call in teacher.calls if call.step == "answer")
    assert "Thinking:" not in asked and "Additional information:" in asked


def test_the_preferred_answer_is_written_in_sight_of_the_finished_thinking(store: Store):
    teacher = Teacher()
    row = make(store, ForgeSettings(), teacher).row
    (asked,) = (call.request.messages[-1].content for call in teacher.calls if call.step == "answer")
    assert f"Thinking:\n{row.chosen.thinking}\n\nTask:" in asked


def test_calls_of_a_row_share_their_prompts_up_to_what_differs(store: Store):
    teacher = Teacher()
    make(store, ForgeSettings(variant="graph"), teacher)
    shown = {call.step: call.request.messages for call in teacher.calls}
    assert len({messages[0] for messages in shown.values()}) == 1
    drawn = shown["question"][-1].content.split("\n\nTask:")[0]
    found = shown["enrichment"][-1].content.split("\n\nTask:")[0]
    assert found.startswith(drawn) and "Further passages:" in found
    enriched = {step: m[-1].content for step, m in shown.items() if step not in ("question", "enrichment")}
    assert all(text.startswith(f"{found}\n\nAdditional information:\n") for text in enriched.values())
    parts = {text.split("\n\nTask:")[0] for step, text in enriched.items() if step.startswith("category:")}
    assert len(parts) == 1


def test_seeds_follow_from_run_refresh_row_step_and_attempt_alone(store: Store):
    def seeds(settings: ForgeSettings, number: int) -> dict[str, int]:
        teacher = Teacher()
        make(store, settings, teacher, number=number)
        return {call.step: call.request.seed for call in teacher.calls}

    first = seeds(ForgeSettings(), 0)
    assert first == seeds(ForgeSettings(rows=7, variant="plain"), 0)
    others = (seeds(ForgeSettings(), 1), seeds(ForgeSettings(seed=1), 0), seeds(ForgeSettings(round=1), 0))
    every = [seed for found in (first, *others) for seed in found.values()]
    assert len(set(every)) == len(every) and all(0 <= seed < 2**31 for seed in every)


def test_drawings_are_those_of_the_settings(store: Store):
    teacher = Teacher()
    make(store, ForgeSettings(teacher_drawing=Drawing(temperature=0.3, top_k=7, max_tok=77)), teacher)
    drawn = {call.step: call.request.sampling for call in teacher.calls}
    assert drawn["question"].temperature == 0.7 and drawn["question"].top_k == 0 and drawn["question"].top_p == 1
    assert {(s.temperature, s.top_k, s.max_tok) for step, s in drawn.items() if step != "question"} == {(0.3, 7, 77)}


def test_thinking_has_the_packs_categories_under_their_headings_in_their_order(store: Store):
    row = make(store, ForgeSettings(pack="materials"), Teacher()).row
    names = [category.name for category in packs.load("materials").categories]
    assert [name for name, _ in row.categories] == names
    assert re.findall(r"^\*\*(.*)\*\*:\n\n(?=\S)", row.chosen.thinking or "", re.MULTILINE) == names


def test_a_category_with_nothing_to_say_is_left_out_and_counted(store: Store):
    def category(request: Request) -> str:
        return "None." if "Hypothesis" in request.messages[-1].content or "may follow" in task(request) else "It is so."

    def task(request: Request) -> str:
        return request.messages[-1].content.rsplit("Task: ", 1)[1]

    row = make(store, ForgeSettings(), Teacher({"category": category})).row
    assert "Hypothesis" not in [name for name, _ in row.categories] and "Hypothesis" not in (row.chosen.thinking or "")
    assert row.counts["categories_empty"] == 1


@pytest.mark.parametrize(
    "said",
    [
        "",
        '""',
        "None",
        "none.",
        "N/A",
        "(empty string)",
        "There is no relevant information.",
        "**None**",
        "Not applicable",
    ],
)
def test_teachers_say_nothing_in_many_words(said: str):
    assert said_nothing(said)


@pytest.mark.parametrize(
    "said",
    ["No tablets slide when nacre is dry.", "None of the tablets slides.", "0", "Nothing sticks to a lotus leaf."],
)
def test_what_only_begins_like_nothing_is_something(said: str):
    assert not said_nothing(said)


def test_a_row_about_which_there_is_nothing_to_think_is_dropped(store: Store):
    made = make(store, ForgeSettings(), Teacher({"category": "None", "background": "None"}))
    assert made.fell.startswith("empty_thinking: none of 6 categories")
    assert made.row.question and made.row.context and made.row.chosen == Reply()


def test_a_heading_that_the_teacher_repeats_stands_once(store: Store):
    def category(request: Request) -> str:
        heading = "Reasoning steps" if "the steps that lead" in request.messages[-1].content else "Other"
        return f"**{heading}:**\n\nTablets slide."

    row = make(store, ForgeSettings(variant="graph"), Teacher({"category": category})).row
    thinking = row.chosen.thinking or ""
    assert thinking.count("Reasoning steps") == 1 == thinking.count("Knowledge Graph")
    assert dict(row.categories)["Reasoning steps"] == "Tablets slide." and row.counts["headings_mended"] == 1


def test_the_graph_stands_first_and_can_be_read_back_with_its_pattern(store: Store):
    row = make(store, ForgeSettings(variant="graph"), Teacher()).row
    assert (row.chosen.thinking or "").startswith("**Knowledge Graph**:\n\n**Core Concepts and Relationships**:\n\n[")
    graph = tagged.parse(row.chosen.thinking or "")
    assert [(e.source.name, e.relation, e.target.name) for e in graph.edges] == [
        tuple(edge.values()) for edge in GRAPH["edges"]
    ]
    assert not graph.dangling and graph.patterns[0].names == ("tablets", "cracks", "toughness")


def test_edges_without_both_ends_or_with_an_unknown_relation_are_left_out_and_counted(store: Store):
    nodes = [*GRAPH["nodes"], {"id": "Tablets"}, {"id": "chalk"}, {"id": ""}, 7]
    wrong = [("tablets", "prevents", "glue"), ("tablets", "eats", "cracks"), ("cracks", "PREVENTS", "Cracks")]
    edges = [*GRAPH["edges"], *(dict(zip(("source", "relation", "target"), e, strict=True)) for e in wrong), "odd"]
    row = make(
        store, ForgeSettings(variant="graph"), Teacher({"graph": json.dumps({"nodes": nodes, "edges": edges})})
    ).row
    found = tagged.parse(row.chosen.thinking or "")
    assert len(found.edges) == 2 and not found.dangling
    assert {name: n for name, n in row.counts.items() if name.startswith(("nodes", "edges"))} == {
        "edges_dangling": 2,
        "edges_of_unknown_relation": 1,
        "edges_to_self": 1,
        "nodes_alone": 1,
        "nodes_refused": 2,
        "nodes_repeated": 1,
    }


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("no JSON", "bad_json"),
        ("[1]", "bad_json"),
        pytest.param("[" * 100_000, "bad_json", id="deep"),
        (json.dumps({**GRAPH, "nodes": []}), "no_graph"),
    ],
)
@pytest.mark.parametrize("variant", ["graph", "typed"])
def test_a_graph_that_is_none_is_asked_for_again_and_then_drops_the_row(
    store: Store, variant: Variant, reply: str, kind: str
):
    teacher = Teacher({"graph": reply})
    made = make(store, ForgeSettings(variant=variant), teacher)
    assert made.fell.startswith(f"{kind}: ")
    asked = [call for call in teacher.calls if call.step == "graph"]
    assert [call.attempt for call in asked] == [0, 1] and asked[0].request.seed != asked[1].request.seed


@pytest.mark.parametrize("variant", ["graph", "typed"])
def test_where_every_edge_dangles_edges_are_asked_for_that_are_held_to_the_nodes(store: Store, variant: Variant):
    loose = [{"source": "glue", "relation": "causes", "target": "chalk"}]
    teacher = Teacher({"graph": json.dumps({**GRAPH, "edges": loose})})
    made = make(store, ForgeSettings(variant=variant), teacher)
    assert not made.fell and len(tagged.parse(made.row.chosen.thinking or "").edges) == 2
    again = [call.request for call in teacher.calls if call.step == "graph"][1]
    assert "Nodes:\ntablets\ncracks\ntoughness\n\nTask:" in again.messages[-1].content
    kinds = (again.json_schema or {})["properties"]["edges"]["items"]["anyOf"]
    ends = [(kind["properties"]["source"]["enum"], kind["properties"]["target"]["enum"]) for kind in kinds]
    assert ends[0] == (["tablets"], ["cracks", "toughness"]) and len(ends) == 3


def test_names_that_would_break_the_text_form_or_spell_tags_are_mended():
    names = ["a [b]", "crack → tip", "</graph_json>", "<|/thinking|>", " two\nlines "]
    said = {
        "nodes": [{"id": name} for name in names],
        "edges": [{"source": a, "relation": "causes", "target": b} for a, b in pairwise(names)],
    }
    graph = graphs.read(json.dumps(said), packs.load("general"))
    assert not TAG.search(graph.lines() + graph.json())
    for text in (graph.lines(), f"<graph_json>{graph.json()}</graph_json>"):
        assert [(e.source.name, e.target.name) for e in tagged.parse(text).edges] == [(e[0], e[2]) for e in graph.edges]
    assert len(graph.edges) == 4


def test_the_schema_of_a_graph_allows_the_packs_relations_and_types_only():
    pack = packs.load("materials")
    schema = graphs.schema(pack, typed=True)["properties"]
    assert schema["edges"]["items"]["properties"]["relation"]["enum"] == list(pack.relations)
    assert schema["nodes"]["items"]["properties"]["type"]["enum"] == list(pack.entity_types)
    assert schema["nodes"]["items"]["required"] == ["id", "type"]


@pytest.mark.parametrize(("variant", "task"), [("graph", "pattern"), ("typed", "patterns")])
def test_a_pattern_that_cannot_be_read_is_asked_for_again_and_then_follows_from_the_graph(
    store: Store, variant: Variant, task: str
):
    teacher = Teacher({task: "It all hangs together somehow."})
    row = make(store, ForgeSettings(variant=variant), teacher).row
    assert sum(call.step == task for call in teacher.calls) == 2 and row.counts["patterns_derived"] == 1
    (pattern, *_) = tagged.parse(row.chosen.thinking or "").patterns
    assert pattern.names == ("tablets", "cracks", "toughness")


def test_typed_thinking_has_every_block_once_in_order_and_its_graph_has_no_dangling_edge(store: Store):
    row = make(store, ForgeSettings(variant="typed"), Teacher()).row
    thinking = row.chosen.thinking or ""
    assert re.findall(r"<(/?\w+)>", thinking) == [f"{end}{name}" for name in graphs.BLOCKS for end in ("", "/")]
    graph = tagged.parse(thinking)
    assert not graph.problem and not graph.dangling and len(graph.edges) == 2 and graph.patterns
    assert [name for name, _ in row.categories] == list(graphs.BLOCKS)


def test_each_typed_block_is_written_in_sight_of_those_before(store: Store):
    teacher = Teacher()
    make(store, ForgeSettings(variant="typed"), teacher)
    shown = {call.step: call.request.messages[-1].content for call in teacher.calls}
    assert "Brainstorm:\n" in shown["graph"] and "Graph:\n[tablets]" in shown["patterns"]
    assert "Patterns:\ntablets" in shown["synthesis"] and "<synthesis>" in shown["answer"]


def test_a_reflection_is_written_on_a_draft_and_heeded_by_the_answer(store: Store):
    teacher = Teacher()
    row = make(store, ForgeSettings(variant="reflection"), teacher).row
    shown = {call.step: call.request.messages[-1].content for call in teacher.calls}
    draft = shown["critique"].split("\n\nDraft:\n")[1].split("\n\nTask:")[0]
    assert (
        f"Draft:\n{draft}\n\nReflection:\n{row.chosen.reflection}\n\nTask: write the answer that heeds"
        in shown["answer"]
    )
    assert "Verdict" not in (row.chosen.reflection or "") and row.chosen.reflection
    assert row.chosen.answer.startswith("In the end") and row.chosen.answer != draft


def test_a_reflection_that_finds_nothing_to_change_keeps_the_draft_and_saves_a_call(store: Store):
    teacher = Teacher({"critique": "All of it is borne out.\n**Verdict: sound**"})
    row = make(store, ForgeSettings(variant="reflection"), teacher).row
    assert "answer" not in [call.step for call in teacher.calls] and row.counts["reflection_sound"] == 1
    assert row.chosen.reflection == "All of it is borne out." and row.chosen.answer.startswith("Answer: ")


def test_a_reflection_that_says_nothing_drops_the_row(store: Store):
    made = make(store, ForgeSettings(variant="reflection"), Teacher({"critique": "Verdict: revise"}))
    assert made.fell.startswith("empty_reflection: ")


def test_the_grounded_prompt_is_the_agents_own_with_all_passages_of_the_context(store: Store):
    for variant in ("plain", "reflection"):
        made = make(store, ForgeSettings(prompt="grounded", variant=variant), Teacher())
        passages = (*made.job.passages, *made.ran.values["enrichment"].passages)
        grounds = Grounds(question=made.row.question, passages=passages)
        assert len(passages) == 6 and made.row.prompt == prompts.draft(grounds, reflect=variant == "reflection")


def test_citation_marks_stay_only_where_the_passages_are_in_the_prompt(store: Store):
    def answer(request: Request) -> str:
        return str(teach(request)) + " It holds [1, 2]."

    plain = make(store, ForgeSettings(), Teacher({"answer": answer})).row
    grounded = make(store, ForgeSettings(prompt="grounded"), Teacher({"answer": answer})).row
    assert "[" not in plain.chosen.answer and plain.counts["marks_removed"] == 1
    assert grounded.chosen.answer.endswith("It holds [1, 2].")


def test_without_enrichment_nothing_is_searched_for_the_question(store: Store):
    teacher = Teacher()
    made = make(store, ForgeSettings(enrich=False), teacher)
    assert not made.fell and "enrichment" not in [call.step for call in teacher.calls]
    found = made.ran.values["background"].passages
    assert len(found) == 3 and len(made.row.context) == 6


def test_the_context_of_a_row_holds_every_passage_that_a_prompt_held_once(store: Store):
    teacher = Teacher()
    made = make(store, ForgeSettings(variant="graph"), teacher)
    spans = made.row.context
    assert len({span.chunk_id for span in spans}) == len(spans)
    shown = "\n".join(call.request.messages[-1].content for call in teacher.calls)
    for passage in (*made.job.passages, *made.ran.values["background"].passages):
        assert prompts.one_line(passage.text) in shown and contexts.span(passage) in spans


def test_tags_that_teachers_spell_never_read_as_tags(store: Store):
    evil = (
        "It slides.<|/thinking|> </think> <|reflect|> </brainstorm> It stops cracks <|thinking|>well, and so it holds."
    )
    said = Completion(thinking=evil, answer=evil)
    for variant in VARIANTS:
        but = dict.fromkeys(
            ("category", "background", "brainstorm", "synthesis", "answer", "revision", "critique", "reply"), said
        )
        if variant == "reflection":
            but["critique"] = replace(said, answer=f"{evil}\nVerdict: revise")
        row = make(store, ForgeSettings(variant=variant), Teacher(but)).row
        texts = [row.chosen.thinking or "", row.chosen.reflection or "", row.chosen.answer]
        assert row.chosen.answer and row.counts["tags_neutralised"] >= 8
        assert not any(tag in text for tag in markup.TAGS for text in texts)
        whole = f"<|thinking|>{texts[0]}<|/thinking|><|reflect|>{texts[1]}<|/reflect|>{texts[2]}"
        assert markup.parse(whole).thinking == texts[0].strip() and not markup.parse(whole).problems
        if variant == "typed":
            assert len(re.findall(r"</?(?:brainstorm|synthesis)>", texts[0])) == 4


def test_tags_in_documents_stay_words_in_prompts_and_spans(tmp_path: Path):
    text = "Nacre has tablets.<|/thinking|> Its <|eot_id|> tablets slide over each other, and so nacre is tough.\n"
    (tmp_path / "nacre.txt").write_text(text, encoding="utf-8")
    with Store.open(tmp_path / "store.db") as store:
        store.ingest([tmp_path / "nacre.txt"])
        made = make(store, ForgeSettings(prompt="grounded"), Teacher())
    assert not made.fell and "<|/thinking|> Its <|eot_id|>" in made.row.prompt[-1].content
    assert "<|/thinking|>" not in (made.row.chosen.thinking or "")


def test_answers_that_no_row_may_have_drop_it_by_kind(store: Store):
    long = Completion(answer="Tablets slide over each other, and the", finish_reason="length")
    for said, kind in (
        ("The passages do not say.", "not_answerable"),
        ("As the passage says, tablets slide over each other under load.", "refers_to_context"),
        (long, "cut_off"),
        ("...", "empty_answer"),
    ):
        made = make(store, ForgeSettings(), Teacher({"answer": said}))
        assert made.fell.startswith(f"{kind}: ") and made.row.categories and kind in gates.KINDS


def test_a_part_of_the_thinking_that_was_cut_off_ends_with_its_last_whole_sentence(store: Store):
    cut = Completion(answer="Tablets slide. Then they lo", finish_reason="length")
    row = make(store, ForgeSettings(), Teacher({"category": cut})).row
    assert dict(row.categories)["Reasoning steps"] == "Tablets slide." and row.counts["cut_off"] == 5


def test_a_question_that_a_gate_refuses_costs_one_call_and_drops_the_row(store: Store):
    teacher = Teacher({"question": "What does the passage say about nacre and tablets?"})
    made = make(store, ForgeSettings(), teacher)
    assert made.fell.startswith("not_standalone: 'the passage'") and len(teacher.calls) == 1
    assert made.row.question == "" and len(made.row.context) == 3


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        ({"stands_alone": False, "answerable": True, "gives_away": False}, "not_standalone"),
        ({"stands_alone": True, "answerable": False, "gives_away": False}, "not_answerable"),
        ({"stands_alone": True, "answerable": True, "gives_away": True}, "gives_away"),
        ({"stands_alone": True}, "bad_json"),
        ([], "bad_json"),
    ],
)
def test_the_teachers_own_check_of_a_question_is_asked_for_only_on_request(store: Store, verdict: object, kind: str):
    teacher = Teacher({"check": json.dumps(verdict)})
    assert not make(store, ForgeSettings(), teacher).fell
    assert make(store, ForgeSettings(check_questions=True), teacher).fell.startswith(f"{kind}: ")


def test_given_questions_are_asked_as_they_are_and_keep_their_answers(store: Store, tmp_path: Path):
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps({"question": "Which passage of the text says 70 GPa of nacre?", "answer": "70 GPa"}))
    teacher = Teacher()
    made = make(store, ForgeSettings(questions=file), teacher, number=5)
    assert not made.fell and "question" not in [call.step for call in teacher.calls]
    question: Question = made.ran.values["question"]
    assert (question.text, question.gold) == ("Which passage of the text says 70 GPa of nacre?", "70 GPa")
    assert made.row.gold == "70 GPa" and "acre" in made.row.context[0].title


def test_claims_of_the_answer_that_no_passage_bears_out_are_counted(store: Store):
    said = "Moon dust holds the tablets of nacre together by magnets. Dragons spin silk from molten copper wires."
    row = make(store, ForgeSettings(), Teacher({"answer": said})).row
    assert row.counts["claims"] == 2 == row.counts["unsupported"]


def test_a_pack_of_ones_own_decides_the_steps_and_a_field_is_named_by_packs_only(store: Store, tmp_path: Path):
    general = resources.files("preflexor_agents").joinpath("data", "packs", "general.toml").read_text(encoding="utf-8")
    pack = tmp_path / "mine.toml"
    pack.write_text(general.replace('name = "Hypothesis"', 'name = "Open ends"').replace("retrieved = true", ""))
    teacher = Teacher()
    row = make(store, ForgeSettings(pack=str(pack)), teacher).row
    assert "Open ends" in dict(row.categories)
    assert "category:Additional background" in [call.step for call in teacher.calls]
    assert not any("materials scientist" in m.content for call in teacher.calls for m in call.request.messages)


def test_rows_of_the_whole_library_come_out_whole(store: Store):
    settings = ForgeSettings()
    rows = [make(store, settings, Teacher(), number=number) for number in range(0, 96, 2)]
    kept = [made.row for made in rows if not made.fell]
    assert len(kept) >= 0.9 * len(rows)
    assert all(row.question.endswith("?") and row.chosen.thinking and row.chosen.answer for row in kept)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nano_goes_through_all_steps_of_each_variant(store: Store, tmp_path: Path, variant: Variant):
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps({"question": "How stiff is nacre?", "answer": "70 GPa"}), encoding="utf-8")
    short = Drawing(temperature=0.0, max_tok=480 if variant in ("graph", "typed", "direct") else 48)
    settings = ForgeSettings(variant=variant, prompt="grounded", passages=1, questions=file, teacher_drawing=short)

    async def through() -> tuple[Made, set[str]]:
        backend = await open_backend("nano")
        asked: set[str] = set()

        async def ask(call: Call) -> Completion:
            asked.add(call.step)
            return await complete(backend, call.request)

        try:
            return await made_with(store, settings, ask), asked
        finally:
            await backend.aclose()

    made, asked = asyncio.run(through())
    left = set(CALLS[variant]) - {"question"} - asked
    assert made.row.question == "How stiff is nacre?" and made.row.context
    assert not left or made.fell, f"{left} were never asked"
    assert not made.fell or made.fell.split(":")[0] in (
        *gates.KINDS,
        "bad_json",
        "no_graph",
        "empty_thinking",
        "unclosed",
    )
