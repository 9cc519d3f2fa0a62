"""The fact base, the notes, and the dialogues made from them. Needs no torch."""

import random
import re
from collections import Counter
from functools import cache
from itertools import combinations

import pytest

from preflexor_agents import prompts
from preflexor_agents.errors import ConfigError
from preflexor_agents.store.chunks import markdown_chunks
from preflexor_training.nano import facts as fact_base
from preflexor_training.nano import frames
from preflexor_training.nano.attributes import ATTRIBUTES, BY_NAME
from preflexor_training.nano.dialogues import Dialogue, Episode, episode
from preflexor_training.nano.facts import materials, split_note, states
from preflexor_training.nano.library import library, names
from preflexor_training.nano.queries import ask
from preflexor_training.nano.questions import library_questions
from preflexor_training.nano.worlds import World, held_out_fact, held_out_hop, held_out_pair, made_up

MANY = 900
UNIT = r"(?:GPa|MPa m\^0\.5|MPa|J/m\^2|MJ/m\^3|g/cm\^3|%|nm|degrees)"
SHAPES = (*frames.SINGLE, *frames.COMPARISON, *frames.REVERSE, *frames.TWO_HOP, *frames.MULTI_HOP)
ANSWERED = ("single", "comparison", "two-hop", "multi-hop", "reverse")


@cache
def episodes(count: int, *, stage: int = 2, split: frames.Split = "train") -> tuple[Episode, ...]:
    rng = random.Random(f"{stage} {split}")
    return tuple(episode(rng, split=split, stage=stage) for _ in range(count))


def dialogues(task: str) -> list[Dialogue]:
    return [d for e in episodes(MANY) for d in e.dialogues if d.task == task]


def passages(dialogue: Dialogue) -> str:
    return dialogue.messages[-1].content.split("Question: ", 1)[0]


def test_the_library_has_enough_materials_and_facts() -> None:
    assert len(materials()) >= 44
    for material in materials():
        numeric = [k for k in material.known if BY_NAME[k.fact.attribute].numeric]
        assert len(material.known) >= 5 and material.sources, material.name
        assert {"main component", "structure", "mechanism", "source", "function"} <= {
            k.fact.attribute for k in material.known
        }, material.name
        assert len({k.fact.value for k in numeric}) == len(numeric), material.name
    assert sum(BY_NAME[k.fact.attribute].numeric for m in materials() for k in m.known) >= 220


def test_every_source_names_authors_and_year() -> None:
    for material in materials():
        for source in material.sources:
            assert re.match(r"[A-Z][\w-]+[^,]*,.* (?:19|20)\d\d, \w|[A-Z][\w-]+, (?:19|20)\d\d, \w", source), source


@pytest.mark.parametrize("material", materials(), ids=lambda m: m.name)
def test_a_note_states_each_fact_once_and_names_the_material_beside_it(material: fact_base.Material) -> None:
    parts = {p.heading: p.text for p in material.parts}
    for known in material.known:
        text = parts[known.section]
        sentences = [s for s in re.split(r"(?<=[.!?])\s+", text) if states(s, known.fact.value)]
        assert len(sentences) == 1, known.fact
        assert material.name in sentences[0].lower(), sentences[0]


@pytest.mark.parametrize("material", materials(), ids=lambda m: m.name)
def test_a_note_holds_no_measured_number_that_is_not_a_fact(material: fact_base.Material) -> None:
    known = {k.fact.value for k in material.known}
    found = set(re.findall(rf"(?<![\w.])\d+(?:\.\d+)? ?{UNIT}", material.text))
    assert found <= known


@pytest.mark.parametrize("material", materials(), ids=lambda m: m.name)
def test_the_store_cuts_a_note_where_the_generator_does(material: fact_base.Material) -> None:
    chunks = [material.text[c.start : c.end].strip() for c in markdown_chunks(material.text)]
    assert chunks == [p.text for p in material.parts]
    assert all(200 <= len(p.text) <= 700 for p in material.parts if p.heading != "Sources")


