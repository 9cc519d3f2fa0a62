"""The bundled library, asked in words of our own: what hashed spelling finds, and what it cites."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import preflexor_agents
from preflexor_agents.store import Store
from preflexor_agents.store.quantities import plain, quantities
from preflexor_agents.store.sentences import split

NOTES = Path(preflexor_agents.__file__).parent / "data" / "library"
ATTRIBUTES = (
    *("Young's modulus", "tensile strength", "compressive strength", "bending strength", "fracture toughness"),
    *("work of fracture", "strain at failure", "density", "hardness", "resilience", "energy to break", "porosity"),
)
SHAPES = ("What is the {a} of {m}?", "{m} {a}", "How large is the {a} that {m} has?")
QUESTIONS = (
    ("What makes mother of pearl so tough?", "nacre", "Mechanism"),
    ("Which mineral is in nacre?", "nacre", "Structure"),
    ("How do geckos stick to walls?", "gecko-setae", "Mechanism"),
    ("Does a gecko use suction or glue?", "gecko-setae", "Mechanism"),
    ("Why does the spider's dragline not throw a caught fly back?", "spider-dragline-silk", "Mechanism"),
    ("How does the sticky spiral of a spider stay taut?", "spider-capture-silk", "Mechanism"),
    ("How do mussels hold on to rocks in waves?", "mussel-byssus-thread", "Mechanism"),
    ("What opens the shell of a scallop?", "abductin", ""),
    ("How does wet weather move the layers of a pine cone?", "pine-cone", "Mechanism"),
    ("Why does water roll off a lotus leaf?", "lotus-leaf", "Mechanism"),
    ("How does shark skin cut drag?", "shark-skin", ""),
    ("Which bacteria product closes cracks in concrete?", "self-healing-concrete", "Mechanism"),
    ("How does antler take blows?", "antler", "Mechanism"),
    ("How does the limpet scrape rock?", "limpet-tooth", ""),
    ("How can a squid beak be stiff at the tip and soft at the base?", "squid-beak", ""),
    ("Why do the barbs of a porcupine quill enter skin easily?", "porcupine-quill", "Mechanism"),
    ("Which fish uses slime threads for defence?", "hagfish-slime-thread", ""),
    ("What carries the load in cartilage?", "cartilage", "Mechanism"),
    ("Why does a stopper of cork slide into the bottle?", "cork", "Properties"),
    ("How can a chick break out of the egg from inside?", "eggshell", "Mechanism"),
    ("Is dry dentin more brittle than wet dentin?", "dentin", "Mechanism"),
    ("How does cortical bone stop a crack?", "cortical-bone", "Mechanism"),
    ("Which sponge guides light like an optical fibre?", "glass-sponge-spicule", "Properties"),
    ("What grows into the fibres of a mycelium composite?", "mycelium-composite", ""),
    ("When does gecko tape lose its grip?", "gecko-tape", ""),
    ("How fast is the blow of a mantis shrimp?", "mantis-shrimp-club", "Properties"),
    ("How does wool recover after stretching in water?", "wool", "Mechanism"),
    ("What can engineers copy from bamboo?", "bamboo", "Use in design"),
    ("fracture thoughness of nacer", "nacre", "Properties"),
    ("How is wood densified?", "densified-wood", "Structure"),
)


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store of the bundled notes."""
    with Store.open(tmp_path_factory.mktemp("library") / "library.db") as store:
        assert store.ingest([NOTES]).failed == ()
        yield store


def is_found(store: Store, question: str, note: str, section: str, *, k: int = 3) -> bool:
    found = [p for p in store.search(question, k=k) if Path(p.source).stem == note]
    return any(f"## {section}" in p.text or not section for p in found)


def facts() -> Iterator[tuple[str, str, str]]:
    """Material, attribute and note for every attribute that a note's properties name."""
    for path in sorted(NOTES.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        material = text.removeprefix("# ").partition("\n")[0]
        properties = re.search(r"^## Properties\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        for attribute in ATTRIBUTES:
            if properties and attribute in properties[1]:
                yield material[0].lower() + material[1:], attribute, path.stem


def test_every_section_of_a_note_is_one_chunk(bundled: Store) -> None:
    sections = sum(path.read_text(encoding="utf-8").count("\n## ") + 1 for path in NOTES.glob("*.md"))
    assert bundled.stats().chunks == sections


def test_a_named_property_is_among_the_first_three(bundled: Store) -> None:
    asked = [(shape.format(a=a, m=m), note) for m, a, note in facts() for shape in SHAPES]
    missed = [question for question, note in asked if not is_found(bundled, question, note, "Properties")]
    assert len(asked) > 300 and len(missed) <= len(asked) // 50, missed


def test_most_free_questions_find_their_section_among_the_first_three(bundled: Store) -> None:
    missed = [question for question, note, section in QUESTIONS if not is_found(bundled, question, note, section)]
    assert len(missed) <= len(QUESTIONS) // 5, missed


def claims_of_the_library() -> Iterator[tuple[str, str]]:
    """Some hundred sentences of the notes that hold a number, and the note's stem."""
    for path in sorted(NOTES.glob("*.md")):
        text = path.read_text(encoding="utf-8").partition("\n## Sources")[0]
        for start, end in split(text):
            if quantities(plain(text[start:end])):
                yield text[start:end], path.stem


def test_sentences_with_numbers_are_cited_with_themselves_and_not_with_other_numbers(bundled: Store) -> None:
    tried = 0
    for claim, note in claims_of_the_library():
        passages = [p for p in bundled.search(claim, k=3) if Path(p.source).stem == note]
        if not any(claim in p.text for p in passages):
            continue
        tried += 1
        cited = bundled.cite(claim, passages)
        assert [c.quote for c in cited.citations] == [claim] and bundled.check(cited.citations[0])
        other = re.sub(r"\d+", lambda match: f"{match.group()}7", claim)
        assert bundled.cite(other, passages).unsupported == (other,)
    assert tried > 100
