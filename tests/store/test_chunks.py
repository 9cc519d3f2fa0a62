"""Cutting documents into chunks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflexor_agents.store.chunks import LIMIT, Chunk, body_start, headings, markdown_chunks, text_chunks

SENTENCE = "The tablets slide over each other and the crack has to turn. "
PIECES = [
    *["# One\n", "## Two\n", "### Three\n", "#### Four ##\n", "Setext\n===\n", "Setext\n---\n", "---\n", "\n", "\r\n"],
    *[
        "```\n",
        "~~~py\n",
        "- item\n",
        "| a | b |\n",
        "    code\n",
        "<|/thinking|>\n",
        "word ",
        "\u00b6\u00e9\U0001d6fc ",
    ],
    *[SENTENCE, SENTENCE * 20, "x" * 900, "#not a heading\n", "title: x\n", "\x0c", "\u2028", "\t"],
]
MARKDOWN = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


def texts(text: str, chunks: list[Chunk]) -> list[str]:
    return [text[chunk.start : chunk.end] for chunk in chunks]


def test_every_section_of_a_note_is_one_chunk_with_its_heading() -> None:
    text = "# Nacre\n\nIntro.\n\n## Structure\n\nBricks.\n\n## Properties\n\nTough.\n"
    assert texts(text, markdown_chunks(text)) == [
        "# Nacre\n\nIntro.",
        "## Structure\n\nBricks.",
        "## Properties\n\nTough.",
    ]


def test_a_heading_with_nothing_under_it_joins_the_chunk_that_follows() -> None:
    text = "# Nacre\n\n## Structure\n\nBricks.\n"
    assert texts(text, markdown_chunks(text)) == ["# Nacre\n\n## Structure\n\nBricks."]


def test_a_last_heading_with_nothing_under_it_is_kept() -> None:
    text = "## Structure\n\nBricks.\n\n## Notes\n"
    assert texts(text, markdown_chunks(text)) == ["## Structure\n\nBricks.", "## Notes"]


def test_small_subsections_of_one_section_stay_together() -> None:
    text = "## Properties\n\n### Wet\n\nSoft.\n\n### Dry\n\nStiff.\n"
    assert len(markdown_chunks(text)) == 1


def test_a_long_section_is_cut_at_its_subsections_first() -> None:
    text = f"## P\n\n### Wet\n\n{SENTENCE * 8}\n\n### Dry\n\n{SENTENCE * 8}\n"
    found = texts(text, markdown_chunks(text))
    assert [chunk.splitlines()[0] for chunk in found] == ["## P", "### Dry"]


def test_a_heading_is_never_cut_off_from_its_text() -> None:
    text = f"## Properties of nacre\n\n{SENTENCE * 40}"
    first = texts(text, markdown_chunks(text))[0]
    assert first.startswith("## Properties of nacre\n\nThe tablets") and first.endswith(".")


def test_long_text_is_cut_after_sentences() -> None:
    found = texts(SENTENCE * 100, text_chunks(SENTENCE * 100))
    assert all(chunk.endswith("turn.") for chunk in found)
    assert all(LIMIT // 2 < len(chunk) <= LIMIT for chunk in found)


def test_context_is_the_path_of_headings() -> None:
    text = (
        f"# Nacre\n\n## Properties\n\n### Wet\n\n{SENTENCE * 12}\n\n### Dry\n\n{SENTENCE * 12}\n\n## Use\n\nArmour.\n"
    )
    assert [chunk.context for chunk in markdown_chunks(text)] == [
        *["Nacre > Properties > Wet"] * 2,
        *["Nacre > Properties > Dry"] * 2,
        "Nacre > Use",
    ]


def test_headings_in_code_are_none() -> None:
    text = "# Real\n\n```sh\n# comment\n```\n\n~~~\n## other\n```\n~~~\n\nSetext\n------\n"
    assert [(h.level, h.text) for h in headings(text)] == [(1, "Real"), (2, "Setext")]


def test_markup_in_a_heading_is_taken_off_its_words() -> None:
    assert headings("## **Bold** [link](http://x) `code` ##\n")[0].text == "Bold link code"


def test_front_matter_is_neither_text_nor_heading() -> None:
    text = "---\ntitle: Carbohydrates\nlayout: page\n---\n\nSugars.\n"
    assert texts(text, markdown_chunks(text)) == ["Sugars."]


@given(MARKDOWN)
@settings(max_examples=300, deadline=None)
def test_chunks_hold_every_character_after_the_front_matter_once(text: str) -> None:
    chunks = markdown_chunks(text)
    starts, ends = [c.start for c in chunks], [c.end for c in chunks]
    gaps = zip([body_start(text), *ends], [*starts, len(text)], strict=True)
    assert all(start <= end and not text[start:end].strip() for start, end in gaps)


@given(MARKDOWN)
@settings(max_examples=300, deadline=None)
def test_no_chunk_crosses_a_high_heading_or_is_too_long(text: str) -> None:
    found = headings(text)
    for chunk in markdown_chunks(text):
        part = text[chunk.start : chunk.end]
        assert part == part.strip() and 0 < len(part) <= LIMIT
        last = max((h.start for h in found if h.level <= 2 and h.start < chunk.end), default=0)
        before = [h for h in found if chunk.start <= h.start < last]
        for start, end in zip([chunk.start, *(h.end for h in before)], [*(h.start for h in before), last], strict=True):
            assert not text[start:end].strip()


@given(st.text(max_size=3000))
@settings(deadline=None)
def test_any_text_is_cut_into_chunks_within_the_limit(text: str) -> None:
    chunks = text_chunks(text)
    assert all(0 < c.end - c.start <= LIMIT for c in chunks)
    assert "".join(text.split()) == "".join("".join(t.split()) for t in texts(text, chunks))


@pytest.mark.parametrize("piece", ["word ", "x", "*[`", "# a", "[", "{:"])
def test_ten_megabytes_on_one_line_become_chunks_of_useful_size(piece: str) -> None:
    text = piece * (10_000_000 // len(piece))
    sizes = [c.end - c.start for c in markdown_chunks(text)]
    assert max(sizes) <= LIMIT and sum(sizes) / len(sizes) > LIMIT / 2
