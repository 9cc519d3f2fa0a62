"""Facts out of a reply: what stands in the text is kept, what does not is refused."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflexor_agents.events import Passage
from preflexor_agents.growth import reading
from preflexor_agents.packs import load

TEXT = "Nacre is built of aragonite tablets.\nThe fracture toughness of nacre is about\n4.5 MPa m^0.5."
PASSAGE = Passage(chunk_id=7, source="nacre.md", title="Nacre", start=0, end=len(TEXT), text=TEXT)
MATERIALS = load("materials")


def fact(subject: str, relation: str, target: str, quote: str, **other: str) -> dict[str, str]:
    types = {"subject_type": "material", "object_type": "component", **other}
    return {"subject": subject, "relation": relation, "object": target, "quote": quote, **types}


def reply(*facts: dict[str, Any]) -> str:
    return json.dumps({"facts": list(facts)})


BUILT = fact("nacre", "consists of", "aragonite tablets", "Nacre is built of aragonite tablets.")


def test_a_fact_is_read_with_the_place_of_its_quote():
    found = reading.read(reply(BUILT), PASSAGE)
    assert found.refused == ()
    (only,) = found.facts
    assert (only.subject.name, only.kind, only.object.name) == ("nacre", "consists of", "aragonite tablets")
    (quote,) = only.quotes
    assert (quote.chunk_id, TEXT[quote.start : quote.end]) == (7, BUILT["quote"])


def test_a_quote_is_found_whatever_its_white_space_and_case():
    loose = fact("nacre", "has property", "toughness", "the fracture toughness of  nacre is about 4.5 mpa m^0.5.")
    (only,) = reading.read(reply(loose), PASSAGE).facts
    assert TEXT[only.quotes[0].start : only.quotes[0].end] == TEXT.split("\n", 1)[1]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (fact("nacre", "consists of", "calcite", "Nacre is built of calcite."), "quote is not in the text"),
        (fact("nacre", "consists of", "protein", BUILT["quote"]), "does not name both ends"),
        (fact("wood", "consists of", "aragonite", BUILT["quote"]), "does not name both ends"),
        (fact("nacre", "is a", "Nacre", BUILT["quote"]), "does not name both ends"),
        (fact("nacre", "is a", "nacre layer", " "), None),
    ],
)
def test_what_the_text_does_not_bear_out_is_refused(wrong: dict[str, str], reason: str | None):
    found = reading.read(reply(BUILT, wrong), PASSAGE)
    assert len(found.facts) == 1
    assert [reason in line for line in found.refused] == ([True] if reason else [])


def test_the_title_may_name_one_end_but_not_both():
    text = "Its tablets slide."
    about = Passage(chunk_id=1, source="n.md", title="Nacre", start=0, end=len(text), text=text)
    kept = reading.read(reply(fact("nacre", "consists of", "tablets", text)), about)
    lost = reading.read(reply(fact("nacre", "is a", "Nacre of old", text)), about)
    assert len(kept.facts) == 1 and lost.facts == ()


def test_the_whole_facts_of_a_reply_that_was_cut_off_are_kept_and_the_cut_is_told():
    cut = reply(BUILT, fact("nacre", "has value", "4.5 MPa m^0.5", "x"))[:-30]
    found = reading.read(cut, PASSAGE)
    assert len(found.facts) == 1 and "cut off" in found.refused[0]


@given(
    st.text(max_size=80)
    | st.recursive(st.none() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(json.dumps)
)
def test_any_reply_is_read_without_an_error(text: str):
    found = reading.read(text, PASSAGE)
    assert found.facts == ()


@pytest.mark.parametrize("name", ["general", "materials"])
def test_the_schema_allows_what_the_pack_names_and_nothing_else(name: str):
    pack = load(name)
    schema = reading.schema(pack)
    good = fact("a", pack.relations[0], "b", "c", subject_type=pack.entity_types[0], object_type=pack.entity_types[-1])
    jsonschema.validate({"facts": [good]}, schema)
    for wrong in ({"relation": "eats"}, {"subject_type": "x"}, {"quote": ""}, {"extra": "1"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"facts": [good | wrong]}, schema)


def test_the_prompt_of_another_pack_is_told_apart_and_its_text_comes_last():
    assert reading.prompt_sha256(MATERIALS) != reading.prompt_sha256(load("general"))
    assert reading.prompt_sha256(MATERIALS) == reading.prompt_sha256(load("materials"))
    first, last = (reading.messages(MATERIALS, PASSAGE), reading.messages(MATERIALS, PASSAGE)[-1])
    assert first[0].role == "system" and TEXT not in first[0].content and last.content.endswith(TEXT)