def test_headings_are_those_of_a_note() -> None:
    expected = ["", "Structure", "Mechanism", "Properties", "Use in design", "Sources"]
    assert all([p.heading for p in m.parts] == expected for m in materials())


def test_parts_are_exact_spans() -> None:
    text = "# A\n\nOne.\n\n## B\n\nTwo.\n"
    assert [(p.heading, text[p.start : p.end]) for p in split_note(text)] == [
        ("", "# A\n\nOne."),
        ("B", "## B\n\nTwo."),
    ]


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("It is 47 MPa.", "47 MPa", True),
        ("It is 147 MPa.", "47 MPa", False),
        ("It is 0.47 MPa.", "47 MPa", False),
        ("It is 47 MPa m^0.5.", "47 MPa", False),
        ("By 35%, it", "35%", True),
        ("silicate", "silica", False),
    ],
)
def test_a_value_is_found_only_as_a_whole(text: str, value: str, found: bool) -> None:
    assert states(text, value) is found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attribute": "charm"}, "charm"),
        ({"value": "70"}, "GPa"),
        ({"value": "71 GPa"}, "does not say"),
        ({"section": "Nowhere"}, "Nowhere"),
        ({"source": 2}, "source 2"),
    ],
)
def test_a_wrong_fact_is_refused_by_name(change: dict[str, object], words: str) -> None:
    fact = {"attribute": "Young's modulus", "value": "70 GPa", "section": "Properties", "source": 1}
    entry = {"name": "nacre", "note": "nacre.md", "sources": ["A, 2000, B"], "facts": [fact | change]}
    with pytest.raises(ConfigError, match=words):
        fact_base._material(entry)


def test_there_are_enough_question_shapes_and_some_are_held_out() -> None:
    single, comparison = Counter(s.held_out for s in frames.SINGLE), Counter(s.held_out for s in frames.COMPARISON)
    assert single[False] >= 60 and single[True] >= 8
    assert comparison[False] >= 24 and comparison[True] >= 4
    assert len({s.id for s in SHAPES}) == len({s.text for s in SHAPES}) == len(SHAPES)


def test_training_uses_no_held_out_shape_and_the_held_out_split_no_other() -> None:
    held = {s.id for s in SHAPES if s.held_out}
    trained = {d.gold["shape"] for e in episodes(MANY) for d in e.dialogues if "shape" in d.gold}
    kept = {d.gold["shape"] for e in episodes(200, split="heldout") for d in e.dialogues if "shape" in d.gold}
    assert not trained & held
    assert kept and kept <= held


def test_training_compares_no_held_out_pair_and_asks_no_held_out_fact() -> None:
    for made in episodes(MANY):
        for d in made.dialogues:
            first, _, second = d.gold.get("entity", "").partition("|")
            if d.gold.get("value") in (None, "none"):
                continue
            if second:
                assert not held_out_pair(first, second)
            elif "key" in d.gold:
                assert not held_out_hop(first, d.gold["key"], d.gold["attribute"])
                assert not held_out_fact(first, d.gold["attribute"]) and not held_out_fact(first, d.gold["key"])
            elif first and d.task not in ("copy",):
                assert not held_out_fact(first, d.gold["attribute"])


def test_at_least_a_tenth_of_all_pairs_is_held_out() -> None:
    pairs = list(combinations(names(), 2))
    assert 0.1 <= sum(held_out_pair(*p) for p in pairs) / len(pairs) <= 0.2
    assert held_out_pair("nacre", "wool") == held_out_pair("wool", "nacre")


def test_the_same_seed_gives_the_same_dialogues() -> None:
    for stage in (0, 1, 2):
        first, second = random.Random(stage), random.Random(stage)
        for _ in range(20):
            assert episode(first, split="train", stage=stage) == episode(second, split="train", stage=stage)


def test_dialogues_of_an_episode_share_their_passages() -> None:
    for stage in (0, 1, 2):
        for made in episodes(50, stage=stage):
            assert 8 <= len(made.dialogues) <= 14
            assert len({passages(d) for d in made.dialogues}) == 1
            assert all(d.messages[0].content == prompts.SYSTEM for d in made.dialogues)


def test_the_last_stage_holds_every_task() -> None:
    seen = {d.task for e in episodes(MANY) for d in e.dialogues}
    roles = {"answer", "reflect", "critique", "revise", "judge", "integrate", "steered"}
    roles |= {"copy", "lookup", "several lookups", "reverse lookup"}
    assert seen == roles | {*ANSWERED, "unanswerable"}


def test_what_is_thought_is_told_in_the_passages() -> None:
    for d in dialogues("single"):
        facts = re.findall(r"^Fact: (.+?): ([^:\n]+): (.+)\.$", d.completion, re.MULTILINE)
        assert [f[2] for f in facts] == [d.gold["value"]]
        assert states(passages(d), d.gold["value"]), d
        assert d.gold["entity"] in passages(d).lower()
        assert d.completion.count(d.gold["value"]) == 2


def test_a_cited_passage_states_the_value() -> None:
    for d in dialogues("single"):
        number = re.search(r"\[(\d)\]\.$", d.completion)
        assert number
        lines = passages(d).strip().split("\n")
        assert states(lines[int(number[1])], d.gold["value"])


def test_a_comparison_names_the_side_with_the_better_number() -> None:
    for d in dialogues("comparison") + dialogues("multi-hop"):
        first, second = d.gold["entity"].split("|")
        a, b = (float(x) for x in d.gold["numbers"].split("|"))
        said = re.search(r"Compare: .* ([<>=]) .*\. (Higher|Lower|Equal)(?:: (.+))?\.$", d.completion, re.MULTILINE)
        assert said and (said[1] == ">") == (a > b) and (said[1] == "<") == (a < b)
        if said[2] != "Equal":
            best = (first if a > b else second) if said[2] == "Higher" else (first if a < b else second)
            assert said[3] == d.gold["value"] == best


def test_a_question_in_two_steps_tells_its_material_by_a_value_that_no_other_has() -> None:
    for d in dialogues("two-hop"):
        asked = d.messages[-1].content.split("Question: ", 1)[1].split("\n", 1)[0]
        key = re.search(r"^Fact: ([^:\n]+): (.+): (.+)\.$", d.completion, re.MULTILINE)
        assert key and (key[1], key[3]) == (d.gold["key"], d.gold["entity"])
        assert key[2] in asked and d.gold["entity"] not in asked.replace(key[2], "")
        assert states(passages(d), key[2]) and states(passages(d), d.gold["value"])
        assert d.completion.splitlines()[3] == f"Fact: {key[3]}: {d.gold['attribute']}: {d.gold['value']}."


def test_an_unanswerable_question_asks_for_nothing_that_is_told() -> None:
    rng = random.Random(4)
    true = {(k.fact.entity, k.fact.attribute): k.fact.value for m in materials() for k in m.known}
    seen = 0
    for n in range(500):
        world = library(rng, split="train") if n % 2 else made_up(rng, split="train", stage=2, known=names())
        query = ask(rng, world, split="train", stage=2)
        if query.kind != "unanswerable":
            continue
        seen += 1
        assert query.right.answer == prompts.NOT_IN_PASSAGES
        entity, attribute = query.gold.get("entity", ""), query.gold.get("attribute", "")
        assert (entity, attribute) not in {(f.entity, f.attribute) for f in world.facts()}
        value = true.get((entity, attribute))
        if value and world.kind == "library":
            told = [s.text for s in world.sections if s.title.lower() == entity]
            assert not any(states(text, value) for text in told)
    assert seen > 80


def test_verdicts_are_balanced_and_fit_the_reasons_given() -> None:
    critiques = dialogues("critique")
    sound = [d for d in critiques if d.gold["verdict"] == "sound"]
    assert 0.42 < len(sound) / len(critiques) < 0.58
    for d in critiques:
        found = re.search(r"Draft: (.*)\. Passage: (.*)\. Same: (yes|no)\.", d.completion)
        assert found and (found[1] == found[2]) == (found[3] == "yes") == (d.gold["verdict"] == "sound")
        assert d.completion.endswith(f"\nVerdict: {d.gold['verdict']}")


def test_the_judge_is_right_and_favours_no_side() -> None:
    judged = dialogues("judge")
    counts = Counter(d.gold["verdict"] for d in judged)
    assert abs(counts["A"] - counts["B"]) < 0.12 * len(judged) and counts["tie"] > 0.12 * len(judged)
    for d in judged:
        found = re.search(r"Passage: (.*)\. A: (.*)\. B: (.*)\.\n", d.completion)
        assert found
        a, b = found[2] == found[1], found[3] == found[1]
        assert d.gold["verdict"] == ("tie" if a == b else "A" if a else "B")


def test_a_fifth_to_a_third_of_drafted_questions_has_no_answer() -> None:
    counts = Counter(d.task for e in episodes(MANY) for d in e.dialogues)
    drafted = sum(counts[kind] for kind in (*ANSWERED, "unanswerable"))
    assert 0.2 <= counts["unanswerable"] / drafted <= 0.33


def test_finished_thinking_stands_in_the_prompt_and_is_not_learnt() -> None:
    for d in dialogues("answer"):
        assert d.given.startswith("<|thinking|>\nFind: ") and d.given.endswith("\n<|/thinking|>")
        assert "<|thinking|>" not in d.completion


def test_wrong_thinking_is_never_learnt() -> None:
    wrong = [d for d in dialogues("reflect") if d.given]
    assert wrong and all("<|thinking|>" not in d.completion for d in wrong)
    assert any("Same: no. Look again: " in d.completion for d in wrong)


def test_attributes_with_one_unit_meet_in_one_passage() -> None:
    rng = random.Random(5)
    worlds = [made_up(rng, split="train", stage=2) for _ in range(200)]
    assert sum(any(_shared_unit(w, n) for n in range(len(w.sections))) for w in worlds) > 60


def _shared_unit(world: World, at: int) -> bool:
    units = [(f.entity, BY_NAME[f.attribute].unit) for f in world.sections[at].facts if BY_NAME[f.attribute].numeric]
    return len(set(units)) < len(units)


def test_permuted_notes_state_their_new_values_and_not_the_old_ones() -> None:
    rng = random.Random(6)
    old = {(k.fact.entity, k.fact.attribute): k.fact.value for m in materials() for k in m.known}
    changed = 0
    for _ in range(300):
        world = library(rng, split="train")
        for section in world.sections:
            for fact in section.facts:
                assert states(section.text, fact.value), fact
                changed += world.kind == "permuted" and old[fact.entity, fact.attribute] != fact.value
    assert changed > 100


def test_a_world_states_only_one_value_of_an_attribute() -> None:
    rng = random.Random(7)
    for n in range(300):
        world = library(rng, split="train") if n % 2 else made_up(rng, split="train", stage=2, known=names())
        keys = [(f.entity, f.attribute) for f in world.facts()]
        assert len(set(keys)) == len(keys)


def test_every_attribute_is_named_in_each_kind_of_question() -> None:
    rng = random.Random(8)
    for attribute in ATTRIBUTES:
        asked = {frames.ask_single(rng, attribute, "velorin", split="train").text for _ in range(60)}
        assert len(asked) > 40 and all("velorin" in text.lower() for text in asked)
        if attribute.numeric:
            one = frames.ask_comparison(rng, attribute, "velorin", "tarmic", higher=True, split="heldout").text
            assert "velorin" in one.lower() and "tarmic" in one


def test_library_questions_are_fixed_and_held_out_ones_look_new() -> None:
    held = library_questions("heldout")
    assert held == library_questions("heldout")
    ids = {s.id for s in SHAPES if s.held_out}
    assert {q.shape for q in held} <= ids
    assert all(q.held_out for q in held if q.kind != "single")
    assert len([q for q in held if q.kind == "single"]) >= 400
    assert not {q.text for q in held} & {q.text for q in library_questions("train")}
